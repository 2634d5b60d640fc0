"""Facts about processes of this machine, and the two kernel promises a supervisor needs. Linux only.

A process is named by pid *and* start time: pids are used again, and a signal to a remembered pid alone can hit a
stranger. What bites: a process may overwrite its own environment area (``setproctitle`` does), so `marked` finds most
descendants, never surely all; it is the broom after a crash, not the way to stop things.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """One process, for good: ``started`` is its start in clock ticks since boot."""

    pid: int
    started: int


def identify(pid: int) -> ProcessId | None:
    """Name the process that has this pid now; None when there is none, or only its zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessId(pid=pid, started=int(fields[19]))


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs; a zombie does not."""
    return identify(process.pid) == process


def own_id() -> ProcessId:
    """Name this process."""
    me = identify(os.getpid())
    assert me is not None
    return me


def children(pid: int) -> tuple[int, ...]:
    """Give the pids whose parent is ``pid`` now, zombies included."""
    return tuple(child for child, parent in _parents() if parent == pid)


def descendants(pid: int) -> tuple[int, ...]:
    """Give every pid below ``pid``, nearest first, zombies included."""
    below: dict[int, list[int]] = {}
    for child, parent in _parents():
        below.setdefault(parent, []).append(child)
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in below.get(parent, ())]
        found += level
    return tuple(found)


def ancestors(pid: int) -> tuple[int, ...]:
    """Give ``pid``, its parent, and so on up to the first process."""
    parents = dict(_parents())
    line = [pid]
    while (parent := parents.get(line[-1], 0)) > 0:
        line.append(parent)
    return tuple(line)


def marked(variable: str, value: str) -> tuple[ProcessId, ...]:
    """Give the processes of this user whose environment carried ``variable=value`` at their start."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        process = identify(pid) if wanted in environment else None
        if process is not None:
            found.append(process)
    return tuple(found)


def end_now(processes: Iterable[ProcessId], *, within_s: float) -> tuple[ProcessId, ...]:
    """SIGKILL these processes and the groups they lead; give those still there after ``within_s`` seconds."""
    left = [process for process in processes if is_alive(process)]
    for process in left:
        for kill in (os.killpg, os.kill):
            _quietly(kill, process.pid)
    deadline = time.monotonic() + within_s
    while (left := [process for process in left if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return tuple(left)


def become_subreaper() -> None:
    """Have the kernel hand orphaned descendants to this process instead of to init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def tied_to_parent(parent_pid: int, with_signal: signal.Signals) -> Callable[[], None]:
    """Give what a forked child calls so that the kernel signals it when its parent ends.

    The promise is lost when the child changes user id, and it watches the *thread* that forked: fork from the main one.
    """

    def tie() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(with_signal))
        if os.getppid() != parent_pid:  # it ended between the fork and this line
            os._exit(1)

    return tie


def be_nice(niceness: int) -> None:
    """Have this process, which leads a session of its own, leave the cores to others that want them.

    Where the kernel shares them out by session first (autogroup), a process's own niceness counts within its session only.
    """
    os.nice(niceness)
    with contextlib.suppress(OSError):  # a kernel without it, or one that was asked too often
        (_PROC / "self" / "autogroup").write_text(str(niceness))


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed; Headway's supervisor needs Linux 3.4")


def _quietly(kill: Callable[[int, int], None], pid: int) -> None:
    try:
        kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # ended meanwhile, or it leads no group
        return


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _parents() -> Iterator[tuple[int, int]]:
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None:
            yield pid, int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third, the state, on; the second may contain spaces and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
