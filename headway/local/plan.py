"""What a supervisor is asked to keep, as values: processes, their order, and how patient to be. Nothing runs here."""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headway.errors import ContractViolation

FIRST_BACKOFF_S = 0.5
# Longer waits save nothing on one machine and keep a repaired part away.
LONGEST_BACKOFF_S = 5.0
# Ready for this long, a process has done its work: its end is an accident, and backoff is for crash loops.
RECOVERED_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process to keep.

    ``command`` prepares what the process needs (files, folders) and gives its argv; it is called before every start.
    ``ready`` says whether it does its work; None makes it a task: it is done when it has ended with exit code 0.
    ``stop_timeout_s`` is for flushing: after it the whole group is killed. ``restart`` is about crashes after readiness.
    A ``vital`` process that never becomes ready ends the stack; another is tried for as long as it is wanted.
    ``niceness`` is the kernel's, from 0: the higher, the more it leaves to others when they all want the same cores.
    """

    name: str
    command: Callable[[], Sequence[str]]
    ready: Callable[[], bool] | None
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    start_timeout_s: float = 90.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 5.0
    restart: Literal["always", "never"] = "always"
    vital: bool = True
    niceness: int = 0


@dataclass(frozen=True, kw_only=True)
class Scalable:
    """A process of which several instances may run: ``instance(0)`` belongs to the stack, the others come and go.

    ``most`` instances have work to do; ``limit`` says in words why another would have none.
    """

    name: str
    instance: Callable[[int], Process]
    most: int
    limit: str


def backoff_s(failures: int) -> float:
    """How long to wait before the next start after this many failures in a row."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(16, max(0, failures - 1)))


def failures_in_a_row(before: int, ready_for_s: float) -> int:
    """Count another failure, as the first one again if the process had been ready for long enough."""
    return 1 if ready_for_s >= RECOVERED_AFTER_S else before + 1


def start_order(processes: Iterable[Process]) -> tuple[Process, ...]:
    """Give the processes so that each comes after what it depends on, otherwise in the order given.

    Raises:
        ContractViolation: a name twice, a dependency that is not there, or a circle.
    """
    by_name: dict[str, Process] = {}
    for process in processes:
        if by_name.setdefault(process.name, process) is not process:
            raise ContractViolation(f"stack: the name {process.name!r} is given twice. Names of processes must differ.")
    ordered: dict[str, Process] = {}
    while len(ordered) < len(by_name):
        free = [p for p in by_name.values() if p.name not in ordered and set(p.depends_on) <= ordered.keys()]
        if not free:
            stuck = {name: list(p.depends_on) for name, p in by_name.items() if name not in ordered}
            raise ContractViolation(
                f"stack: these wait for each other or for what is not there: {stuck}. Mend their depends_on."
            )
        ordered |= {p.name: p for p in free}
    return tuple(ordered.values())
