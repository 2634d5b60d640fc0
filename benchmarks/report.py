"""What a benchmark hands back: its comparisons, with where, when and from which commit they were taken."""

from collections.abc import Sequence
from typing import Any

from benchmarks.frame import Comparison
from benchmarks.machine import facts
from headway.clock import SystemClock
from headway.commands import Outcome
from headway.commit import code_commit


def outcome(name: str, comparisons: Sequence[Comparison]) -> Outcome:
    """Give the command's outcome; the first comparison is the one in front, and all have to hold."""
    met = all(comparison.met for comparison in comparisons)
    first, *more = (comparison.facts() for comparison in comparisons)
    found: dict[str, Any] = {"benchmark": name, **first, "met": met, "also": more, "run": _run()}
    return Outcome(holds=met, facts=found, lines=[line for each in comparisons for line in each.lines()])


def _run() -> dict[str, Any]:
    at = SystemClock().now().isoformat(timespec="seconds")
    return {"at": at, "commit": code_commit() or "unknown", **facts()}
