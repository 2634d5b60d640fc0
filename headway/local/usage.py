"""What each process of the stack, with all it started, costs: memory and processor time, from the kernel."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headway.local.processes import descendants


def with_usage(processes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add ``memory_mb`` and ``cpu_s`` to each; null for one that does not run.

    Memory is the proportional set size in MiB: a page that several processes share counts once over all of them, so
    the figures may be added up. Processor seconds since start, of children that have ended too.
    """
    return [{**process, **_usage(process["pid"])} for process in processes]


def _usage(pid: int | None) -> dict[str, float | None]:
    if pid is None:
        return {"memory_mb": None, "cpu_s": None}
    family = [_one(member) for member in (pid, *descendants(pid))]
    found = [usage for usage in family if usage is not None]
    return {
        "memory_mb": round(sum(kib for kib, _ in found) / 1024),
        "cpu_s": round(sum(seconds for _, seconds in found), 1),
    }


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
