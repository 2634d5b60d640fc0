"""Measures a stream job from inside its process: events done and processor seconds used, over one window.

Standard library only, as it runs in every contestant's environment. A job calls `Meter.done(n)` for events it has dealt
with. The window begins a second after the first; at its end one JSON line is printed and the process ends at once.
"""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

_SETTLE_S = 1.0
_START_TIMEOUT_S = 60.0
# Nothing new for so long means that the input is used up; in a run to its end, what is under way is committed by then.
_IDLE_S = 5.0
_END_IDLE_S = 8.0


class Meter:
    """Counts and, in a thread of its own, measures; ``window_s`` 0 means: until the input is used up."""

    def __init__(self, window_s: float) -> None:
        self.count = 0
        self._window_s = window_s
        threading.Thread(target=self._measure, daemon=True).start()

    def done(self, events: int) -> None:
        """Note events that were dealt with."""
        self.count += events

    def _measure(self) -> None:
        began = time.monotonic()
        while not self.count:
            if time.monotonic() - began > _START_TIMEOUT_S:
                sys.stderr.write("meter: nothing came\n")
                os._exit(3)
            time.sleep(0.01)
        if self._window_s:
            time.sleep(_SETTLE_S)
        first = last = self._sample()
        while not self._window_s or last[0] - first[0] < self._window_s:
            time.sleep(0.1)
            now = self._sample()
            if now[1] > last[1]:
                last = now
            elif now[0] - last[0] > (_IDLE_S if self._window_s else _END_IDLE_S):
                break
        seconds, events, cpu_s = (after - before for after, before in zip(last, first, strict=True))
        report = {"events": events, "seconds": seconds, "cpu_s": cpu_s, "peak_mib": _peak_mib()}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        # A stream framework that is asked to stop first commits, for seconds.
        os._exit(0)

    def _sample(self) -> tuple[float, int, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic(), self.count, used.ru_utime + used.ru_stime


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
