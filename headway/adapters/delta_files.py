"""Rows as files: put into a table in one commit without being read again, or listed for a reader that knows no Delta.

A file of a table that is partitioned by month is Parquet with all columns but the month. Delta's own writer takes longer
over a changelog than computing it does: it holds every row against the predicate, splits every batch by month, and
encodes again what a worker has encoded. Here files are moved to where they belong and their names are committed.

What bites: appends never refuse one another, so of two writers that find nothing to replace both would get in. Each
therefore says for every month that it is the one, and of two at once Delta refuses the second.
"""

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction, RemoveAction

from headway.adapters.delta import Lake, check_fits, explained
from headway.clock import from_us
from headway.errors import ContractViolation, Overtaken
from headway.lake import INSTANT

# Of Delta's protocol: what leaves the files readable by themselves.
_PLAIN_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
# Uncommitted files of long runs, and how long a run may take before they count as left behind.
_STAGING = ".staging"
_STAGED_S = 24 * 60 * 60.0


@contextmanager
def staging(lake: Lake) -> Iterator[Path]:
    """Give a folder beside the tables for what is not committed yet; it goes with the block.

    What a killed process left is removed by the next one, a day later.
    """
    folder = lake.root / _STAGING
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        with suppress(FileNotFoundError):  # another's, which has just gone with its block
            if time.time() - left.stat().st_mtime > _STAGED_S:
                shutil.rmtree(left, ignore_errors=True)
    mine = Path(tempfile.mkdtemp(dir=folder))
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def write_file(rows: pl.DataFrame, file: Path, *, required: Sequence[str], unique: Sequence[str] = ()) -> None:
    """Write a file for `replace_rows`, rows without their month; it is whole when it is there.

    A dictionary for texts, differences for whole numbers, no bounds but of what is never null: half the time of Polars' own
    writer, and smaller. A column without any value is left out, as Delta reads null where a file lacks one. Texts that are
    ``unique`` get no dictionary, which would be made and given up, and no bounds.
    """
    empty = [name for name in rows.columns if name not in required and rows[name].null_count() == rows.height]
    kept = rows.drop(empty)
    whole = [name for name, dtype in kept.schema.items() if dtype.is_integer() or dtype == INSTANT]
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    pq.write_table(
        kept.to_arrow(),
        unfinished,
        compression="snappy",
        use_dictionary=[name for name, dtype in kept.schema.items() if dtype == pl.String and name not in unique],
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
        write_statistics=[name for name in kept.columns if name in required and name not in unique],
        store_schema=False,
    )
    unfinished.replace(file)


def replace_rows(
    lake: Lake, table: str, files: Iterable[tuple[str, Path]], *, going: pl.Expr, months: Sequence[str]
) -> int:
    """Put files in the place of the rows of some months for which ``going`` holds, in one commit; return their rows.

    A repeat changes nothing. Rows that stay where others go are written to a file of their own.

    Args:
        lake: where the table is.
        table: its name; it is partitioned by month.
        files: month and file, in ``staging``, from where it is moved. A row in it that is not ``going`` would be there
            twice after a repeat.
        going: which rows go, over columns that every file has.
        months: all in which there may be such rows, in order.

    Raises:
        ContractViolation: a file does not fit the table, or the table's files alone do not say what it holds.
        Overtaken: another has replaced, compacted or removed such rows meanwhile. Nothing has changed; repeat.
    """
    opened, folder = _opened(lake, table), lake.path(table)
    touched = _touched(opened, folder, going, (months[0], months[-1]))
    placed: list[tuple[AddAction, int]] = []
    try:
        for month, file in files:
            placed.append(_placed(opened, table, folder, month, file))
        rows = sum(count for _, count in placed)
        for month, file, stay in touched:
            if stay:
                rest = file.with_name(f"rest-{file.name}")
                pl.scan_parquet(file, hive_partitioning=False).filter(~_certain(going)).sink_parquet(rest)
                placed.append(_placed(opened, table, folder, month, rest))
        actions: list[AddAction | RemoveAction] = [added for added, _ in placed]
        actions += (_removed(folder, *each) for each in touched)
        if actions:
            _commit(opened, table, actions, months)
    except (ContractViolation, Overtaken):
        named = {file.name for file in lake.file_paths(table)}
        for added, _ in placed:
            file = folder / added.path
            if file.name not in named:
                file.unlink(missing_ok=True)
        raise
    return rows


def plain_files(lake: Lake, table: str, *, months: tuple[str, str]) -> list[Path]:
    """Return the newest version's files of some months, for a reader that knows Parquet and not Delta.

    Raises:
        ContractViolation: the files alone do not say what the table holds: rows are deleted by vectors, or columns
            have other names in the files.
    """
    return [file for _, file in _files(_opened(lake, table), lake.path(table), months)]


def _opened(lake: Lake, table: str) -> DeltaTable:
    if not lake.exists(table):
        raise ContractViolation(f"lake table {table}: not there; create it from its declaration first")
    opened = DeltaTable(lake.path(table))
    features = set(opened.protocol().reader_features or ())
    if opened.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        features.add("columnMapping")
    if unreadable := sorted(features - _PLAIN_FEATURES):
        raise ContractViolation(
            f"lake table {table}: uses {', '.join(unreadable)}, wanted files that can be read as they are. "
            "Have the table rewritten without"
        )
    return opened


def _files(opened: DeltaTable, folder: Path, months: tuple[str, str]) -> list[tuple[str, Path]]:
    actions = pl.DataFrame(opened.get_add_actions(flatten=True))
    if actions.is_empty():
        return []
    month = pl.col("partition.month")
    named = actions.filter(month.is_between(pl.lit(months[0]), pl.lit(months[1]))).sort("path").select(month, "path")
    return [(month, folder / path) for month, path in named.iter_rows()]


def _touched(opened: DeltaTable, folder: Path, going: pl.Expr, months: tuple[str, str]) -> list[tuple[str, Path, int]]:
    """Return month, file and number of rows that stay, of the files that hold rows that go."""
    files = _files(opened, folder, months)
    goes = _certain(going).sum().alias("go")
    counted = pl.collect_all(
        [pl.scan_parquet(file, hive_partitioning=False).select(goes, pl.len().alias("rows")) for _, file in files]
    )
    pairs = zip(files, (each.row(0) for each in counted), strict=True)
    return [(month, file, rows - go) for (month, file), (go, rows) in pairs if go]


def _certain(going: pl.Expr) -> pl.Expr:
    """Return it without nulls: a row of which nobody knows stays."""
    return going.fill_null(value=False)


def _placed(opened: DeltaTable, table: str, folder: Path, month: str, file: Path) -> tuple[AddAction, int]:
    """Check a file, move it to where it belongs, and return what adds it and how many rows it has."""
    schema, told, state = pl.read_parquet_schema(file), pq.read_metadata(file), file.stat()
    fields, nulls = opened.schema().fields, _nulls(told)
    check_fits(table, opened, {f.name: pl.Null() for f in fields if f.nullable} | {**schema, "month": pl.String()})
    for field in fields:
        if not field.nullable and nulls.get(field.name, 0):
            raise ContractViolation(
                f"lake table {table}: column {field.name!r} got {nulls[field.name]} nulls in {file.name}, wanted none"
            )
    instants = [name for name, dtype in schema.items() if dtype == INSTANT]
    place = folder / f"month={month}" / f"part-{uuid.uuid4()}.parquet"
    place.parent.mkdir(exist_ok=True)
    file.replace(place)
    added = AddAction(
        path=str(place.relative_to(folder)),
        size=state.st_size,
        partition_values={"month": month},
        modification_time=int(state.st_mtime * 1_000),
        data_change=True,
        stats=json.dumps({"numRecords": told.num_rows, "nullCount": nulls, **_bounds(told, instants)}),
    )
    return added, int(told.num_rows)


def _removed(folder: Path, month: str, file: Path, _stay: int) -> RemoveAction:
    now_ms = int(time.time() * 1_000)
    return RemoveAction(
        str(file.relative_to(folder)), data_change=True, deletion_timestamp=now_ms, partition_values={"month": month}
    )


def _commit(opened: DeltaTable, table: str, actions: list[AddAction | RemoveAction], months: Sequence[str]) -> None:
    marks = [Transaction(f"replaces {month}", opened.version() + 1) for month in months]
    with explained(table):
        opened.create_write_transaction(
            actions, "append", opened.schema(), ["month"], commit_properties=CommitProperties(app_transactions=marks)
        )


def _nulls(told: pq.FileMetaData) -> dict[str, int]:
    nulls: dict[str, int] = {}
    for chunk in _chunks(told):
        if chunk.statistics is not None and chunk.statistics.has_null_count:
            nulls[chunk.path_in_schema] = nulls.get(chunk.path_in_schema, 0) + chunk.statistics.null_count
    return nulls


def _bounds(told: pq.FileMetaData, instants: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the bounds of instants, in milliseconds as Delta has them, rounded outwards: narrower ones would lose rows."""
    least: dict[str, int] = {}
    greatest: dict[str, int] = {}
    for chunk in _chunks(told):
        name, known = chunk.path_in_schema, chunk.statistics
        if name in instants and known is not None and known.has_min_max:
            least[name] = min(known.min_raw, least.get(name, known.min_raw))
            greatest[name] = max(known.max_raw, greatest.get(name, known.max_raw))
    return {
        "minValues": {name: _milliseconds(us // 1_000) for name, us in least.items()},
        "maxValues": {name: _milliseconds(-(-us // 1_000)) for name, us in greatest.items()},
    }


def _milliseconds(at_ms: int) -> str:
    return from_us(at_ms * 1_000).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _chunks(told: pq.FileMetaData) -> Iterator[pq.ColumnChunkMetaData]:
    for group in range(told.num_row_groups):
        row_group = told.row_group(group)
        yield from (row_group.column(column) for column in range(row_group.num_columns))
