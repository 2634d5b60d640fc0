"""What a trial tells: whether the promise held, over how many events, how sure that makes us, and which faults it stood."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from orchestration.chaos.faults import Fault

# No failure in n trials bounds the failure rate below this over n, with 95 % confidence (the rule of three).
_RULE_OF_THREE = 3.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a test is asked: its length, seed, and the bug to plant, if any."""

    test: str
    short: bool
    seed: int
    mutant: str | None
    say: Callable[[str], None]


class Told(Protocol):
    """A fault as a report tells it; ``proof`` is None when nothing proves it."""

    @property
    def name(self) -> str:
        """What was hurt."""

    @property
    def proof(self) -> str | None:
        """What proves it."""

    def facts(self, *, begun_s: float) -> dict[str, Any]:
        """Return it as plain values."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of a test.

    Attributes:
        n: events (or other trials) the claim rests on.
        wants: what must be true besides the invariants, in words, with what was found.
        figures: everything measured.
    """

    trial: Trial
    n: int
    violations: Mapping[str, Sequence[str]]
    wants: Mapping[str, bool]
    figures: Mapping[str, Any]
    faults: Sequence[Told]
    begun_s: float
    seconds: float
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def held(self) -> bool:
        """Whether no invariant was broken, every other want was met, and every fault is proven."""
        return not self.violations and all(self.wants.values()) and all(fault.proof for fault in self.faults)

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "test": self.trial.test,
            "short": self.trial.short,
            "seed": self.trial.seed,
            "mutant": self.trial.mutant,
            "held": self.held,
            "n": self.n,
            "bound": _RULE_OF_THREE / self.n if self.n else None,
            "seconds": round(self.seconds, 1),
            "figures": dict(self.figures),
            "wants": dict(self.wants),
            "violations": {name: list(lines) for name, lines in self.violations.items()},
            "faults": [fault.facts(begun_s=self.begun_s) for fault in self.faults],
            "unproven": [fault.name for fault in self.faults if not fault.proof],
        }

    def lines(self) -> list[str]:
        """Return it for a person."""
        rate = f"failure rate below {_RULE_OF_THREE / self.n:.1e} (95 %)" if self.n and self.held else "no bound"
        return [
            f"{self.trial.test}{' short' if self.trial.short else ''}, seed {self.trial.seed}"
            + (f", mutant {self.trial.mutant}" if self.trial.mutant else "")
            + f": {'held' if self.held else 'BROKEN'}; n = {self.n:,}, {rate}; {self.seconds:.0f} s",
            f"{len(self.faults)} faults, {sum(fault.proof is not None for fault in self.faults)} proven",
            *(f"{name}: {value}" for name, value in self.figures.items() if not isinstance(value, (dict, list))),
            *(f"wanted and not met: {want}" for want, met in self.wants.items() if not met),
            *(f"{name}: {line}" for name, named in self.violations.items() for line in named[:5]),
        ]


def acked_per_s(journal: pl.DataFrame, *, from_s: float, until_s: float) -> float:
    """Return events acknowledged a second, of those sent in an interval."""
    inside = journal.filter(
        pl.col("sent_s").is_between(from_s, until_s, closed="left") & (pl.col("outcome") == "acked")
    )
    return inside.height / (until_s - from_s)


def seconds_to_next_ack(journal: pl.DataFrame, faults: Sequence[Fault]) -> list[float]:
    """Return, per fault, how long after it the first event *sent after it* was acknowledged; infinite if none was."""
    acked = journal.filter(pl.col("outcome") == "acked").select("sent_s", "answered_s")
    waits = []
    for fault in faults:
        first = acked.filter(pl.col("sent_s") > fault.at_s)["answered_s"].min()
        waits.append(float("inf") if first is None else float(str(first)) - fault.at_s)
    return sorted(waits)


def quantile(values: Sequence[float], q: float) -> float:
    """Return a quantile, nearest rank; 0.0 of nothing."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0
