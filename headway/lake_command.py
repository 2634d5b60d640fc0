"""``headway lake``: the tables of the lake and their files, and what keeps both few."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import timedelta

from headway.commands import Outcome, Run, Say
from headway.lake_upkeep import KEEP_DAYS, keep_few, look_at


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
