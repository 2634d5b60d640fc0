"""Waiting for something that takes as long as it takes: for as long as it moves, and no longer."""

import time
from collections.abc import Callable

from headway.clock import monotonic_s


def wait_while_moving(
    reached: Callable[[], int | None], *, wanted: int, unmoved_s: float, every_s: float
) -> int | None:
    """Return what was reached last: ``wanted`` or more, or less once nothing has moved for so long; None is no news."""
    best: int | None = None
    moved_s = monotonic_s()
    while True:
        now = reached()
        if now is not None and (best is None or now > best):
            best, moved_s = now, monotonic_s()
        if (best is not None and best >= wanted) or monotonic_s() - moved_s > unmoved_s:
            return best
        time.sleep(every_s)
