"""SQL over the lake, in process: DuckDB reads the files that a table's newest version names, and nothing else.

What bites, and why not otherwise: a glob over a table's folder reads deleted and rewritten rows again (ADR 0004), and
DuckDB's own Delta extension is a binary fetched when it is first used, from a host nobody pinned. So the list of files
comes from the table's log through `headway.adapters.delta`, extensions are never fetched, and instants are UTC whatever
the machine's zone.
"""

import re
from collections.abc import Sequence

import duckdb
import polars as pl

from headway.adapters.delta import Lake
from headway.errors import InputRejected

# An INTERVAL has no length (how long is a month?), a BLOB no text.
_UNSAYABLE = ("INTERVAL", "BLOB", "BIT")
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


def query(lake: Lake, sql: str, *, tables: Sequence[str] | None = None) -> pl.DataFrame:
    """Return what one SQL statement selects; tables are named as in the lake, ``curated.flights``.

    A name with a second dot is quoted behind the first: ``features."origin_delay.v1"``.

    Args:
        lake: whose tables.
        sql: the statement.
        tables: those it may name; None = all that occur in it.

    Raises:
        InputRejected: DuckDB does not take the statement, or a column of the answer has no plain value; says where and why.
        ContractViolation: one of ``tables`` is not there.
    """
    found = [table for table in lake.tables() if _occurs(table, sql)] if tables is None else tables
    with duckdb.connect(config=_CONFIG) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in found:
            _declare(connection, lake, table)
        try:
            answered = connection.sql(sql)
            # None is what a statement without rows gives: SET, CREATE.
            return pl.DataFrame() if answered is None else _plain(answered)
        except duckdb.Error as error:
            there = ", ".join(lake.tables())
            raise InputRejected(f"SQL: {str(error).strip()}\ntables: {there}") from error


def _plain(answered: "duckdb.DuckDBPyRelation") -> pl.DataFrame:
    types = {name: str(dtype) for name, dtype in zip(answered.columns, answered.types, strict=True)}
    if odd := {name: dtype for name, dtype in types.items() if any(word in dtype for word in _UNSAYABLE)}:
        raise InputRejected(
            f"SQL: got columns {odd}, wanted texts, numbers, days and instants; of two instants select "
            "date_diff('minute', earlier, later), of bytes hex(...)"
        )
    rows = answered.pl()
    # A sum of integers is HUGEINT to DuckDB and a decimal to Arrow; where it fits, it is an integer again.
    wide = rows.select(pl.col(pl.Decimal(38, 0)).cast(pl.Int64, strict=False))
    return rows.with_columns(column for column in wide if column.null_count() == rows[column.name].null_count())


def _declare(connection: "duckdb.DuckDBPyConnection", lake: Lake, table: str) -> None:
    schema, name = _place(table)
    empty = lake.scan(table).limit(0).collect()
    files = [str(file) for file in lake.file_paths(table)]
    columns = f"{table} columns"
    connection.register(columns, empty.to_arrow())
    # The empty half gives columns, types and order: those of the table's log, also where an older file lacks one. Names
    # and paths are the lake's own.
    rows = f'SELECT * FROM "{columns}"'  # noqa: S608
    if files:
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        rows += (
            f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], hive_partitioning = true, "  # noqa: S608
            "hive_types_autocast = false, union_by_name = true)"
        )
    if schema:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    place = f'"{schema}"."{name}"' if schema else f'"{name}"'
    # No others: a folder above the lake that is called x=y would be a column of every table.
    named = ", ".join(f'"{name}"' for name in empty.columns)
    connection.execute(f"CREATE VIEW {place} AS SELECT {named} FROM ({rows})")  # noqa: S608


def _occurs(table: str, sql: str) -> bool:
    """Whether the last part of a table's name stands in the statement as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(_place(table)[1])}(?!\w)", sql) is not None


def _place(table: str) -> tuple[str, str]:
    schema, _, name = table.partition(".")
    return (schema, name) if name else ("", table)
