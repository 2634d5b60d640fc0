"""What a benchmark hands back: its comparisons, with where, when and from which commit they were taken."""

from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.machine import facts
from headway.clock import SystemClock
from headway.commands import Outcome
from headway.commit import code_commit


class Judged(Protocol):
    """A comparison with peers or with a limit."""

    @property
    def met(self) -> bool:
        """Whether every target is reached."""

    def facts(self) -> dict[str, Any]:  # Any: plain values
        """Give it as plain values."""

    def lines(self) -> list[str]:
        """Give it as lines for people."""


def outcome(name: str, comparisons: Sequence[Judged]) -> Outcome:
    """Give the command's outcome; the first comparison is the one in front, and all have to hold."""
    met = all(comparison.met for comparison in comparisons)
    first, *more = (comparison.facts() for comparison in comparisons)
    found: dict[str, Any] = {"benchmark": name, **first, "met": met, "also": more, "run": run_facts()}
    return Outcome(holds=met, facts=found, lines=[line for each in comparisons for line in each.lines()])


def run_facts() -> dict[str, Any]:  # Any: plain values
    """Say when, from which commit and on what a run was taken."""
    at = SystemClock().now().isoformat(timespec="seconds")
    return {"at": at, "commit": code_commit() or "unknown", **facts()}
