"""The state folder of one stack: whose it is, whether its supervisor lives, and what a dead one left behind.

``supervisor.lock`` is held as long as a supervisor or its keeper lives, which no pid file can promise;
``supervisor.json`` names the processes by pid and start time. What bites: when both are killed at once the lock is
free while processes may remain, so whoever starts or stops a stack calls `clean_stale` first.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headway.errors import PermanentFailure
from headway.local.control import write_whole
from headway.local.processes import ProcessId, ancestors, end_now, is_alive, marked
from headway.settings import Settings

STACK_VARIABLE = "HEADWAY_STACK"
# `erase` erases only a folder that carries it, whatever HEADWAY_STATE says.
_OURS = ".headway-state"
# A probe of the lock holds it for microseconds; a supervisor holds it for good.
_LOCK_TRIES = 20


def claim(state: Path) -> None:
    """Make the state folder, or make sure that the existing one is ours.

    Raises:
        PermanentFailure: it holds something else.
    """
    if state.is_dir() and any(state.iterdir()) and not (state / _OURS).exists():
        raise PermanentFailure(
            f"{state}: wanted a folder for Headway's state, but it holds something else. "
            "Point HEADWAY_STATE to an empty or a new folder."
        )
    (state / "log").mkdir(parents=True, exist_ok=True)
    (state / _OURS).touch()


def erase(state: Path) -> None:
    """Remove the state folder and all in it.

    Raises:
        PermanentFailure: Headway did not make it.
    """
    if not state.exists():
        return
    if not (state / _OURS).exists():
        raise PermanentFailure(
            f"{state}: not erased, as it has no {_OURS}, so Headway did not make it. "
            "Check HEADWAY_STATE, or erase the folder by hand."
        )
    shutil.rmtree(state)


def is_held(state: Path) -> bool:
    """Whether a supervisor or its keeper lives."""
    try:
        lock = _lock_file(state).open("rb")
    except FileNotFoundError:
        return False
    with lock:
        return not _try_lock(lock, fcntl.LOCK_SH)


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Be the one supervisor of this state folder; forked children hold it too.

    Raises:
        PermanentFailure: there is one already.
    """
    with _lock_file(state).open("ab") as lock:
        for _ in range(_LOCK_TRIES):
            if _try_lock(lock, fcntl.LOCK_EX):
                break
            time.sleep(0.01)
        else:
            raise PermanentFailure(f"{state}: its stack is already up. See `headway status`, or `headway down` first.")
        yield


def record(state: Path, processes: Mapping[str, ProcessId]) -> None:
    """Remember these processes, by name, until the next call."""
    facts = {name: [process.pid, process.started] for name, process in processes.items()}
    write_whole(_record_file(state), json.dumps(facts, indent=1))


def recorded(state: Path) -> dict[str, ProcessId]:
    """Give the processes remembered last, by name; none after an orderly stop."""
    try:
        facts = json.loads(_record_file(state).read_bytes())
    except FileNotFoundError:
        return {}
    return {name: ProcessId(pid=pid, started=started) for name, (pid, started) in facts.items()}


def forget(settings: Settings) -> None:
    """Remove the memory of processes, and the sockets, of a stack that is gone."""
    _record_file(settings.state).unlink(missing_ok=True)
    shutil.rmtree(settings.sockets, ignore_errors=True)


def clean_stale(settings: Settings, *, say: Callable[[str], None]) -> tuple[ProcessId, ...]:
    """End what a killed supervisor left and forget it; give the processes that would not go.

    Call only while the lock is free, or when its holder is to be ended as well.
    """
    left = {process for process in recorded(settings.state).values() if is_alive(process)}
    left |= set(marked(STACK_VARIABLE, str(settings.state)))
    left = {process for process in left if process.pid not in ancestors(os.getpid())}
    if left:
        say(f"ending {len(left)} processes that an earlier stack left: {sorted(process.pid for process in left)}")
    stubborn = end_now(sorted(left, key=lambda process: process.pid), within_s=5.0)
    if not stubborn:
        forget(settings)
    return stubborn


def _lock_file(state: Path) -> Path:
    return state / "supervisor.lock"


def _record_file(state: Path) -> Path:
    return state / "supervisor.json"


def _try_lock(lock: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
