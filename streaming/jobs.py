"""The job table: which handler or sink reads which topics, and how to build it. Adding a job is one entry.

Building happens in the job's own process; nothing here connects at import.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.clock import SystemClock
from headway.contracts import Domain
from headway.letters import LETTER_TOPICS
from headway.ports import Enrichment, Message
from headway.scaling import ALONE
from headway.topics import (
    EVENTS_ENRICHED,
    EVENTS_ENRICHED_LETTERS,
    EVENTS_RAW,
    EVENTS_RAW_LETTERS,
    FEATURES_INPUT,
    LETTERS_CAUSES,
    PARTITIONS,
    features_topic,
    predictions_topic,
    scores_topic,
)
from streaming.runtime import HandlerWorker, Restore, SinkWorker, Worker


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Whose events the jobs handle: a domain's and its products'. Names topics, and needs no store."""

    domain: Domain
    products: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Context(Scope):
    """What a job may need to work: its scope, and where the stores are."""

    restore: Restore
    online_url: str
    feast_project: str
    lake_root: str
    search_url: str
    models_folder: Path
    mlflow_url: str = ""
    kafka_bootstrap: str = ""
    enrichment_url: str = ""
    alertmanager_url: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of the table; ``alone`` says why there is one instance of it and no more, if that is so."""

    name: str
    topics: Callable[[Scope], Sequence[str]]
    build: Callable[[Context], Worker]
    alone: str | None = None


def _enrich(context: Context) -> Worker:
    from streaming.handlers.enrich import EnrichHandler

    return HandlerWorker(EnrichHandler(context.domain, _enrichment(context), context.restore))


def _enrichment(context: Context) -> Enrichment:
    from headway.enrichment import CachedEnrichment, ReferenceEnrichment

    if not context.enrichment_url:
        # Not behind the cache: finding an answer among 65,536 costs more than a look into small tables.
        return ReferenceEnrichment(context.domain.load_reference())
    from headway.adapters.enrichment_http import HttpEnrichment

    return CachedEnrichment(HttpEnrichment(context.enrichment_url), context.domain)


def _fan_out(context: Context) -> Worker:
    from streaming.handlers.fan_out import FanOutHandler

    return HandlerWorker(FanOutHandler(context.domain.views))


def _aggregate(context: Context) -> Worker:
    from streaming.handlers.aggregate import AggregateHandler

    return HandlerWorker(AggregateHandler(context.domain.views, context.restore))


def _online(context: Context) -> Worker:
    from prometheus_client import REGISTRY

    from headway.adapters.redis_online import OnlineWriter
    from streaming.freshness import ViewFreshness
    from streaming.sinks.online import OnlineSink

    freshness = ViewFreshness(context.domain, registry=REGISTRY, clock=SystemClock())
    return SinkWorker(OnlineSink(context.domain, OnlineWriter(context.online_url, context.feast_project), freshness))


def _lake(context: Context) -> Worker:
    from streaming.sinks.lake import build_lake_sink

    return SinkWorker(build_lake_sink(context.domain, context.products, context.lake_root))


def _letters_watch(context: Context) -> Worker:
    from headway.adapters.alertmanager import Alertmanager
    from headway.adapters.kafka_backlog import read_backlogs
    from headway.adapters.kafka_topics import admin_client
    from streaming.sinks.letter_watch import LetterWatchSink

    admin = admin_client(context.kafka_bootstrap)
    intake = group_name(context.domain, "enricher")

    def accepted() -> int:
        return read_backlogs(admin, {intake: [EVENTS_RAW]})[intake].written

    def known() -> list[Message]:
        return [message for number in range(PARTITIONS) for message in context.restore(LETTERS_CAUSES, number)]

    clock = SystemClock()
    send = Alertmanager(context.alertmanager_url, clock).send if context.alertmanager_url else None
    return SinkWorker(LetterWatchSink(known=known, accepted=accepted, send=send, clock=clock))


def _search(context: Context) -> Worker:
    from headway.adapters.elasticsearch import ElasticsearchIndex
    from streaming.sinks.search import SearchSink

    return SinkWorker(SearchSink(ElasticsearchIndex(context.search_url), context.domain))


def _score(context: Context) -> Worker:
    from headway.adapters.mlflow_reader import MlflowReader
    from products.catalogue import find_product
    from streaming.handlers.together import Together
    from streaming.scorers import build_scorer

    registry, products = MlflowReader(context.mlflow_url), map(find_product, context.products)
    return HandlerWorker(
        Together([build_scorer(product, registry, context) for product in products if product.asked_by is not None])
    )


def _changelogs(scope: Scope) -> list[str]:
    return [features_topic(view.qualified) for view in scope.domain.views]


def _lake_topics(scope: Scope) -> list[str]:
    logged = [topic(product) for product in scope.products for topic in (predictions_topic, scores_topic)]
    return [EVENTS_ENRICHED, EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS, *_changelogs(scope), *logged]


FAN_OUT, AGGREGATE, LAKE_LOADER = "features-fan-out", "features-aggregate", "lake-loader"
SCORER = "scorer"
# Who writes changelog rows where they are read: the online store and the lake.
CHANGELOG_WRITERS = ("online-writer", LAKE_LOADER)
JOBS: tuple[Job, ...] = (
    Job(name="enricher", topics=lambda _: [EVENTS_RAW], build=_enrich),
    Job(name=FAN_OUT, topics=lambda _: [EVENTS_ENRICHED], build=_fan_out),
    Job(name=AGGREGATE, topics=lambda _: [FEATURES_INPUT], build=_aggregate),
    Job(name="online-writer", topics=_changelogs, build=_online),
    Job(name=LAKE_LOADER, topics=_lake_topics, build=_lake),
    Job(
        name="letters-watch",
        topics=lambda _: LETTER_TOPICS,
        build=_letters_watch,
        alone=ALONE["letters-watch"],
    ),
    Job(
        name="search-loader",
        topics=lambda _: [EVENTS_ENRICHED, EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS],
        build=_search,
    ),
    Job(name=SCORER, topics=lambda _: [EVENTS_ENRICHED], build=_score),
)


def group_name(domain: Domain, job: str) -> str:
    """Return the consumer group of a job."""
    return f"headway.{domain.name}.{job}"


def find_job(name: str) -> Job:
    """Return a job by name; raises KeyError naming the jobs there are."""
    for job in JOBS:
        if job.name == name:
            return job
    raise KeyError(f"job: got {name!r}, wanted one of {[job.name for job in JOBS]}")
