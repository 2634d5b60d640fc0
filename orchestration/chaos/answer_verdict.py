"""Whether every prediction that was answered is the one computed apart from the service, and what was not answered. Pure.

What bites: an answer that says it is degraded must be the one of declared defaults (S10), and one that does not say so
must have every value of the store; whether it may be degraded at all is for the times of the faults to say.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headway.openloop import Answered

_NAMED = 20

# Gives the probability of a question, by its place in the schedule, with or without features.
Expected = Callable[[int, bool], float]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of the monotonic clock."""

    from_s: float
    until_s: float

    def holds(self, instant_s: float) -> bool:
        """Whether an instant is in it."""
        return self.from_s <= instant_s <= self.until_s


@dataclass(frozen=True, kw_only=True)
class AnswerVerdict:
    """What was found: counts, what is wrong by kind, and when the requests were due that nobody answered well."""

    counts: Mapping[str, int]
    violations: Mapping[str, Sequence[str]]
    failed_s: Sequence[float]

    @property
    def failed(self) -> int:
        """How many requests were not answered with 200."""
        return len(self.failed_s)

    @property
    def success(self) -> float:
        """The share of requests that were answered with 200."""
        return 1 - self.failed / self.counts["requests"]

    def outage_s(self, window: Window) -> float:
        """How long after a window's begin the last request was due that failed in it; 0 when none did."""
        return max((due_s - window.from_s for due_s in self.failed_s if window.holds(due_s)), default=0.0)


def judge_answers(answers: Iterable[Answered], *, expected: Expected, away: Sequence[Window]) -> AnswerVerdict:
    """Compare what clients were told with what is right.

    Args:
        answers: of one load, in any order.
        expected: computed apart from the service.
        away: when the feature store was away, and answers may be degraded.
    """
    counts: Counter[str] = Counter()
    failed_s: list[float] = []
    found: dict[str, list[str]] = {"wrong answer": [], "degraded for no reason": [], "not answered": []}
    for each in sorted(answers, key=lambda answered: answered.place):
        counts["requests"] += 1
        if each.status != 200:
            counts[f"failed: {each.lost or each.status}"] += 1
            failed_s.append(each.due_s)
            found["not answered"].append(f"request {each.place}: {each.lost or each.status}")
            continue
        told = json.loads(each.body)
        degraded = bool(told["features"]["degraded"])
        counts["degraded" if degraded else "full"] += 1
        wanted = expected(each.place, degraded)
        if told["probability"] != wanted:
            found["wrong answer"].append(f"request {each.place}: got {told['probability']!r}, wanted {wanted!r}")
        if degraded and not any(window.holds(each.due_s) for window in away):
            found["degraded for no reason"].append(f"request {each.place}")
    violations = {name: lines[:_NAMED] for name, lines in found.items() if lines}
    return AnswerVerdict(counts=dict(sorted(counts.items())), violations=violations, failed_s=failed_s)
