"""A domain's curated tables: one row per thing, by day (UTC), and what became of every event on the way.

A run reads a month at a time, makes its days and writes those that changed: a repeat over the same events commits nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from assets.declared import Materialized, without_beta_warning
from assets.domain import Definition
from assets.intervals import IntervalConfig, days, interval
from assets.lake_reads import events_by_day, events_of_days, known_until
from assets.names import CURATED_QUALITY, LAKE_EVENTS, curated_key
from assets.pictures import quality_picture
from assets.resources import LakeResource
from assets.shown import columns_of, figures, lineage, owners, picture, schema_of, table
from headway.adapters.delta import Lake
from headway.clock import DAY_US, from_us, monotonic_s
from headway.contracts import Domain
from headway.curation import Reconciled, curate, days_of, reconcile
from headway.drift import Window
from headway.warehouse import DAY, EVENTS, FATES, QUALITY, CuratedTable

RECONCILED, UNIQUE = "reconciled", "one_row_each"
# As many days at once: a year in one run needs no more memory than a month.
_DAYS_AT_ONCE = 31
_SHOWN = 30


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a run made: rows by day, what became of the events, and the days whose rows are other than before."""

    rows: dict[str, int]
    quality: pl.DataFrame
    changed: tuple[str, ...]
    events_version: int


def curated_assets(domain: Domain, *, partitions: dg.DailyPartitionsDefinition | None = None) -> list[Definition]:
    """Return the assets and checks of a domain's curated tables, and of the table that counts their events."""
    by_day = partitions or days()
    assets = [_curated_asset(domain, declared, by_day) for declared in domain.curated]
    checks = [check for declared in domain.curated for check in (_reconciled(declared), _one_row_each(declared))]
    return [*assets, *_quality_spec(domain), *checks]


def make_days(lake: Lake, declared: CuratedTable, window: Window) -> Made:
    """Make the curated rows of whole days exactly those the lake's events imply.

    Raises:
        TransientFailure: another run has changed one of the days meanwhile; repeat.
        ContractViolation: there are no events, or the table's ``build`` breaks its promise.
    """
    from headway.adapters.delta_exact import replace_days

    for each in (declared.table, QUALITY):
        lake.create(each)
    # In this order: rows of older events never replace rows of newer ones, whoever runs beside.
    before, counted = lake.version(declared.table.name), lake.version(QUALITY.name)
    events_version = lake.version("events")
    rows: dict[str, int] = {}
    quality, changed = [], []
    for start_us in range(window.from_us, window.until_us, _DAYS_AT_ONCE * DAY_US):
        part = Window(from_us=start_us, until_us=min(start_us + _DAYS_AT_ONCE * DAY_US, window.until_us))
        wanted = days_of(part)
        made = curate(declared, events_of_days(lake, declared, part, version=events_version))
        changed += replace_days(lake, declared.table, made.rows, order=declared.keys, days=wanted, version=before)
        replace_days(lake, QUALITY, made.quality, order=["type"], days=wanted, version=counted, dataset=declared.name)
        rows |= dict.fromkeys(wanted, 0) | dict(made.rows.group_by(DAY).len().iter_rows())
        quality.append(made.quality)
    return Made(rows=rows, quality=pl.concat(quality), changed=tuple(changed), events_version=events_version)


def reconciled(lake: Lake, declared: CuratedTable, *, made: Sequence[str], events_version: int) -> Reconciled:
    """Compare a curated table with all events; ``made`` are the days of a run that read that version of them."""
    quality = lake.read(QUALITY.name, predicate=pl.col("dataset") == declared.name)
    stand_for = lake.scan(declared.table.name).group_by(DAY).agg(pl.col(EVENTS).sum()).collect()
    newest = lake.version("events")
    in_lake = events_by_day(lake, declared, version=newest)
    same = events_version == newest
    read = (in_lake if same else events_by_day(lake, declared, version=events_version)).filter(pl.col(DAY).is_in(made))
    return reconcile(in_lake, quality, stand_for, read=read)


def days_to_make(lake: Lake, domain: Domain) -> list[str]:
    """Return the days whose events are all due and that were not made from all the lake holds of them.

    A day that is no partition is none of them: one event of a wrong year must not keep the others from being made.

    Cost: a scan of two columns of all events per curated table.
    """
    version = lake.version("events")
    newest, wanted = from_us(known_until(lake, version)), set[str]()
    for declared in domain.curated:
        if lake.exists(declared.table.name) and lake.exists(QUALITY.name):
            behind = reconciled(lake, declared, made=(), events_version=version).behind
        else:
            behind = tuple(events_by_day(lake, declared, version=version)[DAY])
        over = newest - declared.after - timedelta(days=1)
        wanted |= {day for day in behind if day <= f"{over:%Y-%m-%d}"}
    return sorted(wanted.intersection(days().get_partition_keys()))


def _curated_asset(domain: Domain, declared: CuratedTable, by_day: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    def curated(context: dg.AssetExecutionContext, lake: LakeResource) -> Materialized:
        started_s = monotonic_s()
        window = interval(context, IntervalConfig())
        opened = lake.open()
        made = make_days(opened, declared, window)
        for key in context.partition_keys:
            context.add_asset_metadata({"dagster/partition_row_count": made.rows[key]}, partition_key=key)
        # Dagster keeps what is returned once per day; what is large, it keeps once per run.
        context.add_asset_metadata(_shown_once(declared, made), partition_key=context.partition_keys[-1])
        return dg.MaterializeResult(
            metadata={
                "rows_of_run": sum(made.rows.values()),
                **figures(made.quality.select(EVENTS, *FATES).sum().to_dicts()[0]),
                "days_changed": len(made.changed),
                "seconds": round(monotonic_s() - started_s, 3),
                "days": f"{days_of(window)[0]} to {days_of(window)[-1]}",
                "events_version": made.events_version,
                "table_version": opened.version(declared.table.name),
                "dagster/uri": str(opened.path(declared.table.name)),
            }
        )

    with without_beta_warning():
        return dg.asset(
            key=curated_key(declared),
            # A day's things happen in days around it, so in months around its own.
            deps=[dg.AssetDep(LAKE_EVENTS, partition_mapping=dg.AllPartitionMapping())],
            partitions_def=by_day,
            backfill_policy=dg.BackfillPolicy.single_run(),
            description=(
                f"{declared.description} One row per {declared.thing}; days (UTC) of `{declared.day_of}`. Each event "
                "counts once; a repeat over the same events writes nothing."
            ),
            group_name=_group(domain),
            owners=owners(declared.owner),
            kinds={"deltalake", "polars"},
            metadata=columns_of(declared.table, declared.columns),
        )(curated)


def _shown_once(declared: CuratedTable, made: Made) -> dict[str, Any]:  # Any: metadata of all kinds
    told: dict[str, Any] = dict(lineage(declared.columns, lambda source: (LAKE_EVENTS, source)))
    if not made.quality.is_empty():
        by_type = made.quality.group_by("type").agg(pl.col(EVENTS, *FATES).sum()).sort("type")
        title = "events by day"
        told |= {"by type": table(by_type.to_dicts()), title: picture(quality_picture(made.quality), title=title)}
    return told


def _quality_spec(domain: Domain) -> list[dg.AssetSpec]:
    """Return the table that every curated asset writes beside its own, shown as what exists outside of them."""
    if not domain.curated:
        return []
    return [
        dg.AssetSpec(
            CURATED_QUALITY,
            deps=[curated_key(declared) for declared in domain.curated],
            description=(
                "One row per curated table, day and event type: how many events, and how many of them came on time, "
                "late, too late for features (S6) or twice (S12). Written with the day it counts."
            ),
            group_name=_group(domain),
            owners=owners(domain.curated[0].owner),
            kinds={"deltalake"},
            metadata=schema_of(QUALITY),
        )
    ]


def _reconciled(declared: CuratedTable) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=curated_key(declared),
        name=RECONCILED,
        blocking=True,
        description=(
            "Per day: events in the lake, as the newest run saw them, = on time + late + too late + duplicates, and rows "
            "stand for all but the duplicates. Events too far from their day for any run to read are a warning."
        ),
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        event = context.instance.get_latest_materialization_event(curated_key(declared))
        if event is None or event.asset_materialization is None:
            return dg.AssetCheckResult(passed=False, description="no day has been made yet")
        run = {name: shown.value for name, shown in event.asset_materialization.metadata.items()}
        found = reconciled(
            lake.open(), declared, made=_listed(run["days"]), events_version=int(str(run["events_version"]))
        )
        return dg.AssetCheckResult(
            passed=found.wrong.is_empty() and not found.strays,
            # A producer's odd event must not keep everybody from their reports; a day that does not add up must.
            severity=dg.AssetCheckSeverity.WARN if found.wrong.is_empty() else dg.AssetCheckSeverity.ERROR,
            description=(
                f"{found.wrong.height} of {found.days} days do not add up; {found.strays} events too far from their day; "
                f"{len(found.behind)} days to be made (again)"
            ),
            metadata={
                **found.totals,
                "strays": found.strays,
                "days": found.days,
                "wrong": table(found.wrong.head(_SHOWN).to_dicts()),
                "to_be_made": list(found.behind[:_SHOWN]),
            },
        )

    return check


def _one_row_each(declared: CuratedTable) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=curated_key(declared),
        name=UNIQUE,
        description=f"One row per {declared.thing} in the whole table, by {', '.join(declared.keys)}.",
    )
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        keys = list(declared.keys)
        days_told = (pl.col(DAY).min().alias("first_day"), pl.col(DAY).max().alias("last_day"))
        counts = lake.open().scan(declared.table.name).group_by(keys).agg(pl.len().alias("rows"), *days_told)
        repeated = counts.filter(pl.col("rows") > 1).sort(keys).collect()
        return dg.AssetCheckResult(
            passed=repeated.is_empty(),
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"repeated": repeated.height, "first": table(repeated.head(_SHOWN).to_dicts())},
        )

    return check


def _listed(stretch: object) -> list[str]:
    first, _, last = str(stretch).partition(" to ")
    return [day.isoformat() for day in pl.date_range(date.fromisoformat(first), date.fromisoformat(last), eager=True)]


def _group(domain: Domain) -> str:
    return f"{domain.name}_warehouse"
