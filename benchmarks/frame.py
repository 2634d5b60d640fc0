"""The frame every benchmark runs in: contestants take turns in equal windows, and what is judged is a ratio.

A B A B, five windows of ten seconds each after a warm-up; median and span. A window in which others used more than a
tenth of the machine is taken again, at most three times per contestant; what stays noisy is counted, not hidden.
Absolute figures do not travel, so nothing here compares with a figure from another run. What bites: `Contestant.measure`
must do the same work every time it is called, as the warm-up is one more call.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import with_foreign_cpu
from headway.commands import Say
from headway.errors import ContractViolation

FOREIGN_LIMIT = 0.10
REDONE_AT_MOST = 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one window gave: ``value`` in the comparison's unit, more is better. ``facts`` are context, by name and unit."""

    value: float
    errors: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way of doing the work; ``measure`` works for about so many seconds and says what came out."""

    name: str
    measure: Callable[[float], Sample]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What ours should be, as a multiple of a peer's figure."""

    peer: str
    at_least: float
    goal: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure; the method's figures are the defaults, and shorter ones are for trying out.

    ``redone_at_most`` is for each contestant; none where one window takes minutes and processor time is judged, which
    others do not change much.
    """

    windows: int = 5
    window_s: float = 10.0
    warmup_s: float = 3.0
    redone_at_most: int = REDONE_AT_MOST


@dataclass(frozen=True, kw_only=True)
class Window:
    """A kept window of one contestant; ``foreign`` is the share of the machine that others used."""

    sample: Sample
    foreign: float

    @property
    def noisy(self) -> bool:
        """Whether it would have been taken again, had there been turns left."""
        return self.foreign > FOREIGN_LIMIT


@dataclass(frozen=True, kw_only=True)
class Series:
    """All windows of one contestant."""

    name: str
    windows: Sequence[Window]
    redone: int

    @property
    def values(self) -> list[float]:
        """What the windows gave, in the order they were taken."""
        return [window.sample.value for window in self.windows]

    @property
    def errors(self) -> int:
        """Errors of all windows."""
        return sum(window.sample.errors for window in self.windows)

    def facts(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "name": self.name,
            "median": round(statistics.median(self.values), 3),
            "spread": [round(min(self.values), 3), round(max(self.values), 3)],
            "n": len(self.windows),
            "errors": self.errors,
            "redone": self.redone,
            "noisy": sum(window.noisy for window in self.windows),
            "foreign_cpu": [round(window.foreign, 3) for window in self.windows],
            **self.context(),
        }

    def context(self) -> dict[str, float]:
        """Give the medians of the facts that came with the windows."""
        names = sorted({name for window in self.windows for name in window.sample.facts})
        known = {n: [w.sample.facts[n] for w in self.windows if n in w.sample.facts] for n in names}
        return {name: round(statistics.median(values), 3) for name, values in known.items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours beside its peers, from one run."""

    title: str
    unit: str
    ours: Series
    peers: Sequence[Series]
    targets: Sequence[Target]

    def ratios(self, peer: str) -> tuple[float, float, float]:
        """Median by median, and the least and the greatest ratio of windows taken in the same turn."""
        other = next(series for series in self.peers if series.name == peer)
        turns = [mine / theirs for mine, theirs in zip(self.ours.values, other.values, strict=True)]
        return statistics.median(self.ours.values) / statistics.median(other.values), min(turns), max(turns)

    @property
    def met(self) -> bool:
        """Whether every target is reached without an error of ours."""
        return self.ours.errors == 0 and all(self.ratios(each.peer)[0] >= each.at_least for each in self.targets)

    def facts(self) -> dict[str, Any]:
        """Give it as plain values; the ratio in front is the one that stands worst against its target."""
        judged = [self._judged(target) for target in self.targets]
        context = [self._ratio(peer.name) for peer in self.peers if peer.name not in {t.peer for t in self.targets}]
        worst = min(judged, key=lambda each: each["ratio"] / each["target"])
        return {
            "title": self.title,
            "unit": self.unit,
            "ours": self.ours.facts(),
            "peers": [peer.facts() for peer in self.peers],
            **{name: worst[name] for name in ("peer", "ratio", "target", "goal", "spread")},
            "met": self.met,
            "n": len(self.ours.windows),
            "ratios": [*judged, *context],
        }

    def lines(self) -> list[str]:
        """Give it as lines for people."""
        shown = [f"{self.title} ({self.unit})"]
        for series in (self.ours, *self.peers):
            facts = series.facts()
            low, high = facts["spread"]
            noise = f", {facts['noisy']} noisy" if facts["noisy"] else ""
            shown.append(
                f"  {series.name:<28} {facts['median']:>12,.1f}  [{low:,.1f} to {high:,.1f}]  "
                f"n={facts['n']}, {facts['errors']} errors, {facts['redone']} redone{noise}"
            )
            if series.context():
                shown.append("    " + ", ".join(f"{name} {value:,.1f}" for name, value in series.context().items()))
        for each in self.facts()["ratios"]:
            wanted = f"target {each['target']}" if "target" in each else "no target"
            goal = f", goal {each['goal']}" if each.get("goal") else ""
            verdict = {True: ": met", False: ": NOT met", None: ""}[each.get("met")]
            low, high = each["spread"]
            shown.append(f"  {each['ratio']:.2f} x {each['peer']} [{low:.2f} to {high:.2f}] ({wanted}{goal}){verdict}")
        return shown

    def _ratio(self, peer: str) -> dict[str, Any]:
        ratio, low, high = (round(value, 3) for value in self.ratios(peer))
        return {"peer": peer, "ratio": ratio, "spread": [low, high]}

    def _judged(self, target: Target) -> dict[str, Any]:
        facts = self._ratio(target.peer)
        return {**facts, "target": target.at_least, "goal": target.goal, "met": facts["ratio"] >= target.at_least}


# Does work and says what share of the machine others used meanwhile.
Watch = Callable[[Callable[[], Sample]], tuple[Sample, float]]


def compare(
    title: str,
    *,
    unit: str,
    ours: Contestant,
    peers: Sequence[Contestant],
    targets: Sequence[Target],
    plan: Plan,
    say: Say,
    watch: Watch = with_foreign_cpu,
) -> Comparison:
    """Measure all contestants in turns.

    Raises:
        ContractViolation: a target names no peer, or there is none.
    """
    everyone = (ours, *peers)
    unknown = [target.peer for target in targets if target.peer not in {peer.name for peer in peers}]
    if unknown or not targets:
        raise ContractViolation(
            f"{title}: targets name {unknown or 'nobody'} (peers: {', '.join(peer.name for peer in peers)})"
        )
    for contestant in everyone:
        contestant.measure(plan.warmup_s)
    kept: dict[str, list[Window]] = {contestant.name: [] for contestant in everyone}
    redone = dict.fromkeys(kept, 0)
    for turn in range(plan.windows):
        for contestant in everyone:
            window = _window(contestant, plan, watch)
            while window.noisy and redone[contestant.name] < plan.redone_at_most:
                redone[contestant.name] += 1
                say(f"{contestant.name}: others used {window.foreign:.0%} of the machine; taken again")
                window = _window(contestant, plan, watch)
            kept[contestant.name].append(window)
            say(f"{turn + 1}/{plan.windows} {contestant.name}: {window.sample.value:,.1f} {unit}")
    mine, *others = (Series(name=name, windows=kept[name], redone=redone[name]) for name in kept)
    return Comparison(title=title, unit=unit, ours=mine, peers=others, targets=targets)


def _window(contestant: Contestant, plan: Plan, watch: Watch) -> Window:
    sample, foreign = watch(lambda: contestant.measure(plan.window_s))
    return Window(sample=sample, foreign=foreign)
