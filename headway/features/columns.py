"""Partials of tiles, merged into windows: the arithmetic of the incremental aggregator (SEMANTICS S9).

A column is one field of one entity, by tile. What bites: tuples of (time, id) decide what is newest, never the order
of arrival.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

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
    """Partials of one column by tile, ascending, as parallel lists.

    ``counts`` and ``totals`` run on from tile to tile and have one number more, which stands before the first: what
    tiles [low, high) hold is the difference of two, however wide the window. Exact, as only integers are summed (S9).
    """

    __slots__ = ("counts", "highs", "ks", "lasts", "lows", "totals")

    def __init__(self) -> None:
        self.ks: list[int] = []
        self.counts: list[int] = [0]
        self.totals: list[int] = [0]
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
        self._raise_from(at, 1, amount)
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
        self.counts.insert(at + 1, self.counts[at] + count)
        self.totals.insert(at + 1, self.totals[at] + total)
        self.lows.insert(at, low)
        self.highs.insert(at, high)
        self.lasts.insert(at, last)
        if at + 1 < len(self.ks):
            self._raise_from(at + 1, count, total)

    def _raise_from(self, at: int, count: int, total: int) -> None:
        """Count more in tile ``at``, and so up to every later one; there are none, but for late events."""
        for after in range(at + 1, len(self.counts)):
            self.counts[after] += count
            self.totals[after] += total

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
        count, total = self.counts[at + 1] - self.counts[at], self.totals[at + 1] - self.totals[at]
        return Partial(count, total, self.lows[at], self.highs[at], self.lasts[at])

    def drop_oldest(self, k: int) -> Stamped | None:
        """Forget tile k, before which there is none any more; return the newest value it held, if it held one."""
        if not self.ks or self.ks[0] != k:
            return None
        del self.ks[0], self.counts[0], self.totals[0], self.lows[0], self.highs[0]
        return self.lasts.pop(0)

    def count(self, low: int, high: int, tail: Partial | None) -> int:
        """Return how many values there are."""
        counts = self.counts
        return counts[high] - counts[low] + (0 if tail is None else tail.count)

    def sum(self, low: int, high: int, tail: Partial | None) -> int:
        """Return the sum of integers."""
        totals = self.totals
        return totals[high] - totals[low] + (0 if tail is None else tail.total)

    def mean(self, low: int, high: int, tail: Partial | None) -> float:
        """Return the mean of integers."""
        # A float before dividing: what the vectorised engine does, bit for bit (S9).
        return float(self.sum(low, high, tail)) / self.count(low, high, tail)

    def min(self, low: int, high: int, tail: Partial | None) -> Value:
        """Return the least value."""
        return min(self.lows[low:high] if tail is None else [*self.lows[low:high], tail.low])

    def max(self, low: int, high: int, tail: Partial | None) -> Value:
        """Return the greatest value."""
        return max(self.highs[low:high] if tail is None else [*self.highs[low:high], tail.high])

    def last(self, low: int, high: int, tail: Partial | None) -> Value:  # noqa: ARG002  # read like the others
        """Return the newest value."""
        return self.lasts[high - 1][2] if tail is None else tail.last[2]

    def last_at(self, low: int, high: int, tail: Partial | None) -> int:  # noqa: ARG002  # read like the others
        """Return when the newest value was."""
        return self.lasts[high - 1][0] if tail is None else tail.last[0]


# How a function reads tiles [low, high) of a column and the open end ``tail``, which hold at least one value.
Read = Callable[[Column, int, int, Partial | None], Value]
READS: Mapping[Function, Read] = {
    "count": Column.count,
    "sum": Column.sum,
    "mean": Column.mean,
    "min": Column.min,
    "max": Column.max,
    "last": Column.last,
    "last_at": Column.last_at,
    "last_ever": Column.last,
}
