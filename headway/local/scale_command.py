"""``headway scale``: how many instances of a stream job run, set by a person or left to the scaler."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headway.commands import Outcome, Run, Say

if TYPE_CHECKING:
    from headway.adapters.scaling_table import Recorded
    from headway.settings import Settings

_AUTO = "auto"


def scale_command(parser: ArgumentParser) -> Run:
    """Show the instances of each job, hold a job at a number of them, or let the scaler decide again."""
    parser.add_argument("job", nargs="?", help="the job, as `headway status` names it; default: show all")
    parser.add_argument("instances", nargs="?", type=_count, help="hold it at so many; `auto` lets the scaler decide")
    parser.add_argument("--history", action="store_true", help="show the scaler's decisions, oldest first")
    parser.add_argument("--all", action="store_true", help="with --history: also the decisions that changed nothing")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="with --history: so many (default: 20)")
    parser.add_argument("--within", type=float, default=90.0, metavar="SECONDS", help="how long to wait (default: 90)")

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.local import lifecycle
        from headway.settings import Settings

        settings = Settings()
        if arguments.history:
            return _history(settings, arguments)
        if arguments.instances is not None:
            number = None if arguments.instances == _AUTO else int(arguments.instances)
            lifecycle.scale(settings, arguments.job, number, held=number is not None, within_s=arguments.within)
        counts = lifecycle.instances(settings, arguments.job)
        holds = all(each["ready"] == each["instances"] for each in counts.values())
        return Outcome(holds=holds, facts={"instances": counts}, lines=_lines(counts))

    return run


def _history(settings: "Settings", arguments: Namespace) -> Outcome:
    from headway.adapters.scaling_table import ScalingTable, scaling_file

    table = ScalingTable(scaling_file(settings.state))
    rows = table.read(job=arguments.job, last=arguments.last, changes=not arguments.all)
    return Outcome(
        holds=True,
        facts={"decisions": [asdict(row) for row in rows]},
        lines=[_told(row) for row in rows] or ["no decision has changed a number yet; --all shows the others"],
    )


def _told(row: "Recorded") -> str:
    from headway.clock import format_us

    instances = str(row.after) if row.before == row.after else f"{row.before} -> {row.after}"
    again = f" ({row.times} times, until {format_us(row.until_us)[11:19]})" if row.times > 1 else ""
    return f"{format_us(row.at_us)[:19]}Z  {row.job:<20} {instances:<6}  {row.reason}{again}"


def _count(text: str) -> str:
    if text != _AUTO and not text.isdecimal():
        raise ArgumentTypeError(f"got {text!r}, wanted a number or {_AUTO}")
    return text


def _lines(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    head = f"{'job':<20} {'wanted':>6} {'ready':>6} {'most':>6}  decided by"
    return [
        head,
        *(
            f"{job:<20} {each['instances']:>6} {each['ready']:>6} {each['most']:>6}  "
            f"{'you, held' if each['held'] else 'the scaler'}"
            for job, each in counts.items()
        ),
    ]
