"""``headway up``, ``down``, ``status``, ``reset``, and ``restart``, ``pause``, ``resume`` of one process."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from headway.commands import Outcome, Run, Say

# What a process's line in ``headway status`` shows after its name and state: head and width by key.
_COLUMNS = {
    "pid": ("pid", 8),
    "restarts": ("restarts", 8),
    "ready_after_s": ("ready s", 8),
    "memory_mb": ("MB", 6),
    "cpu_s": ("cpu s", 7),
    "cpu_percent": ("cpu %", 6),
}
_SUMMED = frozenset({"memory_mb", "cpu_percent"})


def up_command(parser: ArgumentParser) -> Run:
    """Start the stack, in the background unless told otherwise."""
    parser.add_argument("--only", metavar="PARTS", default="", help="parts or groups, by comma, and what they need")
    parser.add_argument("--brokers", type=int, default=0, metavar="N", help="1 or 3 Kafka brokers; a new stack has 1")
    parser.add_argument("--foreground", action="store_true", help="stay here until Ctrl-C")

    def run(arguments: Namespace, say: Say) -> Outcome:
        from headway.local import lifecycle
        from headway.settings import Settings

        only = [name.strip() for name in arguments.only.split(",") if name.strip()]
        settings = Settings(brokers=arguments.brokers) if arguments.brokers else Settings()
        if arguments.foreground:
            code = lifecycle.run(settings, only=only, say=say)
            return Outcome(holds=code == 0, facts={"exit_code": code}, lines=[])
        facts = lifecycle.up(settings, only=only, say=say)
        return Outcome(holds=True, facts=facts, lines=_links(facts))

    return run


def down_command(_parser: ArgumentParser) -> Run:
    """Stop the stack."""

    def run(_arguments: Namespace, say: Say) -> Outcome:
        from headway.local import lifecycle
        from headway.settings import Settings

        facts = lifecycle.down(Settings(), say=say)
        line = f"these processes did not end: {facts['left']}" if facts["left"] else "nothing of the stack runs"
        return Outcome(holds=not facts["left"], facts=facts, lines=[line])

    return run


def status_command(parser: ArgumentParser) -> Run:
    """Show the stack; holds when it is up and all of it is ready."""
    parser.add_argument(
        "--over", type=float, metavar="SECONDS", help="watch for so long, and show the share of a core each takes"
    )

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.local import lifecycle, usage
        from headway.settings import Settings

        facts = lifecycle.status(Settings())
        if arguments.over is None:
            facts["processes"] = usage.with_usage(facts["processes"])
        else:
            facts["processes"] = usage.with_share(facts["processes"], over_s=arguments.over)
        return Outcome(holds=facts["phase"] == "ready" and _all_ready(facts), facts=facts, lines=_status_lines(facts))

    return run


def reset_command(_parser: ArgumentParser) -> Run:
    """Stop the stack and erase its state."""

    def run(_arguments: Namespace, say: Say) -> Outcome:
        from headway.local import lifecycle
        from headway.settings import Settings

        facts = lifecycle.reset(Settings(), say=say)
        return Outcome(holds=True, facts=facts, lines=[f"erased {facts['erased']}"])

    return run


def restart_command(parser: ArgumentParser) -> Run:
    """Stop one process and start it again."""
    return _direct(parser, "restart")


def pause_command(parser: ArgumentParser) -> Run:
    """Stop one process and leave it stopped."""
    return _direct(parser, "pause")


def resume_command(parser: ArgumentParser) -> Run:
    """Start a paused process."""
    return _direct(parser, "resume")


def _direct(parser: ArgumentParser, what: Literal["restart", "pause", "resume"]) -> Run:
    parser.add_argument("name", help="the process, as `headway status` names it")
    parser.add_argument("--within", type=float, default=90.0, metavar="SECONDS", help="how long to wait (default: 90)")

    def run(arguments: Namespace, _say: Say) -> Outcome:
        from headway.local import lifecycle
        from headway.settings import Settings

        lifecycle.direct(Settings(), what, arguments.name, within_s=arguments.within)
        return Outcome(holds=True, facts={"name": arguments.name, "did": what}, lines=[f"{what}: {arguments.name}"])

    return run


def _all_ready(facts: Mapping[str, Any]) -> bool:
    return all(process["state"] in ("ready", "done") for process in facts["processes"])


def _links(facts: Mapping[str, Any]) -> list[str]:
    return [f"{name:<16} {link}" for name, link in facts["links"].items()]


def _status_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"stack {facts['phase']}, state in {facts['state']}"]
    if facts["processes"]:
        lines += ["", *_process_lines(facts["processes"])]
    if facts["ports"]:
        lines += [
            "",
            *(f"{port:>6}  {name}" for name, port in sorted(facts["ports"].items(), key=lambda item: item[1])),
        ]
    return [*lines, *([""] if facts["links"] else []), *_links(facts)]


def _process_lines(processes: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = {key: column for key, column in _COLUMNS.items() if key in processes[0]}
    heads = {key: head for key, (head, _) in shown.items()}
    sums = {key: round(sum(each[key] or 0 for each in processes), 2) for key in _SUMMED & shown.keys()}
    rows = [
        {"name": "process", "state": "state", **heads},
        *processes,
        {"name": "together", "state": "", **dict.fromkeys(shown, ""), **sums},
    ]
    return [
        f"{row['name']:<16} {row['state']:<9} "
        + " ".join(f"{'-' if row[key] is None else row[key]:>{width}}" for key, (_, width) in shown.items())
        for row in rows
    ]
