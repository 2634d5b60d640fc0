"""Faults on a seeded schedule, each with its proof; processes are found by pid through the supervisor's status.

A fault that cannot be proven did not happen, and fails the trial: SIGKILL shows as another pid that is ready again,
SIGSTOP as a process in state T and no longer in it after SIGCONT.
"""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headway.clock import SystemClock, monotonic_s, to_us
from headway.errors import HeadwayError

What = Literal["kill", "stop", "term", "hang", "join", "leave"]
_WATCH_EVERY_S = 0.2
# A process that was just killed is not there to be killed again; wait this long for it, then leave the fault out.
_TARGET_WITHIN_S = 60.0

Processes = Callable[[], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One fault to come: ``kind`` names the process without its number, ``hold_s`` is how long a stop lasts."""

    at_s: float
    kind: str
    what: What
    hold_s: float = 0.0


@dataclass(kw_only=True)
class Fault:
    """One fault that was done, and what proves it; ``point`` is the fail-point that did it, if one did."""

    kind: str
    name: str
    what: What
    at_s: float
    pid: int
    point: str | None = None
    pid_after: int | None = None
    down_s: float | None = None
    proof: str | None = None

    @property
    def at_ms(self) -> int:
        """When it was, by the wall clock (Unix milliseconds)."""
        return to_us(SystemClock().now()) // 1000 - round((monotonic_s() - self.at_s) * 1000)

    def facts(self, *, begun_s: float) -> dict[str, Any]:
        """Return it as plain values, its time from the start of the trial."""
        return {
            "at_s": round(self.at_s - begun_s, 2),
            "process": self.name,
            "what": self.what,
            **({} if self.point is None else {"point": self.point}),
            "pid": self.pid,
            "pid_after": self.pid_after,
            "down_s": None if self.down_s is None else round(self.down_s, 2),
            "proof": self.proof,
        }


def plan_kills(
    kinds: Sequence[str], *, count: int, first_s: float, last_s: float, generator: random.Random
) -> list[Planned]:
    """Return ``count`` SIGKILLs spread over [first, last] with jitter, every kind in turn in a drawn order."""
    turns: list[str] = []
    while len(turns) < count:
        turns += generator.sample(list(kinds), len(kinds))
    step_s = (last_s - first_s) / count
    return [
        Planned(at_s=first_s + (place + generator.random() * 0.6) * step_s, kind=kind, what="kill")
        for place, kind in enumerate(turns[:count])
    ]


@dataclass
class Injector:
    """Does planned faults in the calling thread while another watches what becomes of the processes."""

    processes: Processes
    say: Callable[[str], None]
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="fault-watch", daemon=True)
        self._watcher.start()

    def inject(self, plan: Sequence[Planned], *, begun_s: float) -> None:
        """Do every planned fault at its time from ``begun_s``; one whose target does not come back is left out."""
        for planned in plan:
            time.sleep(max(0.0, begun_s + planned.at_s - monotonic_s()))
            self.do(planned)

    def do(self, planned: Planned) -> Fault | None:
        """Do one fault now; None when no process of its kind ran within a minute."""
        target = self._target(planned.kind)
        if target is None:
            self.say(f"fault: no {planned.kind} ran for {_TARGET_WITHIN_S:.0f} s; left out")
            return None
        name, pid = target
        fault = Fault(kind=planned.kind, name=name, what=planned.what, at_s=monotonic_s(), pid=pid)
        if planned.what == "stop":
            self._hold(fault, planned.hold_s)
        else:
            os.kill(pid, signal.SIGKILL if planned.what == "kill" else signal.SIGTERM)
        self.faults.append(fault)
        return fault

    def adopt(self, fault: Fault) -> None:
        """Watch a fault that something else did, a fail-point say."""
        self.faults.append(fault)

    def wait_until_proven(self, *, within_s: float) -> None:
        """Wait until every fault has its proof, or time is up."""
        deadline_s = monotonic_s() + within_s
        while any(fault.proof is None for fault in self.faults) and monotonic_s() < deadline_s:
            time.sleep(_WATCH_EVERY_S)

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._watcher.join()

    def _target(self, kind: str) -> tuple[str, int] | None:
        deadline_s = monotonic_s() + _TARGET_WITHIN_S
        while monotonic_s() < deadline_s:
            with suppress(HeadwayError):
                running = [
                    p for name, p in sorted(self.processes().items()) if is_kind(name, kind) and p["state"] == "ready"
                ]
                if running:
                    # The one that has been killed least, so that all instances get their turn.
                    chosen = min(running, key=lambda p: sum(fault.name == p["name"] for fault in self.faults))
                    return str(chosen["name"]), int(chosen["pid"])
            time.sleep(_WATCH_EVERY_S)
        return None

    def _hold(self, fault: Fault, hold_s: float) -> None:
        os.kill(fault.pid, signal.SIGSTOP)
        time.sleep(hold_s)
        held = process_state(fault.pid)
        with suppress(ProcessLookupError):
            os.kill(fault.pid, signal.SIGCONT)
        time.sleep(0.05)
        went_on = process_state(fault.pid)
        fault.down_s = monotonic_s() - fault.at_s
        if held == "T" and went_on != "T":
            fault.proof = f"state T for {hold_s:.1f} s, then {went_on or 'gone'}"

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_EVERY_S):
            waiting = [fault for fault in self.faults if fault.proof is None and fault.what in ("kill", "term", "hang")]
            if not waiting:
                continue
            try:
                now = self.processes()
            except HeadwayError:
                continue
            for fault in waiting:
                if fault.name not in now and process_state(fault.pid) is None:
                    fault.proof = f"pid {fault.pid} gone, and its instance no longer wanted"
                    continue
                process = now.get(fault.name, {})
                pid = process.get("pid")
                if pid is not None and pid != fault.pid and process["state"] == "ready":
                    fault.pid_after, fault.down_s = int(pid), monotonic_s() - fault.at_s
                    fault.proof = f"pid {fault.pid} -> {pid}"


def is_kind(name: str, kind: str) -> bool:
    """Whether a process is the kind's only or first, or a numbered one: ``enricher``, ``enricher-2``."""
    return re.fullmatch(rf"{re.escape(kind)}(-\d+)?", name) is not None


def process_state(pid: int) -> str | None:
    """Return the state letter the kernel gives of a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return None
