"""The ledger as an asset check: what only a reader of the stream can settle, shown on the lake's events (S13)."""

import dagster as dg
import polars as pl

from assets.resources import LakeResource, LogResource, settings
from headway.ledger import DIFFERENCES, JUDGED_HOURS, Ledger

_SHOWN = 50
_HOURS_SHOWN = 48
Told = dict[str, dg.TableMetadataValue | int | str | list[str]]


def read_ledger_check(lake: LakeResource, log: LogResource) -> dg.AssetCheckResult:
    """Settle the account of the log's newest hours and say whether it balances, naming what does not."""
    from streaming.accounts import open_stores, read_ledger

    root = lake.root or settings().lake
    with open_stores(bootstrap=log.address, lake=root, search_url=settings().search_url) as stores:
        ledger = read_ledger(stores, hours=JUDGED_HOURS)
    return dg.AssetCheckResult(
        passed=ledger.balanced, severity=dg.AssetCheckSeverity.ERROR, metadata=told_of_ledger(ledger)
    )


def told_of_ledger(ledger: Ledger) -> Told:
    """Return totals, a table by hour, and a table that names the records that are not as they should be."""
    unread = [] if ledger.searched else ["search"]
    hours = ledger.hours.group_by("hour").sum().drop("partition", *unread).sort("hour").tail(_HOURS_SHOWN)
    told: Told = {
        name: getattr(ledger, name) for name in ("raw", "enriched", "letters", "duplicates", "in_flight", "lake")
    }
    told["search"] = "no search node answers, so the documents were not compared" if unread else ledger.search or 0
    told["by_hour"] = _table(hours.with_columns(pl.col("hour").dt.to_string("%Y-%m-%d %H:00")))
    told |= {what: n for what in DIFFERENCES if (n := ledger.count(what))}
    if ledger.differences.height:
        told["named"] = _table(ledger.differences.head(_SHOWN).drop("hour"))
    if ledger.lost_files:
        told["lost_files"] = list(ledger.lost_files)
    return told


def _table(rows: pl.DataFrame) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows.to_dicts()])
