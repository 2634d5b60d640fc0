"""Batch scoring: what the product would have been asked, answered by the live version with the code that serves.

The table is the one the stream's answers land in (``predictions.<product>``); batch rows say so in ``source``. A repeat of
an interval replaces its batch rows of the same version and touches nothing else. From there they go into the database
that product applications read (`assets.results`).
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from assets.declared import Materialized, without_beta_warning
from assets.intervals import END_MONTH, FIRST_MONTH, IntervalConfig, interval
from assets.lake_reads import events_behind, known_until
from assets.names import candidate_key, features_key, predictions_key, topic_key
from assets.pictures import batch_pictures
from assets.resources import LakeResource, RegistryResource, settings
from assets.shown import figures, owners, picture, schema_of, table
from headway.adapters.delta import Lake
from headway.batch import BatchRun
from headway.batch_engine import Batch, Engine, Written, batch_engine, write_batch
from headway.batch_reads import PIECE_EVENTS, BatchReads
from headway.batch_rows import answers_of
from headway.clock import SystemClock, monotonic_s, to_us
from headway.commit import code_commit
from headway.contracts import Reference
from headway.drift import Window
from headway.errors import PermanentFailure
from headway.prediction_parity import check_predictions
from headway.predictions import ModelId, predictions_table
from headway.predictor import Predictor, open_predictor
from headway.product import Product
from headway.registry import CHAMPION, LIVE, ModelRegistry, ModelVersion
from headway.topics import predictions_topic

PARITY = "parity"
# The count tells the size of a fault, the earliest few tell what it is.
_TOLD = 20


class ScoringConfig(IntervalConfig):
    """Which weeks' questions to answer, cut to [start, end) of the as-of, by which version and on what.

    Attributes:
        model_version: of the registry; null = the live one, else the champion.
        engine: this process, on all its cores, or Spark as ``HEADWAY_SPARK_*`` says; the rows are the same.
        piece_events: events that are taken at once; fewer need less memory and take longer.
    """

    model_version: int | None = None
    engine: Engine = "process"
    piece_events: int = PIECE_EVENTS


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A registry version, its text, and its proven predictor."""

    version: ModelVersion
    model: bytes
    predictor: Predictor


def weeks(product: Product) -> dg.WeeklyPartitionsDefinition:
    """Return the weeks a product is judged in: Monday to Monday, local midnight."""
    return dg.WeeklyPartitionsDefinition(
        start_date=FIRST_MONTH, end_date=END_MONTH, timezone=product.drift.zone, day_offset=1
    )


def predictions_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of a product's answers, by week of their as-of."""
    made = predictions_table(product.name)

    def predictions(
        context: dg.AssetExecutionContext, config: ScoringConfig, lake: LakeResource, registry: RegistryResource
    ) -> Materialized:
        window = interval(context, config)
        started_s = monotonic_s()
        model, batch = batch_of(
            product,
            lake.open(),
            registry.open(),
            window,
            version=config.model_version,
            run_id=context.run.run_id,
            engine=config.engine,
        )
        with batch_engine(config.engine, settings(), model=model.model) as score:
            written = write_batch(batch, score, limit=config.piece_events, say=context.log.info)
        seconds = monotonic_s() - started_s
        for refused in written.refused[:_TOLD]:
            context.log.warning("%s is not answered: %s", refused.subject, refused.reason)
        return dg.MaterializeResult(
            metadata={
                "engine": config.engine,
                "run_id": context.run.run_id,
                "rows_of_run": written.rows,
                "seconds": round(seconds, 2),
                "rows_per_s": round(written.rows / seconds),
                "interval": str(window),
                "model_version": model.version.version,
                "model_digest": model.version.digest,
                "table_version": lake.open().version(made.name),
                **_shown(product, lake.open(), batch, written),
            }
        )

    # Weeks and months do not map onto each other one to one; a week's answers read the months around it.
    views = [
        dg.AssetDep(features_key(view), partition_mapping=dg.AllPartitionMapping())
        for view in product.feature_views.values()
    ]
    with without_beta_warning():
        return dg.asset(
            key=predictions_key(product),
            deps=[topic_key(predictions_topic(product.name)), candidate_key(product), *views],
            partitions_def=weeks(product),
            backfill_policy=dg.BackfillPolicy.single_run(),
            description=(
                "One row per answer, served or in batch: the request, each view's values as used, probability (0 to 1)."
            ),
            group_name=product.name,
            owners=owners(product.owner),
            kinds={"deltalake", "lightgbm", "spark"},
            metadata=schema_of(made),
        )(predictions)


def parity_check(product: Product) -> dg.AssetChecksDefinition:
    """Return the blocking check that every logged feature value is what the lake's events say (S8)."""

    @dg.asset_check(
        asset=predictions_key(product),
        name=PARITY,
        blocking=True,
        description="Each logged feature value, recomputed from events as known when it was served; none may differ.",
    )
    def parity(lake: LakeResource) -> dg.AssetCheckResult:
        opened = lake.open()
        if not opened.exists(predictions_topic(product.name)):
            return dg.AssetCheckResult(passed=False, description="there are no predictions yet")
        rows = opened.read(predictions_topic(product.name))
        report = check_predictions(rows, events_behind(opened, product, rows), product.feature_views.values())
        count = f"{report.mismatched:,} of {report.checked:,} values differ"
        return dg.AssetCheckResult(
            passed=report.held,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; first ".join([count, *(mismatch.told for mismatch in report.mismatches[:1])]),
            metadata={
                "predictions": report.predictions,
                "checked": report.checked,
                "skipped": report.skipped,
                "mismatches": report.mismatched,
                "corrected_later": report.corrected,
                "max_lag_s": max((lag.max_s for lag in report.lag), default=0.0),
                **(
                    {"earliest": [mismatch.told for mismatch in report.mismatches[:_TOLD]]} if report.mismatches else {}
                ),
            },
        )

    return parity


def open_version(product: Product, registry: ModelRegistry, reference: Reference, *, version: int | None) -> Answering:
    """Return a version's proven predictor: the one named, else live, else champion.

    Raises:
        PermanentFailure: there is none.
        ContractViolation: it pins other views or reference data than this code has (S20).
    """
    from headway.adapters.lightgbm import LightGbm

    if version is None:
        found = registry.alias(product.name, LIVE) or registry.alias(product.name, CHAMPION)
    else:
        found = next((known for known in registry.versions(product.name) if known.version == version), None)
    if found is None:
        raise PermanentFailure(
            f"{product.name}: no version {version or 'live or champion'} in the registry; train one, then promote it"
        )
    model, manifest = registry.load(product.name, found.version)
    manifest.verify_definitions(
        product=product.name, view_digests=product.view_digests, reference_version=reference.version
    )
    return Answering(version=found, model=model, predictor=open_predictor(model, manifest, load=LightGbm().load))


def batch_of(
    product: Product,
    lake: Lake,
    registry: ModelRegistry,
    window: Window,
    *,
    version: int | None,
    run_id: str,
    engine: Engine,
) -> tuple[Answering, Batch]:
    """Return who answers, and the batch of everything asked in an interval, its tables pinned as they are now."""
    reference = product.domain.load_reference()
    model = open_version(product, registry, reference, version=version)
    run = BatchRun(
        run_id=run_id,
        model=ModelId(name=product.name, version=model.version.version, digest=model.version.digest),
        interval=window,
        known_at_us=known_until(lake),
        started_us=to_us(SystemClock().now()),
        source="batch" if engine == "process" else "spark",
        commit=code_commit(),
    )
    reads = BatchReads.pinned(lake, product, window)
    return model, Batch(reads=reads, run=run, predictor=model.predictor, reference=reference)


def _shown(
    product: Product, lake: Lake, batch: Batch, written: Written
) -> dict[str, Any]:  # Any: metadata of all kinds
    """Return what a person looks for: what was refused and why, the answers by day, and their spread."""
    answers = answers_of(lake, product.name, batch.run)
    told = [{"subject": each.subject, "reason": each.reason} for each in written.refused[:_TOLD]]
    pictures = batch_pictures(answers, zone=product.drift.zone) if answers.height else {}
    return {
        "rows_refused": len(written.refused),
        **({"refused": table(told)} if told else {}),
        **figures({"mean_probability": _mean(answers)}),
        **{title: picture(png, title=title) for title, png in pictures.items()},
    }


def _mean(rows: pl.DataFrame) -> float | None:
    mean = rows["probability"].mean()
    return mean if isinstance(mean, float) else None
