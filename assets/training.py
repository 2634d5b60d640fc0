"""The training set of a product: what was asked, as it was asked, with what came of it, checked before anyone learns.

One run makes one dataset: rows to learn from, rows held out, and the held-out rows with yesterday's features. Its tables
are pinned by version, so the same snapshot and period are the same dataset, whenever it is made.
"""

from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from assets.declared import Materialized
from assets.intervals import parse
from assets.lake_reads import changelog_values, events_around, known_until
from assets.names import LAKE_EVENTS, features_key, training_set_key
from assets.pictures import training_pictures
from assets.resources import LakeResource
from assets.shown import figures, owners, picture, schema_of, table
from headway.adapters.delta import Lake
from headway.clock import DAY_US, format_us, monotonic_s
from headway.drift import Window, weekly_windows
from headway.errors import ContractViolation
from headway.product import Product
from headway.training import TrainingSet, training_set
from headway.training_table import DatasetFacts, Part, dataset_rows, training_table

# Four weeks held out: a month of weather, and still half a year to learn from.
_GATE_WEEKS = 4
CHECKS: Mapping[str, str] = {
    "schema": "Columns, types and nulls are those of the table.",
    "ranges": "Counts are not negative, ages not either, numbers finite, no category is empty.",
    "label_share": "Both outcomes occur, and neither nearly always: between 1 % and 99 % in every part.",
    "no_leakage": "Every label became known after its question was asked; no feature is younger than the question.",
    "label_maturity": "The last outcome was due long enough before the events end (S18).",
}


class PeriodConfig(dg.Config):
    """What to learn from, [train_from, train_until), and to judge on, [train_until, gate_until); RFC 3339 instants.

    Attributes:
        train_from: null = the first event in the lake.
        train_until: null = four weeks before ``gate_until``.
        gate_until: null = the end of the newest week whose labels are mature.
        known_at: how far events count as known; null = the newest event in the lake.
    """

    train_from: str | None = None
    train_until: str | None = None
    gate_until: str | None = None
    known_at: str | None = None


def training_set_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of a product's datasets."""

    @dg.asset(
        key=training_set_key(product),
        deps=[LAKE_EVENTS, *(features_key(view) for view in product.feature_views.values())],
        description=(
            "One row per labelled thing asked about, with the features it would have been answered with: what a model "
            "learns from (train), is judged on (gate), and the leak test (yesterday)."
        ),
        group_name=product.name,
        owners=owners(product.owner),
        kinds={"deltalake", "polars"},
        metadata=schema_of(training_table(product)),
    )
    def rows(config: PeriodConfig, lake: LakeResource) -> Materialized:
        started_s = monotonic_s()
        opened = lake.open()
        facts = dataset_facts(product, opened, config)
        parts = build_parts(product, opened, facts)
        save(product, opened, dataset_rows(product, parts, facts), dataset=facts.dataset)
        return dg.MaterializeResult(
            metadata={
                "dataset": facts.dataset,
                "seconds": round(monotonic_s() - started_s, 1),
                "train": str(facts.train),
                "gate": str(facts.gate),
                "known_at": format_us(facts.known_at_us),
                "tables": dg.MetadataValue.json(facts.tables),
                "views": dg.MetadataValue.json(facts.views),
                "parts": table(_described(parts)),
                **figures({f"rows_{part}": rows.frame.height for part, rows in parts.items()}),
                **{name: picture(png, title=name) for name, png in training_pictures(product, parts["train"]).items()},
            }
        )

    return rows


def training_set_checks(product: Product) -> dg.AssetChecksDefinition:
    """Return the blocking checks of the newest dataset; a model is not fitted on rows that fail one."""

    @dg.multi_asset_check(
        name=f"check_training_set_{product.name}",
        specs=[
            dg.AssetCheckSpec(name, asset=training_set_key(product), blocking=True, description=description)
            for name, description in CHECKS.items()
        ],
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> Iterator[dg.AssetCheckResult]:
        from assets.training_checks import check_training_rows

        rows = read_dataset(product, lake.open(), newest_dataset(product, context.instance))
        for finding in check_training_rows(product, rows):
            yield dg.AssetCheckResult(
                asset_key=training_set_key(product),
                check_name=finding.name,
                passed=finding.passed,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"found": finding.found, "cases": table(finding.cases)},
            )

    return check


def dataset_facts(product: Product, lake: Lake, config: PeriodConfig) -> DatasetFacts:
    """Return what a dataset of this period is made from, with every table at its version of now.

    Raises:
        ContractViolation: the lake has no mature week to judge on.
    """
    names = ["events", *(f"features.{view}" for view in product.feature_views)]
    versions = {name: lake.version(name) for name in names}
    known_at_us = _instant(config.known_at, "known_at") or known_until(lake, versions["events"])
    gate_until_us = _instant(config.gate_until, "gate_until") or _newest_mature_week(product, known_at_us)
    train_until_us = _instant(config.train_until, "train_until") or gate_until_us - _GATE_WEEKS * 7 * DAY_US
    return DatasetFacts(
        train_from_us=_instant(config.train_from, "train_from") or _first_event(lake, versions["events"]),
        train_until_us=train_until_us,
        gate_until_us=gate_until_us,
        known_at_us=known_at_us,
        tables=versions,
        views=product.view_digests,
        reference_version=product.domain.load_reference().version,
    )


def build_parts(product: Product, lake: Lake, facts: DatasetFacts) -> dict[Part, TrainingSet]:
    """Return the three parts of a dataset; about 40 us a row."""
    whole = Window(from_us=facts.train_from_us, until_us=facts.gate_until_us)
    events = events_around(lake, product, whole, version=facts.tables["events"])
    values_at = changelog_values(lake, product.feature_views.values(), whole, versions=facts.tables)
    reference = product.domain.load_reference()

    def part(window: Window, views_shift_us: int) -> TrainingSet:
        return training_set(
            product,
            events=events,
            reference=reference,
            values_at=values_at,
            window=window,
            known_at_us=facts.known_at_us,
            views_shift_us=views_shift_us,
        )

    # The gate's rows first: when their labels are not mature, the run ends here and not after the long part.
    gate = part(facts.gate, 0)
    return {"train": part(facts.train, 0), "gate": gate, "yesterday": part(facts.gate, DAY_US)}


def save(product: Product, lake: Lake, rows: pl.DataFrame, *, dataset: str) -> None:
    """Make a dataset's rows in the lake exactly these."""
    lake.create(training_table(product))
    lake.overwrite_partition(training_table(product).name, rows, f"dataset = '{dataset}'")


def read_dataset(product: Product, lake: Lake, dataset: str) -> pl.DataFrame:
    """Return all rows of a dataset."""
    return lake.read(training_table(product).name, predicate=pl.col("dataset") == dataset)


def newest_dataset(product: Product, instance: dg.DagsterInstance) -> str:
    """Return the name of the dataset materialized last.

    Raises:
        ContractViolation: none has been.
    """
    event = instance.get_latest_materialization_event(training_set_key(product))
    if event is None or event.asset_materialization is None:
        raise ContractViolation(f"training set of {product.name}: not materialized yet; do that first")
    return str(event.asset_materialization.metadata["dataset"].value)


def _described(parts: Mapping[Part, TrainingSet]) -> list[dict[str, str | int | float | None]]:
    return [
        {
            "part": part,
            "window": str(rows.window),
            "rows": rows.frame.height,
            "label_share": rows.frame["label"].mean(),  # type: ignore[dict-item]  # a float: the column is Boolean
            "without_label": ", ".join(f"{outcome} {count:,}" for outcome, count in rows.excluded.items()),
        }
        for part, rows in parts.items()
    ]


def _newest_mature_week(product: Product, known_at_us: int) -> int:
    # Outcomes of a week are due within a day of its end.
    mature_us = known_at_us - product.gate.maturity_us - DAY_US
    weeks = weekly_windows(product.drift.zone, from_us=mature_us - 15 * DAY_US, until_us=mature_us)
    return weeks[-1].until_us


def _first_event(lake: Lake, version: int) -> int:
    first = lake.scan("events", version=version).select(pl.col("time").min().dt.timestamp("us")).collect().item()
    return int(first)


def _instant(text: str | None, field: str) -> int | None:
    return None if text is None else parse(text, field=field)
