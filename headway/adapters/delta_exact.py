"""Writing a table so that the same rows are the same bytes, and rows that are there already are not written at all.

One file per day, rows in a declared order, delta-rs' own writer settings: a day's file has the same bytes whichever run
made it, alone or with a year of others. A repeat over unchanged events makes no new version, so readers, caches and
downstream runs see that nothing happened. ``content_digest`` says what a table holds, byte for byte, in one line.

What bites: bytes are those of one release of delta-rs and its Parquet writer; an upgrade may write the same rows otherwise.
"""

import hashlib
from collections.abc import Sequence

import polars as pl

from headway.adapters.delta import Lake
from headway.lake import LakeTable
from headway.warehouse import DAY


def replace_days(
    lake: Lake,
    table: LakeTable,
    rows: pl.DataFrame,
    *,
    order: Sequence[str],
    days: Sequence[str],
    version: int,
    dataset: str | None = None,
) -> list[str]:
    """Make the rows of these days exactly the given ones, in one commit; return the days that changed.

    Args:
        lake: where the table is.
        table: partitioned by ``day``, and by ``dataset`` when one is named.
        rows: what the days hold, each sorted by ``order``.
        order: columns that name a row within its day.
        days: all days the rows may be of, successive; one without rows is emptied.
        version: of the table before the rows' source was read.
        dataset: only its rows are looked at and replaced.

    Raises:
        TransientFailure: another writer has changed one of the days since the version; read and make them again.
    """
    mine = pl.col(DAY).is_in(days) if dataset is None else pl.col(DAY).is_in(days) & (pl.col("dataset") == dataset)
    known = lake.read(table.name, version=version, predicate=mine).sort(order).partition_by(DAY, as_dict=True)
    wanted = rows.partition_by(DAY, as_dict=True)
    empty = rows.clear()
    changed = [day for day in days if not wanted.get((day,), empty).equals(known.get((day,), empty))]
    if changed:
        # Not IN: Delta gives up on lists of more than 20, and takes a commit to any other day for one to these.
        ranges = " OR ".join(f"{DAY} BETWEEN '{first}' AND '{last}'" for first, last in _runs(days, changed))
        where = f"({ranges})" + ("" if dataset is None else f" AND dataset = '{dataset}'")
        lake.overwrite_partition(table.name, _of(rows, changed), where, version=version)
    return changed


def replace_all(lake: Lake, table: LakeTable, rows: pl.DataFrame, *, order: Sequence[str], version: int) -> bool:
    """Make the table exactly these rows, sorted by ``order``, in one file; return whether that changed anything.

    Raises:
        TransientFailure: another writer has changed the table since the version; read and make the rows again.
    """
    if lake.read(table.name, version=version).sort(order).equals(rows):
        return False
    lake.overwrite_partition(table.name, rows.rechunk(), "true", version=version)
    return True


def content_digest(lake: Lake, table: str) -> str:
    """Return the first 16 hex of SHA-256 over what a table's live files hold: partition and bytes of each, in order.

    The names of files are no part of it: delta-rs draws them at random.
    """
    folder = lake.path(table)
    files = [(str(file.parent.relative_to(folder)), file.read_bytes()) for file in lake.file_paths(table)]
    whole = hashlib.sha256()
    for partition, content in sorted(files):
        whole.update(f"{partition}:{len(content)}:".encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()[:16]


def _runs(days: Sequence[str], changed: Sequence[str]) -> list[tuple[str, str]]:
    """Return first and last of each stretch of ``days``, which are successive, that changed."""
    runs: list[tuple[str, str]] = []
    for before, day in zip(("", *days), days, strict=False):
        if day in changed:
            runs = [*runs[:-1], (runs[-1][0], day)] if runs and runs[-1][1] == before else [*runs, (day, day)]
    return runs


def _of(rows: pl.DataFrame, days: Sequence[str]) -> pl.DataFrame:
    # One chunk: how rows were put together in memory must not show in the pages of the file.
    return rows.filter(pl.col(DAY).is_in(list(days))).rechunk()
