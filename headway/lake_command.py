"""``headway lake``: the tables of the lake and their files, and what keeps both few."""

from argparse import ArgumentParser, Namespace
from datetime import timedelta

from headway.commands import Outcome, Run, Say

# Training pins versions; Delta itself keeps a table's log for as long.
KEEP_DAYS = 30


def lake_command(parser: ArgumentParser) -> Run:
    """Show the lake's tables, or merge their small files and delete those that no version in reach uses."""
    parser.add_argument("action", choices=["status", "compact"])
    parser.add_argument("--table", help="default: every table")
    parser.add_argument(
        "--keep-days", type=int, default=KEEP_DAYS, help="compact: versions that stay readable (default: %(default)s)"
    )

    def run(arguments: Namespace, say: Say) -> Outcome:
        from pathlib import Path

        from headway.adapters.delta import Lake
        from headway.settings import Settings

        lake = Lake(Path(Settings().lake))
        tables = [arguments.table] if arguments.table else lake.tables()
        facts = []
        for table in tables:
            before = lake.files(table)
            merged = deleted = 0
            if arguments.action == "compact":
                say(f"{table}: {before} files")
                merged = lake.compact(table)
                deleted = lake.forget(table, keep=timedelta(days=arguments.keep_days))
            facts.append(
                {
                    "table": table,
                    "version": lake.version(table),
                    "files": lake.files(table),
                    "files_before": before,
                    "merged": merged,
                    "deleted": deleted,
                }
            )
        lines = [f"{'table':<32} {'version':>8} {'files':>7} {'merged':>7} {'deleted':>8}"]
        lines += [
            f"{each['table']:<32} {each['version']:>8} {each['files']:>7} {each['merged']:>7} {each['deleted']:>8}"
            for each in facts
        ]
        return Outcome(holds=True, facts={"tables": facts}, lines=lines)

    return run
