"""``headway lake``: the tables of the lake and their files, what keeps both few, and what is in them, by SQL."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from headway.commands import Outcome, Run, Say
from headway.errors import InputRejected
from headway.lake_upkeep import KEEP_DAYS, keep_few, look_at

if TYPE_CHECKING:
    from headway.adapters.delta import Lake

_ROWS_SHOWN = 100


def lake_command(parser: ArgumentParser) -> Run:
    """Show the lake's tables, ask them by SQL, or merge their small files and delete those that no version in reach uses."""
    parser.add_argument("action", choices=["status", "compact", "query"])
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", help="query: one statement (DuckDB) over tables as `status` names them"
    )
    parser.add_argument("--table", help="default: every table")
    parser.add_argument(
        "--keep-days", type=int, default=KEEP_DAYS, help="compact: versions that stay readable (default: %(default)s)"
    )

    def run(arguments: Namespace, say: Say) -> Outcome:
        from pathlib import Path

        from headway.adapters.delta import Lake
        from headway.settings import Settings

        lake = Lake(Path(Settings().lake))
        if arguments.action == "query":
            return _answered(lake, arguments.sql)
        found = []
        for table in [arguments.table] if arguments.table else lake.tables():
            if arguments.action == "compact":
                say(f"{table}: {lake.files(table)} files")
                found.append(keep_few(lake, table, keep=timedelta(days=arguments.keep_days)))
            else:
                found.append(look_at(lake, table))
        lines = [f"{'table':<32} {'version':>8} {'files':>7} {'merged':>7} {'deleted':>8}"]
        lines += [
            f"{each.table:<32} {each.version:>8} {each.files:>7} {each.merged:>7} {each.deleted:>8}" for each in found
        ]
        return Outcome(holds=True, facts={"tables": [asdict(each) for each in found]}, lines=lines)

    return run


def _answered(lake: "Lake", sql: str | None) -> Outcome:
    import json

    import polars as pl

    from headway.adapters.duckdb import query

    if sql is None:
        raise InputRejected('lake query, SQL: got none, wanted a statement, e.g. "SELECT count(*) FROM events"')
    rows = query(lake, sql)
    wide = pl.Config(
        tbl_rows=_ROWS_SHOWN, tbl_cols=-1, tbl_width_chars=1000, fmt_str_lengths=80, tbl_hide_dataframe_shape=True
    )
    with wide, pl.Config(tbl_hide_column_data_types=True, tbl_formatting="ASCII_MARKDOWN"):
        shown = str(rows.head(_ROWS_SHOWN)).splitlines()
    more = [f"... {rows.height - _ROWS_SHOWN:,} more rows"] if rows.height > _ROWS_SHOWN else []
    return Outcome(
        holds=True, facts={"rows": json.loads(rows.write_json())}, lines=[*shown, *more, f"{rows.height:,} rows"]
    )
