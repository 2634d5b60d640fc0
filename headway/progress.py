"""How far a long piece of work is, for a person who waits: a bar, the rate, and what is left.

On a terminal one line is drawn again and again; anywhere else a line comes now and then, as a log keeps every one. A run
of an orchestrator is told lines, too, where a person looks at it.
"""

import sys
from collections.abc import Callable
from threading import Lock
from typing import TextIO

from headway.clock import monotonic_s

_WIDTH = 24
_EVERY_S = {True: 0.2, False: 10.0}


class Progress:
    """Counts rows of a total that is about right; draws on ``out``, or tells ``say``. Safe to use from several threads."""

    def __init__(
        self,
        what: str,
        total: int,
        *,
        say: Callable[[str], None] | None = None,
        out: TextIO | None = None,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._what, self._total, self._say, self._now_s = what, total, say, now_s
        self._out = out or sys.stderr
        self._done, self._started_s = 0, now_s()
        self._drawn_s = self._started_s
        self._redrawn = say is None and self._out.isatty()
        self._lock = Lock()

    def add(self, rows: int) -> None:
        """Count rows, and draw when it is time."""
        with self._lock:
            self._done += rows
            if self._now_s() - self._drawn_s >= _EVERY_S[self._redrawn]:
                self._draw()

    def end(self) -> None:
        """Draw what became of it."""
        self._total = self._done
        self._draw()
        if self._redrawn:
            self._out.write("\n")
            self._out.flush()

    def _draw(self) -> None:
        self._drawn_s = self._now_s()
        line = progress_line(self._what, self._done, self._total, seconds=self._drawn_s - self._started_s)
        if self._say is not None:
            self._say(line)
            return
        self._out.write(f"\r{line}\x1b[K" if self._redrawn else f"{line}\n")
        self._out.flush()


def progress_line(what: str, done: int, total: int, *, seconds: float) -> str:
    """Return the line: a bar, rows of how many, rows per second, seconds left."""
    share = min(1.0, done / total) if total else 1.0
    filled = round(share * _WIDTH)
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {max(0, total - done) / rate:,.0f} s left" if rate and done < total else ""
    bar = "#" * filled + "." * (_WIDTH - filled)
    return f"{what} [{bar}] {share:4.0%}  {done:,} of {max(total, done):,} rows, {rate:,.0f}/s{left}"
