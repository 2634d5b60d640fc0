"""The machine under a benchmark: what it is, and how much of it somebody else used during a window.

Reads /proc, so Linux only. A process of the benchmark is this one and all it started: broker, servers, load generator.
"""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from headway.local.processes import descendants

T = TypeVar("T")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def with_foreign_cpu(work: Callable[[], T]) -> tuple[T, float]:
    """Do the work; return what it gave and the share of the machine's processors that others used meanwhile, 0 to 1."""
    began, busy, own = time.monotonic(), _busy_s(), tree_cpu_s(os.getpid())
    given = work()
    capacity_s = (time.monotonic() - began) * (os.cpu_count() or 1)
    foreign_s = (_busy_s() - busy) - (tree_cpu_s(os.getpid()) - own)
    return given, max(0.0, foreign_s / capacity_s)


def tree_cpu_s(pid: int) -> float:
    """Processor seconds, user and system, of a process and all it started, those that ended included."""
    return sum(_process_cpu_s(member) for member in (pid, *descendants(pid)))


def facts() -> dict[str, Any]:
    """Say what the figures were taken on; no names of hosts."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _busy_s() -> float:
    """Processor seconds of everything, without idle, waiting for disks, and guests (which count as user already)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * _TICK_S


def _process_cpu_s(pid: int) -> float:
    try:
        # Fields 14 to 17 of proc(5): user and system time, of the process and of its children that were waited for.
        times = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:15]
    except OSError:  # ended meanwhile
        return 0.0
    return sum(map(int, times)) * _TICK_S


def _first(file: str, name: str) -> str:
    lines = (line.partition(":") for line in Path(file).read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "0 unknown")
