"""A process that outlives its work by the moment it takes to clean up after it.

`run_kept` forks: the child does the work, the parent only waits. As a subreaper the parent inherits whatever the child
leaves behind, however the child ended, SIGKILL included, and ends it. If the parent is the one that is killed, the
kernel sends the child SIGTERM and the work stops in order. Only killing both at once leaves grandchildren; the next
``headway up`` or ``headway down`` finds those by their mark.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

from headway.local.processes import become_subreaper, children, tied_to_parent

# What is still there when the work has ended did not stop when asked; it gets this long to be told and reaped.
SWEEP_S = 5.0


def run_kept(work: Callable[[], int]) -> int:
    """Do ``work`` in a child and give its exit code, once no descendant of it is left.

    SIGTERM, SIGINT and SIGHUP reach the work as one SIGTERM. Call from a process without threads or children.
    """
    become_subreaper()
    keeper = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    worker = os.fork()
    if worker == 0:
        _work(work, keeper)
    _forward_to(worker)
    code = _wait_for(worker)
    sweep()
    return code


def sweep() -> None:
    """SIGKILL and reap every child of this process, those it inherits meanwhile included."""
    deadline = time.monotonic() + SWEEP_S
    while time.monotonic() < deadline:
        for pid in children(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _work(work: Callable[[], int], keeper: int) -> None:
    code = 1
    try:
        tied_to_parent(keeper, signal.SIGTERM)()
        # A session of its own: Ctrl-C in the terminal then reaches the keeper alone, which forwards it once.
        os.setsid()
        code = work()
    except BaseException:  # noqa: BLE001 - this is the top of the child's stack; nothing above may run twice
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forward_to(worker: int) -> None:
    def forward(_number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(worker, signal.SIGTERM)
        except ProcessLookupError:
            return

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, forward)


def _wait_for(worker: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            return os.waitstatus_to_exitcode(status)
