"""The ``headway`` command line: finds the command, runs it, prints what it found, and gives the exit code.

Exit code 0 only when what the command checks holds, 1 when it does not or fails, 2 for a misunderstood call, 130 after
Ctrl-C. argparse, as importing cyclopts alone takes 0.18 s of the 0.3 s that ``--help`` may take, argparse 0.02 s.
"""

import difflib
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from headway.commands import Command, Outcome
from headway.errors import HeadwayError

_INTERRUPTED = 130
_MISUNDERSTOOD = 2
_STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class Entry:
    """A command by name; ``target`` is ``module:function`` and is imported only when the command is called."""

    name: str
    target: str
    summary: str

    def load(self) -> Command:
        """Import the command."""
        module, _, function = self.target.partition(":")
        command: Command = getattr(import_module(module), function)
        return command


COMMANDS = (
    Entry("up", "headway.local.commands:up_command", "start the stack on this machine and wait until it is ready"),
    Entry("down", "headway.local.commands:down_command", "stop the stack; everything is gone within 15 s"),
    Entry("status", "headway.local.commands:status_command", "show processes, ports and pages of the stack"),
    Entry("restart", "headway.local.commands:restart_command", "stop one process of the stack and start it again"),
    Entry("pause", "headway.local.commands:pause_command", "stop one process of the stack and leave it stopped"),
    Entry("resume", "headway.local.commands:resume_command", "start a paused process again"),
    Entry("scale", "headway.local.scale_command:scale_command", "show or set how many instances of a stream job run"),
    Entry("reset", "headway.local.commands:reset_command", "stop the stack and erase its state folder"),
    Entry("demo", "orchestration.demo.command:demo_command", "run the whole loop on real flights, and tell it"),
    Entry("replay", "streaming.commands:replay_command", "play history through the Collector in lock-step"),
    Entry(
        "features", "streaming.features_commands:features_command", "list, lock, bootstrap, register or forget features"
    ),
    Entry("promote", "headway.promotion:promote_command", "say which model version should be served"),
    Entry("receipt", "serving.receipt_command:receipt_command", "explain an answer, and compute its score again"),
    Entry("ledger", "streaming.audit:ledger_command", "account for every accepted event"),
    Entry("parity", "orchestration.parity_command:parity_command", "recompute what predictions were served with"),
    Entry("letters", "streaming.letters_commands:letters_command", "find, fix, replay or discard dead letters"),
    Entry("lake", "headway.lake_command:lake_command", "show the lake's tables, ask them by SQL, or merge small files"),
    Entry("bench", "headway.bench_command:bench_command", "list the benchmarks, or run one beside its peers"),
    Entry("kafka", "orchestration.kafka_command:kafka_command", "show the event log's replication, or try it"),
    Entry(
        "spark-memory",
        "headway.spark_memory_command:spark_memory_command",
        "plan a Spark executor's memory, compare it with a running one, and say what to change after a run",
    ),
    Entry(
        "chaos", "orchestration.chaos.command:chaos_command", "break the plane on purpose, and see its promises hold"
    ),
    Entry("doctor", "headway.doctor:doctor_command", "check this machine; each failing line names what mends it"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, rest = arguments[0], arguments[1:]
    entry = next((entry for entry in COMMANDS if entry.name == name), None)
    if entry is None:
        near = difflib.get_close_matches(name, [entry.name for entry in COMMANDS], n=1)
        hint = f"did you mean `headway {near[0]}`?" if near else "`headway --help` lists the commands."
        print(f"headway: there is no command {name!r}; {hint}", file=sys.stderr)
        return _MISUNDERSTOOD
    return _run(entry, rest)


def _run(entry: Entry, argv: Sequence[str]) -> int:
    parser = ArgumentParser(prog=f"headway {entry.name}", description=f"{entry.summary[0].upper()}{entry.summary[1:]}.")
    run = entry.load()(parser)
    parser.add_argument(
        "--json",
        nargs="?",
        const=_STANDARD_OUTPUT,
        metavar="FILE",
        help="give the result as JSON, in FILE or instead of the text",
    )
    arguments = parser.parse_args(argv)
    # With JSON on standard output, progress goes where it does not mix with it.
    progress = sys.stderr if arguments.json == _STANDARD_OUTPUT else sys.stdout
    try:
        outcome = run(arguments, lambda line: print(line, file=progress, flush=True))
    except HeadwayError as error:
        print(f"headway {entry.name}: {error}", file=sys.stderr)
        outcome = Outcome(holds=False, facts={"error": str(error), "kind": type(error).__name__}, lines=[])
    except KeyboardInterrupt:
        return _INTERRUPTED
    try:
        _show(outcome, to=arguments.json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough; Python must not complain when it flushes again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if outcome.holds else 1


def _show(outcome: Outcome, *, to: str | None) -> None:
    facts = json.dumps({"holds": outcome.holds, **outcome.facts}, indent=2)
    if to == _STANDARD_OUTPUT:
        print(facts)
        return
    if to is not None:
        Path(to).write_text(f"{facts}\n", encoding="utf-8")
    for line in outcome.lines:
        print(line)


def _overview() -> str:
    width = max(len(entry.name) for entry in COMMANDS)
    listed = "\n".join(f"  {entry.name:<{width}}  {entry.summary}" for entry in COMMANDS)
    return (
        "usage: headway COMMAND [ARGUMENTS]\n\n"
        f"{listed}\n\n"
        "`headway COMMAND --help` tells more. Every command has --json [FILE]; its exit code is 0 only when what it checks holds."
    )


if __name__ == "__main__":
    sys.exit(main())
