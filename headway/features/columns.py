"""Partials of tiles, merged into windows: the arithmetic of the incremental aggregator (SEMANTICS S9).

A column is one field of one entity, by tile. What bites: tuples of (time, id) decide what is newest, never the order
of arrival.
"""

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from headway.features.definitions import Function

Value = int | float | None
Stamped = tuple[int, str, int | float]  # (time_us, event id, value)


class Partial(msgspec.Struct, array_like=True):
    """What a whole tile says about one column, nulls skipped. ``total`` stays 0 for columns nobody may sum (S9)."""

    count: int
    total: int
    low: int | float
    high: int | float
    last: Stamped


def fold(seen: Iterable[Stamped], *, summed: bool) -> Partial | None:
    """Return the partial of some values, or None when there are none."""
    stamped = list(seen)
    if not stamped:
        return None
    values = [value for _, _, value in stamped]
    total = sum(value for value in values if isinstance(value, int)) if summed else 0
    return Partial(len(values), total, min(values), max(values), max(stamped, key=lambda s: s[:2]))


class Column:
    """Partials of one column by tile, ascending, as parallel lists: a window is a slice that ``sum`` eats at C speed."""

    __slots__ = ("counts", "highs", "ks", "lasts", "lows", "totals")

    def __init__(self) -> None:
        self.ks: list[int] = []
        self.counts: list[int] = []
        self.totals: list[int] = []
        self.lows: list[int | float] = []
        self.highs: list[int | float] = []
        self.lasts: list[Stamped] = []

    def absorb(self, k: int, stamped: Stamped, *, summed: bool) -> None:
        """Take one value into tile k."""
        value = stamped[2]
        amount = int(value) if summed else 0
        at = self._find(k)
        if at is None:
            self._insert(k, 1, amount, value, value, stamped)
            return
        self.counts[at] += 1
        self.totals[at] += amount
        self.lows[at] = min(self.lows[at], value)
        self.highs[at] = max(self.highs[at], value)
        if stamped[:2] > self.lasts[at][:2]:
            self.lasts[at] = stamped

    def put(self, k: int, partial: Partial) -> None:
        """Insert the partial of a tile that is not there yet."""
        self._insert(k, partial.count, partial.total, partial.low, partial.high, partial.last)

    def _insert(self, k: int, count: int, total: int, low: float, high: float, last: Stamped) -> None:  # noqa: PLR0917 - parts of a tile, in the order of the lists
        at = bisect_left(self.ks, k)
        self.ks.insert(at, k)
        self.counts.insert(at, count)
        self.totals.insert(at, total)
        self.lows.insert(at, low)
        self.highs.insert(at, high)
        self.lasts.insert(at, last)

    def _find(self, k: int) -> int | None:
        ks = self.ks
        # Nearly every event belongs to the newest tile or makes a newer one.
        if not ks or k >= ks[-1]:
            return len(ks) - 1 if ks and k == ks[-1] else None
        at = bisect_left(ks, k)
        return at if ks[at] == k else None

    def get(self, k: int) -> Partial | None:
        """Return the partial of tile k."""
        at = self._find(k)
        if at is None:
            return None
        return Partial(self.counts[at], self.totals[at], self.lows[at], self.highs[at], self.lasts[at])

    def drop(self, k: int) -> Stamped | None:
        """Forget tile k; return the newest value it held."""
        at = self._find(k)
        if at is None:
            return None
        last = self.lasts[at]
        for parts in self._lists():
            del parts[at]
        return last

    def _lists(self) -> tuple[list, ...]:  # type: ignore[type-arg]  # parallel lists of different types
        return (self.ks, self.counts, self.totals, self.lows, self.highs, self.lasts)

    def read(self, function: Function, low: int, high: int, tail: Partial | None) -> Value:
        """Return one aggregate over tiles [low, high) of the lists and the open end ``tail``."""
        extra, extra_total = (0, 0) if tail is None else (tail.count, tail.total)
        if function == "count":
            return sum(self.counts[low:high]) + extra
        if high <= low and tail is None:
            return None
        if function in ("sum", "mean"):
            total = sum(self.totals[low:high]) + extra_total
            # Floats before dividing: what the vectorised engine does, bit for bit (S9).
            return total if function == "sum" else float(total) / (sum(self.counts[low:high]) + extra)
        if function == "min":
            return min(self.lows[low:high] if tail is None else [*self.lows[low:high], tail.low])
        if function == "max":
            return max(self.highs[low:high] if tail is None else [*self.highs[low:high], tail.high])
        last = self.lasts[high - 1] if tail is None else tail.last
        time_us, _, value = last
        return time_us if function == "last_at" else value
