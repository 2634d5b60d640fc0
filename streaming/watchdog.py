"""Ends a process whose handler hangs: a batch has a deadline, and past it only a new process can go on.

Python cannot interrupt its own thread in a blocking call, and a job that hangs keeps its partitions for as long as its
heartbeat thread lives. So past the deadline the stacks are printed, the crash journal is told, and the process exits;
its supervisor starts it again, and the quarantine finds the record.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from headway.clock import monotonic_s

# sysexits' "internal software error": told apart from a kill and from a plain traceback.
HUNG_STATUS = 70
_TICK_S = 1.0
# A tick this late means that the whole process stood still (SIGSTOP, a suspended machine): nobody's handler hangs.
_STOOD_STILL_S = 5.0
_LOG = structlog.get_logger()


def end_process() -> None:
    """Print every thread's stack and exit at once."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(HUNG_STATUS)


class Watchdog:
    """Watches one worker from a thread of its own."""

    def __init__(self, *, deadline_s: float, on_hang: Callable[[], None]) -> None:
        self._deadline_s = deadline_s
        self._on_hang = on_hang
        self._started_s: float | None = None
        self._watched_deadline_s = deadline_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, *, deadline_s: float | None = None) -> Iterator[None]:
        """Give the body a deadline, the watchdog's own by default."""
        self._watched_deadline_s = self._deadline_s if deadline_s is None else deadline_s
        self._started_s = monotonic_s()
        try:
            yield
        finally:
            self._started_s = None

    def restart(self) -> None:
        """Let the deadline under way, if any, count from now."""
        if self._started_s is not None:
            self._started_s = monotonic_s()

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()

    def _watch(self) -> None:
        last_s = monotonic_s()
        while not self._closed.wait(min(_TICK_S, self._deadline_s / 4)):
            # A native call that keeps the interpreter's lock stops this thread too; faulthandler's own timer does not
            # need the lock. Twice the deadline, so that it is only for that.
            faulthandler.dump_traceback_later(2 * self._deadline_s + _STOOD_STILL_S, exit=True)
            now_s, started_s = monotonic_s(), self._started_s
            if started_s is not None and now_s - last_s > _STOOD_STILL_S:
                self._started_s = now_s
            elif started_s is not None and now_s - started_s > self._watched_deadline_s:
                _LOG.error("batch hangs; ending this process", deadline_s=self._watched_deadline_s)
                self._on_hang()
            last_s = now_s
        faulthandler.cancel_dump_traceback_later()
