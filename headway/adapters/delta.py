"""The lake: Delta tables in one folder, written so that a crash or a repeat leaves no second copy of a row.

Every table is created from its declaration (`headway.lake.LakeTable`); a frame that does not fit is refused by name of
table and column, never cast or widened in silence.

What bites: delta-rs refuses *concurrent* commits of the same app_id, but accepts a repeat after the first has landed. So
`append_once` reads the table's newest version of an app_id first. A writer that has lost its partition to another and
does not know it yet may hold a batch that begins before the other's end: `append_each_once` takes the version a batch
was cut ``after``, and writes nothing when the table says another. Both together make exactly one copy (SEMANTICS S14).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from headway.clock import format_us, from_us
from headway.contracts import Domain
from headway.errors import ContractViolation, Overtaken, PermanentFailure
from headway.lake import INSTANT, TRANSPORT, LakeTable, events_table

_DELTA_TYPES: Mapping[pl.DataType, str] = {
    pl.String(): "string",
    pl.Int64(): "long",
    pl.Int32(): "integer",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    pl.Binary(): "binary",
    pl.Date(): "date",
    INSTANT: "timestamp",
}
_POLARS_TYPES = {name: dtype for dtype, name in _DELTA_TYPES.items()}
# Delta's own least retention: readers and writers that began before a compaction need what they found.
_LEAST_KEPT = timedelta(days=7)
_NAME = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")


class Lake:
    """All tables under one folder. Holds no state: each call opens the table anew (5-25 ms)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, table: str) -> Path:
        """Return the table's folder: ``features.origin_delay.v1`` is ``features/origin_delay.v1``."""
        if not _NAME.match(table):
            raise ContractViolation(f"lake table {table!r}: wanted a name like events or features.origin_delay.v1")
        return self.root.joinpath(*table.split(".", 1))

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        return DeltaTable.is_deltatable(str(self.path(table)))

    def create(self, table: LakeTable) -> None:
        """Create the table, or do nothing when it is there as declared.

        A table that lacks only columns which may be null is given them: its rows read null there, its older versions
        stay as they were. Nothing else about a table is ever changed.

        Raises:
            ContractViolation: it is there with other columns or partitions, or a type is not for the lake.
            TransientFailure: another process changes the table right now; repeat.
        """
        unfit = {name: dtype for name, dtype in table.columns.items() if dtype not in _DELTA_TYPES}
        if unfit:
            raise ContractViolation(f"lake table {table.name}: got {unfit}, wanted one of {list(_DELTA_TYPES)}")
        fields = [
            Field(name, PrimitiveType(_DELTA_TYPES[dtype]), nullable=name not in table.required)
            for name, dtype in table.columns.items()
        ]
        path = self.path(table.name)
        path.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(path, Schema(fields), mode="ignore", partition_by=list(table.partition_by))
        opened = self._open(table.name)
        there = _columns(opened)
        added = [field for field in fields if field.name not in there]
        if added and all(field.nullable for field in added) and there.items() <= dict(table.columns).items():
            with explained(table.name):
                opened.alter.add_columns(added)
        found = (_columns(opened), tuple(opened.metadata().partition_columns))
        if found != (dict(table.columns), table.partition_by):
            raise ContractViolation(
                f"lake table {table.name}: has columns and partitions {found}, wanted "
                f"{(dict(table.columns), table.partition_by)}; give the new layout a new table or move {path} away"
            )

    def append(self, table: str, frame: pl.DataFrame) -> None:
        """Add the rows. A repeat adds them again: for streams use ``append_once``.

        Raises:
            ContractViolation: table missing, or frame and table differ; names table, column, got, wanted.
            Overtaken: another writer came first; repeat.
        """
        self._append(self._open(table), table, frame, ())

    def append_once(self, table: str, frame: pl.DataFrame, *, app_id: str, version: int) -> bool:
        """Add the rows unless ``version`` or a later one of ``app_id`` is in the table; return whether they were added.

        ``app_id`` is a topic-partition such as ``events.enriched-3``, with one writer at a time; ``version`` is the
        last offset in the frame, so it grows from call to call.

        Raises:
            ContractViolation, TransientFailure: see ``append``; after TransientFailure the same call may be repeated.
        """
        return bool(self.append_each_once(table, {app_id: (version, frame)}))

    def append_each_once(
        self,
        table: str,
        batches: Mapping[str, tuple[int, pl.DataFrame]],
        *,
        after: Mapping[str, int | None] | None = None,
    ) -> frozenset[str]:
        """Add the rows of several app_ids in one commit (about 20 ms each); return the app_ids whose rows were added.

        ``batches`` maps app_id to (version, frame) as for ``append_once``. Those already in the table are left out.
        ``after`` maps app_id to what ``committed`` said when its batch was cut.

        Raises:
            Overtaken: for one of them ``committed`` says something else by now, so another writer has the
                partition: nothing is written. Read again what is still yours.
        """
        opened = self._open(table)
        for app_id, wanted in (after or {}).items():
            newest = _newest(opened, app_id)
            if newest != (-1 if wanted is None else wanted):
                raise Overtaken(
                    f"lake table {table}: {app_id} is at version {newest}, wanted {wanted}: another writer has come "
                    "between; read again what is still yours"
                )
        new = {a: batch for a, batch in sorted(batches.items()) if _newest(opened, a) < batch[0]}
        if new:
            rows = pl.concat([_fitted(table, opened, frame) for _, frame in new.values()])
            self._append(opened, table, rows, [Transaction(app_id, version) for app_id, (version, _) in new.items()])
        return frozenset(new)

    def committed(self, table: str, app_id: str) -> int | None:
        """Return the newest version of an app_id in the table: the offset up to which its rows are there."""
        newest = _newest(self._open(table), app_id)
        return None if newest < 0 else newest

    def overwrite_partition(
        self, table: str, frame: pl.DataFrame, predicate: str, *, version: int | None = None
    ) -> None:
        """Replace the rows for which the SQL ``predicate`` holds by the frame, in one commit; a repeat changes nothing.

        ``version`` is that of the table when the frame was made: whoever changed those rows since then is not
        overwritten.

        Raises:
            PermanentFailure: a row of the frame does not satisfy the predicate, so a repeat would add it twice.
            TransientFailure: another writer has changed rows of the predicate since the version; read again.
            ContractViolation: see ``append``.
        """
        opened = self._open(table, version)
        with explained(table):
            write_deltalake(opened, _fitted(table, opened, frame), mode="overwrite", predicate=predicate)

    def delete(self, table: str, predicate: str) -> int:
        """Remove the rows for which the SQL ``predicate`` holds, in one commit; return how many.

        Older versions still hold them, until ``forget`` deletes their files.

        Raises:
            ContractViolation: there is no such table.
            TransientFailure: another writer came first; repeat.
        """
        opened = self._open(table)
        with explained(table):
            return int(opened.delete(predicate)["num_deleted_rows"] or 0)

    def bulk_load(self, domain: Domain, frame: pl.DataFrame, *, start_us: int, end_us: int) -> int:
        """Load history: make the bulk rows of ``events`` in [start, end) exactly the frame's; return how many.

        Idempotent: bulk rows (``topic`` is null) of the interval are replaced, streamed rows are never touched, and
        an event that has been streamed already is left out of the bulk.

        Raises:
            ContractViolation: a row lies outside the interval or carries transport columns.
        """
        table = events_table(domain)
        inside = pl.col("time").is_between(pl.lit(from_us(start_us)), pl.lit(from_us(end_us)), closed="left")
        streamed = pl.any_horizontal(pl.col(*TRANSPORT).is_not_null())
        wrong = frame.filter(~inside | streamed)
        if wrong.height:
            raise ContractViolation(
                f"lake table events: {wrong.height} rows of the bulk lie outside [{format_us(start_us)}, "
                f"{format_us(end_us)}) or have transport columns, first {wrong['id'][0]!r}; load them as what they are"
            )
        self.create(table)
        known = self.read(
            "events",
            columns=["source", "id"],
            predicate=_months(start_us, end_us) & inside & pl.col("topic").is_not_null(),
        )
        rows = frame.join(known, on=["source", "id"], how="anti", maintain_order="left")
        self.overwrite_partition(
            "events",
            rows,
            f"month >= '{_month(start_us)}' AND month <= '{_month(end_us)}' AND topic IS NULL "
            f"AND time >= '{format_us(start_us)}' AND time < '{format_us(end_us)}'",
        )
        return rows.height

    def scan(self, table: str, *, version: int | None = None) -> pl.LazyFrame:
        """Return the table as a lazy frame, at a version or as it is now; rows in no particular order.

        Raises:
            ContractViolation: there is no such table or version.
        """
        newest = self.version(table)
        if version is not None and not 0 <= version <= newest:
            raise ContractViolation(f"lake table {table}: got version {version}, wanted 0 to {newest}")
        return pl.scan_delta(str(self.path(table)), version=newest if version is None else version)

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        predicate: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Return the rows for which ``predicate`` holds; rows in no particular order.

        Raises:
            ContractViolation: there is no such table, version or column.
        """
        rows = self.scan(table, version=version)
        if columns is not None:
            found = rows.collect_schema().names()
            missing = [name for name in columns if name not in found]
            if missing:
                raise ContractViolation(f"lake table {table}: no column {missing} (found: {found})")
        if predicate is not None:
            rows = rows.filter(predicate)
        return (rows if columns is None else rows.select(columns)).collect()

    def file_paths(self, table: str) -> list[Path]:
        """Return the files that the table's newest version names, in name order, whether or not they are there."""
        return sorted(map(Path, self._open(table).file_uris()))

    def read_what_is_left(self, table: str, *, columns: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
        """Return the columns of every file that is there, and the names of files that should be and are not.

        For the ledger, which has to say what a lost file held; everybody else wants ``read``, which fails on one.
        Partition columns are not in the files. A table that has not been created has no rows.
        """
        if not self.exists(table):
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null())), []
        files = self.file_paths(table)
        present = [file for file in files if file.is_file()]
        lost = [str(file.relative_to(self.path(table))) for file in files if not file.is_file()]
        if not present:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null())), lost
        return pl.scan_parquet(present, hive_partitioning=False).select(columns).collect(), lost

    def version(self, table: str) -> int:
        """Return the table's newest version; a training run pins it."""
        return self._open(table).version()

    def tables(self) -> list[str]:
        """Return the names of the tables there are, in name order."""
        logs = (*self.root.glob("*/_delta_log"), *self.root.glob("*/*/_delta_log"))
        return sorted(".".join(log.parent.relative_to(self.root).parts) for log in logs)

    def files(self, table: str) -> int:
        """Return how many files hold the table's rows as it is now."""
        return len(self._open(table).file_uris())

    def compact(self, table: str) -> int:
        """Merge small files; return how many went. Rows and older versions stay readable; writers may go on."""
        with explained(table):
            return int(self._open(table).optimize.compact()["numFilesRemoved"])

    def forget(self, table: str, *, keep: timedelta) -> int:
        """Delete files that only versions older than ``keep`` use, and log entries of over 30 days; return how many files.

        A version older than that cannot be read any more: a training that pins one cannot be repeated. Less than a
        week is refused, as a slow reader or writer may still be at work on what it found.
        """
        if keep < _LEAST_KEPT:
            raise ContractViolation(f"lake table {table}: got {keep} to keep, wanted at least {_LEAST_KEPT}")
        opened = self._open(table)
        with explained(table):
            gone = opened.vacuum(retention_hours=int(keep / timedelta(hours=1)), dry_run=False)
            opened.create_checkpoint()
            opened.cleanup_metadata()
        return len(gone)

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        if not self.exists(table):
            raise ContractViolation(f"lake table {table}: not there; create it from its declaration first")
        return DeltaTable(self.path(table), version=version)

    def _append(self, opened: DeltaTable, table: str, frame: pl.DataFrame, marks: Sequence[Transaction]) -> None:
        rows = _fitted(table, opened, frame)
        with explained(table):
            write_deltalake(
                opened, rows, mode="append", commit_properties=CommitProperties(app_transactions=list(marks))
            )


def _newest(opened: DeltaTable, app_id: str) -> int:
    newest = opened.transaction_version(app_id)
    return -1 if newest is None else newest


def _columns(opened: DeltaTable) -> dict[str, pl.DataType]:
    return {field.name: _POLARS_TYPES[str(getattr(field.type, "type", field.type))] for field in opened.schema().fields}


def _fitted(table: str, opened: DeltaTable, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame's columns in the table's order; an all-null column without a type takes the table's."""
    check_fits(table, opened, frame.schema)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in _columns(opened).items())


def check_fits(table: str, opened: DeltaTable, found: Mapping[str, pl.DataType]) -> None:
    """Refuse columns that are not the table's, by name or by type; an all-null column may be without a type."""
    wanted = _columns(opened)
    missing, unknown = [c for c in wanted if c not in found], [c for c in found if c not in wanted]
    if missing or unknown:
        raise ContractViolation(
            f"lake table {table}: the frame lacks {missing} and has unknown {unknown} (wanted: {list(wanted)})"
        )
    for name, dtype in wanted.items():
        if found[name] not in (dtype, pl.Null()):
            raise ContractViolation(f"lake table {table}: column {name!r} got {found[name]}, wanted {dtype}")


@contextmanager
def explained(table: str) -> Iterator[None]:
    """Say what Delta refuses in this package's errors; another writer that came first is `Overtaken`."""
    try:
        yield
    except CommitFailedError as error:
        raise Overtaken(f"lake table {table}: another writer came first ({error}); repeat") from error
    except DeltaError as error:
        reason = str(error).split("   0: ", maxsplit=1)[0].strip()  # what follows is a native stack
        raise PermanentFailure(f"lake table {table}: refused: {reason}") from error


def _month(instant_us: int) -> str:
    return from_us(instant_us).strftime("%Y-%m")


def _months(start_us: int, end_us: int) -> pl.Expr:
    return pl.col("month").is_between(pl.lit(_month(start_us)), pl.lit(_month(end_us)))
