"""What each process of the stack, with all it started, costs: memory and processor time, from the kernel."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headway.clock import monotonic_s
from headway.local.processes import descendants


def with_usage(processes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add ``memory_mb`` and ``cpu_s`` to each; null for one that does not run.

    Memory is the proportional set size in MiB: a page that several processes share counts once over all of them, so
    the figures may be added up. Processor seconds since start, of children that have ended too.
    """
    return [{**process, **_told(_usage(process["pid"]))} for process in processes]


def with_share(processes: Iterable[Mapping[str, Any]], *, over_s: float) -> list[dict[str, Any]]:
    """Wait, and add ``cpu_percent`` of one core as well; null for one that did not run all the while."""
    began = [(process, _usage(process["pid"])) for process in processes]
    since_s = monotonic_s()
    time.sleep(over_s)
    ended = [_usage(process["pid"]) for process, _ in began]
    taken_s = monotonic_s() - since_s
    return [
        {**process, **_told(after), "cpu_percent": _percent(before, after, taken_s)}
        for (process, before), after in zip(began, ended, strict=True)
    ]


def _told(usage: tuple[int, float] | None) -> dict[str, float | None]:
    if usage is None:
        return {"memory_mb": None, "cpu_s": None}
    kib, seconds = usage
    return {"memory_mb": round(kib / 1024), "cpu_s": round(seconds, 1)}


def _percent(before: tuple[int, float] | None, after: tuple[int, float] | None, taken_s: float) -> float | None:
    if before is None or after is None:
        return None
    # A child that ended and was not waited for takes its seconds with it.
    return round(100 * max(0.0, after[1] - before[1]) / taken_s, 2)


def _usage(pid: int | None) -> tuple[int, float] | None:
    """KiB and processor seconds of a process with all it started."""
    if pid is None:
        return None
    found = [usage for member in (pid, *descendants(pid)) if (usage := _one(member)) is not None]
    if not found:
        return None
    return sum(kib for kib, _ in found), sum(seconds for _, seconds in found)


def _one(pid: int) -> tuple[int, float] | None:
    folder = Path("/proc") / str(pid)
    try:
        rollup = (folder / "smaps_rollup").read_text().splitlines()
        # Fields 14 to 17 of proc(5): user and system time, of the process and of its children that were waited for.
        times = (folder / "stat").read_text().rpartition(")")[2].split()[11:15]
    except OSError:  # ended meanwhile, or not ours to look at
        return None
    kib = next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
    return kib, sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
