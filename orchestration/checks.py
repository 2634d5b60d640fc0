"""The ledger as an asset check: what only a reader of the stream can settle, shown on the lake's events (S13)."""

from itertools import islice

import dagster as dg

from assets.resources import LakeResource, LogResource
from headway.ledger import Ledger

_SHOWN = 20


def read_ledger_check(lake: LakeResource, log: LogResource) -> dg.AssetCheckResult:
    """Settle the account of the whole log and say whether it balances, naming what does not."""
    from streaming.accounts import read_ledger

    reader = log.reader()
    try:
        ledger = read_ledger(reader, lake.open())
    finally:
        reader.close()
    return dg.AssetCheckResult(passed=ledger.balanced, severity=dg.AssetCheckSeverity.ERROR, metadata=_told(ledger))


def _told(ledger: Ledger) -> dict[str, int | list[str]]:
    counts: dict[str, int | list[str]] = {
        name: getattr(ledger, name) for name in ("raw", "enriched", "letters", "duplicates", "in_flight", "lake")
    }
    for name in ("lost", "twice", "invented", "not_in_lake", "surplus_in_lake"):
        counts[name] = [str(case) for case in islice(getattr(ledger, name), _SHOWN)]
    return counts
