"""The jobs, and the run configuration each takes. `orchestration.launch` starts them from outside Dagster.

Names: a domain's jobs are ``load_history``, ``backfill_features``, ``curate`` and ``load_dimensions`` (with the domain's
name behind them from the second domain on); a product's are ``train_<product>``, ``score_batch_<product>`` and
``monitor_<product>``, because one run makes one model and one MLflow run. All configuration may be left out; instants are RFC 3339, e.g. 2013-06-24T00:00:00Z.

``load_history``: partitions (months, key = first day, e.g. 2013-01-01 to 2013-06-01 in one run)::

    {"ops": {"lake__events": {"config": {"start": null, "end": "2013-06-24T00:00:00Z", "planted_from": null}},
             "features__<view>_v<N>": {"config": {"start": null, "end": "2013-06-24T00:00:00Z"}}, ...}}

``backfill_features``: the same partitions, of the views alone; one op per view, named after its key::

    {"ops": {"features__<view>_v<N>": {"config": {"start": null, "end": "2013-06-24T00:00:00Z"}}, ...}}

``curate``: partitions (days, UTC, e.g. 2013-07-01 to 2013-07-07 in one run); curated tables, their checks, reports. No
configuration.

``load_dimensions``: no partitions; ``at`` is the instant from which what is loaded holds, null = now::

    {"ops": {"dimensions__<name>": {"config": {"at": "2013-01-01T00:00:00Z"}}, ...}}

``train_<product>``: no partitions::

    {"ops": {"<product>__training_set": {"config": {"train_from": ..., "train_until": ..., "gate_until": ...,
                                                    "known_at": ...}}}}

``score_batch_<product>``: partitions (weeks, key = Monday)::

    {"ops": {"<product>__predictions": {"config": {"start": ..., "end": ..., "model_version": 3, "engine": "spark"}}}}

``monitor_<product>``: no partitions; checks parity before it decides::

    {"ops": {"<product>__monitoring": {"config": {"known_at": ...}},
             "<product>__retraining_decision": {"config": {"known_at": ...}}}}

``check_replication``: no configuration. ``compact_lake`` (`orchestration.lake_upkeep`)::

    {"ops": {"compact": {"config": {"keep_days": 30}}}}
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.domain import IDENTITY, LEDGER
from assets.names import (
    LAKE_EVENTS,
    candidate_key,
    curated_key,
    decision_key,
    dimension_key,
    features_key,
    labels_key,
    model_key,
    monitoring_key,
    predictions_key,
    report_key,
    results_key,
    training_set_key,
)
from assets.scoring import PARITY
from assets.tracking import PRODUCT_TAG, end_tracking
from headway.contracts import Domain
from headway.product import Product

# What `define_asset_job` returns; Dagster does not export the name.
Job: TypeAlias = UnresolvedAssetJobDefinition


def domain_jobs(domain: Domain, *, only: bool) -> list[Job]:
    """Return a domain's jobs; the only domain's names need no suffix."""
    suffix = _suffix(domain, only=only)
    events = dg.AssetSelection.assets(LAKE_EVENTS)
    features = dg.AssetSelection.assets(*(features_key(view) for view in domain.views))
    return [
        dg.define_asset_job(
            f"load_history{suffix}",
            # Without the ledger: history in bulk did not come through the log, which may not even be up.
            selection=events.without_checks()
            | dg.AssetSelection.checks(dg.AssetCheckKey(LAKE_EVENTS, IDENTITY))
            | features,
            description=f"Load months of {domain.name} into the lake in bulk, and make their features; repeatable.",
        ),
        dg.define_asset_job(
            f"backfill_features{suffix}",
            selection=features,
            description=f"Make the changelogs of all views of {domain.name} from lake events, by month.",
        ),
        *_warehouse_jobs(domain, only=only),
        dg.define_asset_job(
            f"check_ledger{suffix}",
            selection=dg.AssetSelection.checks(dg.AssetCheckKey(LAKE_EVENTS, LEDGER)),
            description="Account for every accepted event: log, letters, duplicates, lake.",
        ),
    ]


def _alone(job: str) -> dict[str, str]:
    """Return the tag by which the queue runs no two of a job at once (`dagster.yaml`): they write the same tables."""
    return {"headway/one_at_a_time": job}


def _warehouse_jobs(domain: Domain, *, only: bool) -> Iterator[Job]:
    if domain.curated:
        tables, name = (curated_key(table) for table in domain.curated), curate_job_name(domain, only=only)
        yield dg.define_asset_job(
            name,
            tags=_alone(name),
            selection=dg.AssetSelection.assets(*tables, *(report_key(report) for report in domain.reports)),
            description=f"Make days of the curated tables of {domain.name} from lake events, and the reports over them.",
        )
    if domain.dimensions:
        dimensions = (dimension_key(dimension) for dimension in domain.dimensions)
        name = f"load_dimensions{_suffix(domain, only=only)}"
        yield dg.define_asset_job(
            name,
            tags=_alone(name),
            selection=dg.AssetSelection.assets(*dimensions, *(features_key(view) for view in domain.statics)),
            description=f"Load what is true of the entities of {domain.name}, and feed the static views in the lake.",
        )


def replication_job(checks: dg.AssetChecksDefinition) -> Job:
    """Return the job that compares Kafka with what is declared."""
    return dg.define_asset_job(
        "check_replication",
        selection=dg.AssetSelection.checks(checks),
        description="Compare Kafka's brokers, quorum and topics with what is declared, topic by topic.",
    )


def product_jobs(product: Product) -> list[Job]:
    """Return a product's jobs."""
    tags = {PRODUCT_TAG: product.name}
    parity = dg.AssetSelection.checks(dg.AssetCheckKey(predictions_key(product), PARITY))
    watched = dg.AssetSelection.assets(labels_key(product), monitoring_key(product), decision_key(product))
    return [
        dg.define_asset_job(
            train_job_name(product),
            selection=dg.AssetSelection.assets(training_set_key(product), model_key(product), candidate_key(product)),
            description=f"Training set, checks, LightGBM, gate, candidate of {product.name}; one MLflow run.",
            tags=tags,
            # One process, so that dagster-mlflow's search for its run has nobody to race with (ADR 0009).
            executor_def=dg.in_process_executor,
            # On every step: a failed training set fails the MLflow run too.
            hooks={end_tracking},
        ),
        dg.define_asset_job(
            f"score_batch_{product.name}",
            # Without parity: the monitor checks it over all answers before it decides.
            selection=dg.AssetSelection.assets(predictions_key(product), results_key(product)).without_checks(),
            description=f"Answer what {product.name} would have been asked, and publish the answers for applications.",
            tags=tags,
        ),
        dg.define_asset_job(
            f"monitor_{product.name}",
            selection=watched | parity,
            description=f"Labels, weekly verdicts on the live version of {product.name}, and whether to train again.",
            tags=tags,
        ),
    ]


def train_job_name(product: Product) -> str:
    """Return the name of the job that makes a candidate."""
    return f"train_{product.name}"


def curate_job_name(domain: Domain, *, only: bool) -> str:
    """Return the name of the job that makes days of a domain's curated tables."""
    return f"curate{_suffix(domain, only=only)}"


def train_config(product: Product, period: Mapping[str, str | None]) -> dict[str, Any]:  # Any: Dagster's nesting
    """Return the run configuration of a training on a period; see `assets.training.PeriodConfig`."""
    step = training_set_key(product).to_python_identifier()
    return {"ops": {step: {"config": dict(period)}}}


def all_jobs(domains: Sequence[Domain], products: Sequence[Product]) -> list[Job]:
    """Return every job."""
    jobs = [job for domain in domains for job in domain_jobs(domain, only=len(domains) == 1)]
    return [*jobs, *(job for product in products for job in product_jobs(product))]


def _suffix(domain: Domain, *, only: bool) -> str:
    return "" if only else f"_{domain.name}"
