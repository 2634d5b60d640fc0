"""Figures that are held to a limit instead of a peer: how long something takes, time after time.

In the shape of `benchmarks.frame.Comparison`, so that one table shows both: the ratio is the limit by the figure, and 1
is the target. What bites: a limit in seconds is of a machine, so these do not travel at all.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headway.clock import monotonic_s
from headway.commands import Say

LIMIT = "limit"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What some work took, in seconds, against its limit; ``stages`` are parts of it by name, of each time."""

    title: str
    limit_s: float
    took_s: Sequence[float]
    stages: Sequence[dict[str, float]] = ()

    @property
    def met(self) -> bool:
        """Whether the median is within the limit."""
        return statistics.median(self.took_s) <= self.limit_s

    @property
    def _span(self) -> tuple[float, float]:
        return min(self.took_s), max(self.took_s)

    def facts(self) -> dict[str, Any]:
        """Give it as plain values."""
        # The clock may say that nothing took no time at all.
        median, least, most = (max(each, 1e-9) for each in (statistics.median(self.took_s), *self._span))
        ratio = round(self.limit_s / median, 3)
        spread = [round(self.limit_s / most, 3), round(self.limit_s / least, 3)]
        ours = {"name": "headway", "median": round(median, 3), "spread": [round(least, 3), round(most, 3)]}
        names = sorted({name for each in self.stages for name in each})
        known = {name: [each[name] for each in self.stages if name in each] for name in names}
        judged = {"peer": LIMIT, "ratio": ratio, "spread": spread, "target": 1.0, "goal": None, "met": self.met}
        return {
            "title": self.title,
            "unit": "s",
            "ours": {**ours, "n": len(self.took_s), **{n: round(statistics.median(v), 3) for n, v in known.items()}},
            "peers": [{"name": LIMIT, "median": self.limit_s}],
            **judged,
            "n": len(self.took_s),
            "ratios": [judged],
        }

    def lines(self) -> list[str]:
        """Give it as lines for people."""
        ours = self.facts()["ours"]
        low, high = ours["spread"]
        verdict = "met" if self.met else "NOT met"
        first = f"{self.title}: {ours['median']:.2f} s [{low:.2f} to {high:.2f}], n={ours['n']} (at most {self.limit_s} s): {verdict}"
        stages = {k: v for k, v in ours.items() if k not in ("name", "median", "spread", "n")}
        return [first, *(["  " + ", ".join(f"{k} {v:.2f} s" for k, v in stages.items())] if stages else [])]


def timed(title: str, work: Callable[[], object], *, limit_s: float, times: int, say: Say) -> Timing:
    """Do the work so many times after once for warming up, and say what each took."""
    work()
    took_s = []
    for _ in range(times):
        began_s = monotonic_s()
        work()
        took_s.append(monotonic_s() - began_s)
        say(f"{title}: {took_s[-1]:.2f} s")
    return Timing(title=title, limit_s=limit_s, took_s=took_s)
