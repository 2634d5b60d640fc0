"""The rest of a domain's warehouse: dimensions with their time, static views fed from them, reports by SQL."""

import dagster as dg
import polars as pl

from assets.curated import curated_assets
from assets.declared import Materialized
from assets.domain import Definition
from assets.intervals import parse
from assets.names import curated_key, dimension_key, features_key, producers_key, report_key
from assets.pictures import report_picture
from assets.resources import LakeResource
from assets.shown import columns_of, lineage, owners, picture, schema_of, table
from headway.adapters.delta import Lake
from headway.clock import SystemClock, monotonic_s, to_us
from headway.contracts import Domain
from headway.dimensions import feed_static, load_dimension
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.static import StaticView
from headway.validity import overlaps
from headway.warehouse import Dimension, Report

VALIDITY, COMPLETE = "validity", "complete"
_SHOWN = 30


class LoadConfig(dg.Config):
    """From when on a load holds, an RFC 3339 instant; null = now. Loads go forward."""

    at: str | None = None


def warehouse_assets(domain: Domain, *, partitions: dg.DailyPartitionsDefinition | None = None) -> list[Definition]:
    """Return the assets and checks of everything a domain declares of its warehouse."""
    return [
        *curated_assets(domain, partitions=partitions),
        *(_dimension_asset(domain, dimension) for dimension in domain.dimensions),
        *(_static_asset(domain, view) for view in domain.statics),
        *(_report_asset(domain, report) for report in domain.reports),
        *(_validity(dimension) for dimension in domain.dimensions),
        *(_complete(report) for report in domain.reports),
    ]


def make_report(lake: Lake, report: Report) -> pl.DataFrame:
    """Make a report's table what its SQL selects now, and return it; equal rows are not written again.

    Raises:
        ContractViolation: a table it reads is not there, or its SQL selects other columns than declared.
        TransientFailure: another run wrote it meanwhile; repeat.
    """
    from headway.adapters.delta_exact import replace_all
    from headway.adapters.duckdb import query

    lake.create(report.table)
    version = lake.version(report.table.name)
    found = query(lake, report.sql, tables=report.reads)
    wanted = dict(report.table.columns)
    if {*found.columns} != wanted.keys() or any(dtype != wanted[name] for name, dtype in found.schema.items()):
        raise ContractViolation(f"report {report.name}, sql: selects {dict(found.schema)}, wanted {wanted}")
    rows = found.select(list(wanted)).sort(report.keys)
    replace_all(lake, report.table, rows, order=report.keys, version=version)
    return rows


def _dimension_asset(domain: Domain, dimension: Dimension) -> dg.AssetsDefinition:
    @dg.asset(
        key=dimension_key(dimension),
        deps=[producers_key(domain)],
        description=(
            f"{dimension.description} One row per ({', '.join(dimension.keys)}) and stretch of time in which nothing of "
            "it changed: it holds for valid_from <= T < valid_to, null = still."
        ),
        group_name=f"{domain.name}_warehouse",
        owners=owners(dimension.owner),
        kinds={"deltalake", "polars"},
        metadata=columns_of(dimension.table, dimension.columns),
    )
    def load(config: LoadConfig, lake: LakeResource) -> Materialized:
        opened = lake.open()
        at_us = to_us(SystemClock().now()) if config.at is None else parse(config.at, field="at")
        loaded = load_dimension(opened, dimension, at_us=at_us)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": loaded.rows,
                "entities": loaded.entities,
                "changed": loaded.changed,
                "table_version": opened.version(dimension.table.name),
                "dagster/uri": str(opened.path(dimension.table.name)),
            }
        )

    return load


def _static_asset(domain: Domain, view: StaticView) -> dg.AssetsDefinition:
    declared, dimension = changelog_table(view), domain.dimension(view.dimension)

    @dg.asset(
        key=features_key(view),
        deps=[dimension_key(dimension)],
        description=(
            f"{view.description} One row per ({', '.join(view.keys)}) and instant its values change, from dimension "
            f"{view.dimension}. `headway features refresh` takes it to the online store."
        ),
        group_name=f"{domain.name}_warehouse",
        owners=owners(view.owner),
        kinds={"deltalake", "feast"},
        metadata={**schema_of(declared), "view_digest": view.digest},
    )
    def feed(lake: LakeResource) -> Materialized:
        opened = lake.open()
        added = feed_static(opened, view, dimension)
        return dg.MaterializeResult(
            metadata={
                "added": added,
                "digest": view.digest,
                "table_version": opened.version(declared.name),
                "dagster/uri": str(opened.path(declared.name)),
            }
        )

    return feed


def _report_asset(domain: Domain, report: Report) -> dg.AssetsDefinition:
    places = _places(domain)

    @dg.asset(
        key=report_key(report),
        deps=[places[name] for name in report.reads],
        description=f"{report.description} One row per {', '.join(report.keys)}; SQL over {', '.join(report.reads)}.",
        group_name=f"{domain.name}_warehouse",
        owners=owners(report.owner),
        kinds={"deltalake", "duckdb"},
        metadata={**columns_of(report.table, report.columns), "sql": dg.MetadataValue.md(f"```sql{report.sql}```")},
    )
    def figures(lake: LakeResource) -> Materialized:
        started_s = monotonic_s()
        opened = lake.open()
        rows = make_report(opened, report)
        drawn = {} if rows.is_empty() else {report.name: picture(report_picture(report, rows), title=report.name)}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                report.counts: int(rows[report.counts].sum()),
                "seconds": round(monotonic_s() - started_s, 3),
                "table_version": opened.version(report.table.name),
                "dagster/uri": str(opened.path(report.table.name)),
                "newest": table(rows.to_dicts()),
                **lineage(report.columns, lambda source: _resolved(places, source)),
                **drawn,
            }
        )

    return figures


def _validity(dimension: Dimension) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dimension_key(dimension),
        name=VALIDITY,
        blocking=True,
        description="Of one entity no two stretches of time overlap, none is empty, and no two that meet are equal.",
    )
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        wrong = overlaps(dimension, lake.open().read(dimension.table.name))
        return dg.AssetCheckResult(
            passed=wrong.is_empty(),
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"wrong": wrong.height, "first": table(wrong.head(_SHOWN).to_dicts())},
        )

    return check


def _complete(report: Report) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=report_key(report),
        name=COMPLETE,
        description=f"The sum of `{report.counts}` is the number of rows of {report.reads[0]} as it is now.",
    )
    def check(lake: LakeResource) -> dg.AssetCheckResult:
        opened = lake.open()
        counted = int(opened.read(report.table.name, columns=[report.counts])[report.counts].sum())
        there = int(opened.scan(report.reads[0]).select(pl.len()).collect().item())
        return dg.AssetCheckResult(
            passed=counted == there,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{counted:,} counted, {there:,} rows",
            metadata={"counted": counted, "rows": there},
        )

    return check


def _places(domain: Domain) -> dict[str, dg.AssetKey]:
    """Return the assets of a domain's tables, by the name a statement gives them."""
    curated = {declared.table.name: curated_key(declared) for declared in domain.curated}
    return curated | {dimension.table.name: dimension_key(dimension) for dimension in domain.dimensions}


def _resolved(places: dict[str, dg.AssetKey], source: str) -> tuple[dg.AssetKey, str]:
    name, _, column = source.rpartition(".")
    return places[name], column
