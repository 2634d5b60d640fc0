"""The feature backfill as P11 asks it of everybody: Parquet of events in, Parquet of changelog rows out, every view.

Standard library only, as it runs in every contestant's environment. A contestant makes all rows of all views once per
pass; passes are repeated until the window is over, and one JSON line says what they took. `View` is what a peer has to
know of a view: the rows are the events' instants and every tile's end plus every window; a window at T holds the events
in (floor((T - window) / hop) * hop, T].
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Aggregate:
    """One feature; ``window_us`` is a multiple of the view's hop."""

    name: str
    function: str
    field: str | None
    window_us: int


@dataclass(frozen=True)
class View:
    """One view over the events of one type."""

    name: str
    keys: list[str]
    source: str
    hop_us: int
    fields: list[str]
    aggregates: list[Aggregate]

    @property
    def windows_us(self) -> list[int]:
        """Return the distinct windows."""
        return sorted({each.window_us for each in self.aggregates})

    def fields_of(self, *functions: str) -> list[str]:
        """Return the fields that some of these functions read."""
        return sorted({str(each.field) for each in self.aggregates if each.function in functions and each.field})


def main(make: Callable[[list[View], str, Path], int]) -> None:
    """Do what the command line says: ``VIEWS EVENTS OUT WINDOW_S``; ``make`` does one pass and returns its rows."""
    spec, events, out, window_s = sys.argv[1:5]
    views = [
        View(**{**each, "aggregates": [Aggregate(**one) for one in each["aggregates"]]})
        for each in json.loads(Path(spec).read_text())
    ]
    measure(lambda _: make(views, events, Path(out)), window_s=float(window_s))


def measure(one_pass: Callable[[int], int], *, window_s: float) -> None:
    """Repeat the work, at least once, and print how often, how long, with how much processor time, how many rows."""
    began_s, cpu_s, passes, rows = time.monotonic(), _tree_cpu_s(), 0, 0
    while not passes or time.monotonic() - began_s < window_s:
        rows = one_pass(passes)
        passes += 1
    seconds, used_s = time.monotonic() - began_s, _tree_cpu_s() - cpu_s
    sys.stdout.write(json.dumps({"passes": passes, "seconds": seconds, "cpu_s": used_s, "rows": rows}) + "\n")
    sys.stdout.flush()


def _tree_cpu_s() -> float:
    """User and system seconds of this process and all it started, those that ended included."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        stats[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    mine = {os.getpid()}
    while more := {pid for pid, (parent, _) in stats.items() if parent in mine} - mine:
        mine |= more
    return sum(stats[pid][1] for pid in mine if pid in stats) * _TICK_S
