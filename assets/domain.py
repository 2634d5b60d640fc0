"""A domain's assets: the stream it comes through, its events in the lake, and the changelog of every view.

History is loaded in bulk by month; the stream's loader writes to the same tables. Neither touches the other's rows, and
a repeat changes nothing.
"""

from collections.abc import Callable

import dagster as dg
import polars as pl

from assets.declared import Materialized, without_beta_warning
from assets.intervals import IntervalConfig, interval, months, parse
from assets.names import LAKE_EVENTS, features_key, producers_key, topic_key
from assets.resources import LakeResource, LogResource, settings
from assets.shown import owners, schema_of
from assets.topics import stream_assets
from headway.adapters.delta import Lake
from headway.clock import monotonic_s
from headway.contracts import Domain, Transform
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView
from headway.lake import events_table
from headway.topics import EVENTS_ENRICHED, features_topic

IDENTITY, LEDGER = "one_row_per_event", "ledger"
Definition = dg.AssetsDefinition | dg.AssetSpec | dg.AssetChecksDefinition


class HistoryConfig(IntervalConfig):
    """What to load: the months of the run, cut to [start, end), as it was or with a change planted.

    Attributes:
        planted_from: instant from which the domain's labelled demonstration change is in the events; null = none.
    """

    planted_from: str | None = None


def domain_assets(domain: Domain, *, partitions: dg.MonthlyPartitionsDefinition | None = None) -> list[Definition]:
    """Return the assets of a domain, by month of event time."""
    by_month = partitions or months()
    views = [_features_asset(domain, view, by_month) for view in domain.views]
    return [*stream_assets(domain), _events_asset(domain, by_month), *views, _identity_check(domain)]


def _events_asset(domain: Domain, by_month: dg.MonthlyPartitionsDefinition) -> dg.AssetsDefinition:
    table = events_table(domain)

    def events(context: dg.AssetExecutionContext, config: HistoryConfig, lake: LakeResource) -> Materialized:
        window = interval(context, config)
        started_s = monotonic_s()
        rows = _load_history(domain, lake.open(), window, planted=_planted(domain, config.planted_from))
        _show_months(context, lake.open(), table.name)
        return _result(table.name, lake.open(), window, rows=rows, seconds=monotonic_s() - started_s)

    with without_beta_warning():
        return dg.asset(
            key=LAKE_EVENTS,
            deps=[topic_key(EVENTS_ENRICHED), producers_key(domain)],
            partitions_def=by_month,
            backfill_policy=dg.BackfillPolicy.single_run(),
            description="One row per event, enriched; months of event time (UTC). Bulk rows have no transport columns.",
            group_name=domain.name,
            owners=owners(domain.contracts[0].owner),
            kinds={"deltalake", "polars"},
            metadata=schema_of(table),
        )(events)


def _features_asset(domain: Domain, view: FeatureView, by_month: dg.MonthlyPartitionsDefinition) -> dg.AssetsDefinition:
    table = changelog_table(view)

    def features(context: dg.AssetExecutionContext, config: IntervalConfig, lake: LakeResource) -> Materialized:
        window = interval(context, config)
        started_s = monotonic_s()
        rows = _backfill(lake.open(), view, window)
        seconds = monotonic_s() - started_s
        _show_months(context, lake.open(), table.name)
        return _result(table.name, lake.open(), window, rows=rows, seconds=seconds, digest=view.digest)

    with without_beta_warning():
        return dg.asset(
            key=features_key(view),
            deps=[LAKE_EVENTS, topic_key(features_topic(view.qualified))],
            partitions_def=by_month,
            backfill_policy=dg.BackfillPolicy.single_run(),
            description=(
                f"{view.description} One row per ({', '.join(view.keys)}) and instant its values change, "
                f"from {view.source}; trailing windows, steps of {view.hop}."
            ),
            group_name=domain.name,
            owners=owners(view.owner),
            kinds={"deltalake", "feast"},
            metadata={**schema_of(table), "view_digest": view.digest},
        )(features)


def ledger_check(read: Callable[[LakeResource, LogResource], dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
    """Return the check that every accepted event is accounted for; ``read`` settles it and says so."""

    @dg.asset_check(
        asset=LAKE_EVENTS,
        name=LEDGER,
        description="raw = enriched + letters + duplicates, and enriched = lake = search, by the set of records (S13).",
    )
    def ledger(lake: LakeResource, log: LogResource) -> dg.AssetCheckResult:
        return read(lake, log)

    return ledger


def _identity_check(domain: Domain) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=LAKE_EVENTS, name=IDENTITY, description="(source, id) is an event's identity (S12).")
    def identity(lake: LakeResource) -> dg.AssetCheckResult:
        rows = lake.open().scan("events").select("source", "id")
        repeated = rows.group_by("source", "id").len().filter(pl.col("len") > 1).sort("id").collect()
        return dg.AssetCheckResult(
            passed=repeated.is_empty(),
            metadata={"repeated": repeated.height, "first": repeated["id"].head(5).to_list(), "domain": domain.name},
        )

    return identity


def _load_history(domain: Domain, lake: Lake, window: Window, *, planted: Transform | None) -> int:
    if domain.load_history is None:
        raise ContractViolation(f"domain {domain.name}: has no history to load; set load_history in its domain.py")
    frame = domain.load_history().events_between(window.from_us, window.until_us, transform=planted)
    return lake.bulk_load(domain, frame, start_us=window.from_us, end_us=window.until_us)


def _planted(domain: Domain, planted_from: str | None) -> Transform | None:
    if planted_from is None:
        return None
    if domain.planted_change is None:
        raise ContractViolation(f"domain {domain.name}: declares no change to plant; leave planted_from null")
    return domain.planted_change(parse(planted_from, field="planted_from"))


def _backfill(lake: Lake, view: FeatureView, window: Window) -> int:
    from headway.backfill_engine import backfill_engine

    known = settings()
    with backfill_engine(known.backfill_engine, known) as backfill:
        return sum(done.rows for done in backfill([view], window, lake=lake, mode="as_served"))


def _show_months(context: dg.AssetExecutionContext, lake: Lake, table: str) -> None:
    """Tell each month how many rows it has now; what `_result` says is about the whole run."""
    counts = dict(lake.scan(table).group_by("month").len().collect().iter_rows())
    for key in context.partition_keys:
        context.add_asset_metadata({"dagster/partition_row_count": counts.get(key[:7], 0)}, partition_key=key)


def _result(
    table: str, lake: Lake, window: Window, *, rows: int, seconds: float, digest: str | None = None
) -> Materialized:
    shown: dict[str, int | float | str] = {
        "rows_of_run": rows,
        "seconds": round(seconds, 3),
        "interval": str(window),
        "table_version": lake.version(table),
        "dagster/uri": str(lake.path(table)),
    }
    if digest is not None:
        shown["digest"] = digest
    return dg.MaterializeResult(metadata=shown)
