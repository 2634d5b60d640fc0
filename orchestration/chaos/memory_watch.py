"""How much memory the instances of a job have together, by how far a replay has come."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headway.errors import HeadwayError
from orchestration.chaos.faults import is_kind


class MemoryWatch:
    """``mib`` holds the most that was seen per step of event time, counted from the first look."""

    def __init__(self, processes: Callable[[], Mapping[str, Mapping[str, Any]]], kind: str, *, step_us: int) -> None:
        self.mib: dict[int, float] = {}
        self._processes = processes
        self._kind = kind
        self._step_us = step_us
        self._first_us: int | None = None

    def look(self, reached_us: int) -> None:
        """Take the memory of now, for an instant that the replay has reached."""
        if self._first_us is None:
            self._first_us = reached_us
        try:
            running = self._processes()
        except HeadwayError:
            return
        pids = [int(p["pid"]) for name, p in running.items() if is_kind(name, self._kind) and p.get("pid")]
        step = (reached_us - self._first_us) // self._step_us
        self.mib[step] = max(self.mib.get(step, 0.0), sum(map(resident_mib, pids)))


def resident_mib(pid: int) -> float:
    """Return what a process holds in memory; 0.0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    _, found, rest = status.partition("VmRSS:")
    return int(rest.split()[0]) / 1024 if found else 0.0
