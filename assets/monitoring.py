"""After the prediction: labels as they become known, weekly verdicts on the live version, and whether to train again.

Read, call `headway.monitoring` and `headway.drift`, write. Only whole mature weeks are judged (S18), every decision is
kept with its reason, and drift on data that failed parity is never decided on: the check blocks.
"""

import dagster as dg
import polars as pl

from assets.declared import Materialized
from assets.intervals import parse
from assets.lake_reads import events_around, known_until
from assets.names import LAKE_EVENTS, decision_key, labels_key, monitoring_key, predictions_key
from assets.pictures import monitoring_pictures
from assets.resources import LakeResource, RegistryResource
from assets.shown import figures, owners, picture, schema_of, table
from headway.adapters.delta import Lake
from headway.clock import DAY_US, SystemClock, format_us, from_us, to_us
from headway.drift import History, Hold, Window, decide_retrain
from headway.errors import PermanentFailure
from headway.lake import LakeTable
from headway.manifest import Manifest
from headway.monitoring import (
    decision_row,
    judge_weeks,
    judged_predictions,
    label_rows,
    merge_verdicts,
    monitoring_rows,
    past_trainings_us,
    weeks_in,
)
from headway.monitoring_tables import decisions_table, labels_table, monitoring_table
from headway.predictions import predictions_table
from headway.product import Product
from headway.registry import CHAMPION, LIVE, ModelRegistry, ModelVersion

_SHOWN = ("week", "rows", "rate", "mean_prediction", "divergence", "limit_divergence", "excess_log_loss")
_SHOWN_TOO = ("limit_excess_log_loss", "average_precision", "worst_slice", "worst_slice_gap", "warnings", "planted")


class MonitorConfig(dg.Config):
    """How far events count as known, an RFC 3339 instant; null = the newest event in the lake."""

    known_at: str | None = None


def labels_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of outcomes."""
    declared = labels_table(product)

    @dg.asset(
        key=labels_key(product),
        deps=[LAKE_EVENTS, predictions_key(product)],
        description="One row per thing asked about, or that could have been: its outcome and when it became known (UTC).",
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"deltalake", "polars"},
        metadata=schema_of(declared),
    )
    def labels(lake: LakeResource) -> Materialized:
        opened = lake.open()
        period = _asked_period(opened, product)
        rows = label_rows(product, events_around(opened, product, period))
        rows = rows.filter(pl.col("window").is_between(from_us(period.from_us), from_us(period.until_us)))
        replace(opened, declared, rows, f"window >= '{format_us(period.from_us)}'")
        counts = rows.group_by("outcome").len().sort("outcome").iter_rows()
        return dg.MaterializeResult(
            metadata={
                "rows": rows.height,
                "period": str(period),
                **{f"outcome {name}": count for name, count in counts},
            }
        )

    return labels


def monitoring_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of weekly verdicts on the live version."""
    declared = monitoring_table(product)

    @dg.asset(
        key=monitoring_key(product),
        deps=[predictions_key(product), labels_key(product)],
        description="One row per model version and whole mature week (Monday to Monday, local): rates, losses, divergence.",
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"deltalake", "numpy"},
        metadata=schema_of(declared),
    )
    def monitoring(config: MonitorConfig, lake: LakeResource, registry: RegistryResource) -> Materialized:
        opened = lake.open()
        version, manifest = watched(product, registry.open())
        verdicts = judge_version(product, opened, version, manifest, known_at_us=_known_at(opened, config))
        replace(opened, declared, verdicts, f"model_digest = '{version.digest}'")
        shown = verdicts.select(*_SHOWN, *_SHOWN_TOO).to_dicts()
        pictures = monitoring_pictures(product, verdicts, manifest.limits)
        newest = {} if verdicts.is_empty() else verdicts.select(pl.col(pl.Float64)).row(-1, named=True)
        return dg.MaterializeResult(
            metadata={
                "model_version": version.version,
                "weeks": verdicts.height,
                "verdicts": table(shown),
                **figures(newest),
                **{name: picture(png, title=name) for name, png in pictures.items()},
            }
        )

    return monitoring


def decision_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of decisions to train."""
    declared = decisions_table(product)

    @dg.asset(
        key=decision_key(product),
        deps=[monitoring_key(product)],
        description="One row per model version and last judged week: train again or hold, and why.",
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"deltalake"},
        metadata=schema_of(declared),
    )
    def decision(config: MonitorConfig, lake: LakeResource, registry: RegistryResource) -> Materialized:
        opened = lake.open()
        version, manifest = watched(product, registry.open())
        row = decide(product, opened, version, manifest, known_at_us=_known_at(opened, config))
        until = row["until"][0]
        week = "until IS NULL" if until is None else f"until = '{format_us(to_us(until))}'"
        replace(opened, declared, row, f"model_digest = '{version.digest}' AND {week}")
        told = {name: str(value) for name, value in row.to_dicts()[0].items() if value is not None}
        history = opened.read(declared.name).sort("decided_at").to_dicts()
        return dg.MaterializeResult(metadata={**told, "history": table(history)})

    return decision


def watched(product: Product, registry: ModelRegistry) -> tuple[ModelVersion, Manifest]:
    """Return the version whose predictions are judged: live, else champion.

    Raises:
        PermanentFailure: there is neither.
    """
    version = registry.alias(product.name, LIVE) or registry.alias(product.name, CHAMPION)
    if version is None:
        raise PermanentFailure(f"{product.name}: no version is live or champion; there is nothing to watch")
    return version, registry.load(product.name, version.version)[1]


def judge_version(
    product: Product, lake: Lake, version: ModelVersion, manifest: Manifest, *, known_at_us: int
) -> pl.DataFrame:
    """Return all weekly verdicts on a version, those kept and those new."""
    declared = monitoring_table(product)
    mine = pl.col("model_digest") == version.digest
    predictions = lake.read(predictions_table(product.name).name, predicate=mine)
    labels = lake.read(labels_table(product).name)
    judged = judged_predictions(product, predictions, labels)
    found = judge_weeks(product, judged, labels=labels, known_at_us=known_at_us)
    rows = monitoring_rows(product, found, model=version, limits=manifest.limits, known_at_us=known_at_us)
    lake.create(declared)
    return merge_verdicts(lake.read(declared.name, predicate=mine), rows)


def decide(
    product: Product, lake: Lake, version: ModelVersion, manifest: Manifest, *, known_at_us: int
) -> pl.DataFrame:
    """Return the decision on a version's newest week, as a row of the table."""
    lake.create(decisions_table(product))
    weeks = weeks_in(lake.read(monitoring_table(product).name, predicate=pl.col("model_digest") == version.digest))
    trained = Window(from_us=manifest.training.from_us, until_us=manifest.training.until_us)
    before_us = weeks[-1].until_us if weeks else None
    history = History(
        trained_until_us=trained.until_us,
        trainings_us=past_trainings_us(lake.read(decisions_table(product).name), before_us=before_us),
    )
    decision = (
        Hold(f"version {version.version} has no drift limits; train it again")
        if manifest.limits is None
        else decide_retrain(weeks, limits=manifest.limits, policy=product.drift, history=history)
    )
    return decision_row(
        product,
        decision,
        model=version,
        trained=trained,
        weeks=weeks,
        known_at_us=known_at_us,
        decided_at_us=to_us(SystemClock().now()),
    )


def replace(lake: Lake, declared: LakeTable, rows: pl.DataFrame, predicate: str) -> None:
    """Make the rows of a table for which the predicate holds exactly these."""
    lake.create(declared)
    lake.overwrite_partition(declared.name, rows, predicate)


def _asked_period(lake: Lake, product: Product) -> Window:
    found = lake.scan(predictions_table(product.name).name).select(
        pl.col("as_of").min().alias("first"), pl.col("as_of").max().alias("last")
    )
    first, last = found.collect().row(0)
    if first is None:
        raise PermanentFailure(f"{product.name}: no predictions in the lake; score a batch or ask the API")
    # What is asked about starts within days of the question; whole windows need their other rows too.
    return Window(from_us=to_us(first) - DAY_US, until_us=to_us(last) + 7 * DAY_US)


def _known_at(lake: Lake, config: MonitorConfig) -> int:
    return known_until(lake) if config.known_at is None else parse(config.known_at, field="known_at")
