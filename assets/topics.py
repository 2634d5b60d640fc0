"""The stream as assets: topics, online store and deployment exist outside Dagster, which only observes them.

They are external assets so that lineage has no gap: a prediction can be followed back to the topic its features came
through, and a topic forward to the decisions that rest on it.
"""

from collections.abc import Iterable

import dagster as dg

from assets.names import (
    LAKE_LETTERS,
    candidate_key,
    features_key,
    instances_key,
    online_key,
    producers_key,
    serving_key,
    topic_key,
)
from assets.shown import owners, schema_of
from headway.contracts import Domain
from headway.letter_table import letters_table
from headway.product import Product
from headway.topics import (
    COLLECTOR_PROBE,
    EVENTS_ENRICHED,
    EVENTS_ENRICHED_LETTERS,
    EVENTS_RAW,
    EVENTS_RAW_LETTERS,
    FEATURES_INPUT,
    LETTERS_CAUSES,
    LETTERS_FATE,
    features_topic,
    predictions_topic,
    scores_state_topic,
    scores_topic,
    state_topic,
)


def stream_assets(domain: Domain) -> list[dg.AssetSpec]:
    """Return what a domain's events pass through, from producers to the online store."""
    group = f"{domain.name}_stream"
    team = owners(domain.contracts[0].owner)

    def topic(name: str, after: Iterable[dg.AssetKey], description: str) -> dg.AssetSpec:
        return _external(topic_key(name), after, description, group=group, owners=team, kinds={"kafka"})

    producers, raw, enriched = producers_key(domain), topic_key(EVENTS_RAW), topic_key(EVENTS_ENRICHED)
    letters = [topic_key(EVENTS_RAW_LETTERS), topic_key(EVENTS_ENRICHED_LETTERS)]
    types = ", ".join(contract.event_type for contract in domain.contracts)
    described = f"Who sends {types}; also the files their history is loaded from. One event per thing that happened."
    specs = [
        _external(producers, (), described, group=group, owners=team, kinds={"python"}),
        topic(EVENTS_RAW, [producers], "One record per event the Collector acknowledged, as it came (CloudEvents)."),
        topic(EVENTS_RAW_LETTERS, [producers], "One letter per event refused at the door, original bytes included."),
        topic(COLLECTOR_PROBE, [producers], "Empty records, by which an idle Collector knows that the log takes any."),
        topic(EVENTS_ENRICHED, [raw], "One record per valid event, once, with the columns of the reference data."),
        topic(EVENTS_ENRICHED_LETTERS, [raw], "One letter per accepted event that broke its schema or enrichment."),
        topic(FEATURES_INPUT, [enriched], "One record per (event, view, entity): the repartition of the feature job."),
        topic(
            LETTERS_FATE, letters, "One record per letter somebody fixed, replayed or discarded, with all its steps."
        ),
        topic(
            LETTERS_CAUSES, letters, "One record per cause of letters ever seen; what keeps an alert from repeating."
        ),
        dg.AssetSpec(
            LAKE_LETTERS,
            deps=letters,
            description="One row per letter of either kind, written by the lake loader.",
            group_name=group,
            owners=team,
            kinds={"deltalake"},
            metadata=schema_of(letters_table()),
        ),
    ]
    changelogs = []
    for view in domain.views:
        name = view.qualified
        changelogs.append(topic_key(features_topic(name)))
        specs += [
            topic(
                features_topic(name),
                [topic_key(FEATURES_INPUT)],
                f"Changelog: one record per ({', '.join(view.keys)}) and instant its values change. {view.description}",
            ),
            topic(
                state_topic(name),
                [topic_key(FEATURES_INPUT)],
                f"State of the feature job: one record per ({', '.join(view.keys)}) and {view.hop} tile, compacted.",
            ),
        ]
    store = "The newest row of every entity of every view, with each view's watermark; what predictions read."
    scaled = (
        "How many instances of each stream job run: one decision of the scaler per round, recorded with its inputs."
    )
    loaded = [features_key(view) for view in domain.statics]
    read = [raw, enriched, topic_key(FEATURES_INPUT), *changelogs]
    return [
        *specs,
        _external(online_key(domain), [*changelogs, *loaded], store, group=group, owners=team, kinds={"redis"}),
        _external(instances_key(domain), read, scaled, group=group, owners=team, kinds={"sqlite"}),
    ]


def deployment_assets(product: Product) -> list[dg.AssetSpec]:
    """Return what serves a product, the log of its answers, and its stream scores if the stream asks it."""
    team = owners(product.owner)
    specs = [
        _external(
            serving_key(product),
            [candidate_key(product), online_key(product.domain)],
            "The version behind the load balancer: one per product (registry alias `live`).",
            group=product.name,
            owners=team,
            kinds={"ray"},
        ),
        _external(
            topic_key(predictions_topic(product.name)),
            [serving_key(product)],
            "One record per answer: request, view values as read, watermark, probability.",
            group=product.name,
            owners=team,
            kinds={"kafka"},
        ),
    ]
    if product.asked_by is None:
        return specs
    asked, scores = topic_key(EVENTS_ENRICHED), topic_key(scores_topic(product.name))
    told = (
        (
            scores,
            [asked, serving_key(product), online_key(product.domain)],
            f"One record per `{product.asked_by}`: the stream's answer, by the version its partition's plan names.",
        ),
        (
            topic_key(scores_state_topic(product.name)),
            [asked],
            "State of the stream scorer: questions that wait, and from which offset on which version answers.",
        ),
    )
    return specs + [_external(*each, group=product.name, owners=team, kinds={"kafka"}) for each in told]


def _external(
    key: dg.AssetKey,
    after: Iterable[dg.AssetKey],
    description: str,
    *,
    group: str,
    owners: list[str],
    kinds: set[str],
) -> dg.AssetSpec:
    return dg.AssetSpec(key, deps=list(after), description=description, group_name=group, owners=owners, kinds=kinds)
