"""What keeps a lake's files few: small ones merged, unreachable ones deleted, table by table; rows stay as they are.

What bites: a training that pins a version older than ``keep`` cannot be repeated afterwards.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway.adapters.delta import Lake

# Training pins versions; Delta itself keeps a table's log for as long.
KEEP_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """The files of one table, and what was done to them; nothing, when it was only looked at."""

    table: str
    version: int
    files: int
    files_before: int
    merged: int = 0
    deleted: int = 0


def look_at(lake: "Lake", table: str) -> TableFiles:
    """Return how many files a table has."""
    files = lake.files(table)
    return TableFiles(table=table, version=lake.version(table), files=files, files_before=files)


def keep_few(lake: "Lake", table: str, *, keep: timedelta) -> TableFiles:
    """Merge a table's small files, delete those out of reach, and return what was done. May be repeated.

    Raises:
        TransientFailure: another writer changed the very files that were being merged; repeat.
        ContractViolation: ``keep`` is less than a reader may need.
    """
    before = lake.files(table)
    merged = lake.compact(table)
    deleted = lake.forget(table, keep=keep)
    return TableFiles(
        table=table,
        version=lake.version(table),
        files=lake.files(table),
        files_before=before,
        merged=merged,
        deleted=deleted,
    )
