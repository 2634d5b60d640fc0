"""One entity's recent past in tiles, and the values of a view's windows over it (SEMANTICS S1, S9; ADR 0007).

Tiles are left-open, right-closed: an event of instant t is in tile ceil(t / hop). An open tile keeps its entries, so
that a late event can still correct every row; a sealed one keeps a partial per column. What bites: tuples of
(time, id) decide what is newest, never the order of arrival.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass

from headway.features.columns import READS, Column, Partial, Read, Stamped, Value, fold
from headway.features.definitions import Aggregate, FeatureView

Key = tuple[str, ...]
Entry = tuple[int, str, tuple[Value, ...]]  # (time_us, event id, values in the order of Plan.fields)
Window = tuple[int | None, tuple[tuple[str, Read], ...]]  # (tiles, None for last_ever; names and how each is read)


def tile_of(instant_us: int, hop_us: int) -> int:
    """Return the number of the tile that holds an instant: the k with (k-1) hop < instant <= k hop."""
    return -(-instant_us // hop_us)


def empty_values(view: FeatureView) -> dict[str, Value]:
    """Return what an entity without a row reads as: count 0, everything else null (S10)."""
    return {a.name: 0 if a.function == "count" else None for a in view.aggregates}


def is_present(view: FeatureView, values: Mapping[str, Value]) -> bool:
    """Whether any window of a row holds something; a row of empty windows reads like no row (S10)."""
    empty = empty_values(view)
    return any(values[name] != empty[name] for name in empty)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A view, prepared for the aggregator.

    Attributes:
        fields: the view's fields that aggregates read; column i + 1 of an entity holds fields[i], column 0 its events.
        summed: for each column, whether it holds integers that are added up.
        empty: the row of empty windows, all names in their order.
        windows: (column, its windows).
        ever: the columns of last_ever, each with its aggregate.
    """

    view: FeatureView
    hop_us: int
    fields: tuple[str, ...]
    summed: tuple[bool, ...]
    empty: dict[str, Value]
    windows: tuple[tuple[int, tuple[Window, ...]], ...]
    tiles_per_window: tuple[int, ...]
    ever: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, view: FeatureView) -> "Plan":
        """Return the plan of a view."""
        fields = tuple(dict.fromkeys(a.field for a in view.aggregates if a.field is not None))
        shared: dict[int, dict[int | None, list[tuple[str, Read]]]] = {}
        for aggregate in view.aggregates:
            column = 0 if aggregate.field is None else fields.index(aggregate.field) + 1
            window = shared.setdefault(column, {}).setdefault(_tiles(aggregate, view.hop_us), [])
            window.append((aggregate.name, READS[aggregate.function]))
        return cls(
            view=view,
            hop_us=view.hop_us,
            fields=fields,
            summed=(False, *(view.fields[field] == "int64" for field in fields)),
            empty=empty_values(view),
            windows=tuple(
                (column, tuple((window, tuple(reads)) for window, reads in windows.items()))
                for column, windows in shared.items()
            ),
            tiles_per_window=tuple(window_us // view.hop_us for window_us in view.windows_us),
            ever=tuple((fields.index(str(a.field)) + 1, a.name) for a in view.aggregates if a.window is None),
        )

    def entry(self, time_us: int, event_id: str, values: Mapping[str, Value]) -> Entry:
        """Return an event as a tile keeps it: only the fields the view reads, floats as floats."""
        kept = tuple(_typed(self.view, field, values.get(field)) for field in self.fields)
        return (time_us, event_id, kept)


def _tiles(aggregate: Aggregate, hop_us: int) -> int | None:
    return None if aggregate.window is None else aggregate.window_us // hop_us


def _typed(view: FeatureView, field: str, value: Value) -> Value:
    # Adding 0.0 makes -0.0 a 0.0: which of the two is the minimum would depend on the order of arrival.
    return value if value is None or view.fields[field] == "int64" else float(value) + 0.0


class EntityTiles:
    """The live tiles of one entity."""

    __slots__ = ("_columns", "_ids", "_open", "_plan", "ever")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._open: dict[int, list[Entry]] = {}
        self._ids: dict[int, set[str]] = {}
        self._columns = [Column() for _ in range(len(plan.fields) + 1)]
        self.ever: list[Stamped | None] = [None] * (len(plan.fields) + 1)  # newest value of dropped tiles

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to remember."""
        return not self._columns[0].ks and not any(self.ever)

    def add(self, entry: Entry) -> bool:
        """Take an event into its open tile; return False when the tile already has its id (first write wins)."""
        k = tile_of(entry[0], self._plan.hop_us)
        ids = self._ids.setdefault(k, set())
        if entry[1] in ids:
            return False
        ids.add(entry[1])
        entries = self._open.setdefault(k, [])
        insort(entries, entry)
        for index, column in enumerate(self._columns):
            value = _stamped(entry, index)
            if value is not None:
                column.absorb(k, value, summed=self._plan.summed[index])
        return True

    def load_sealed(self, k: int, partials: list[Partial | None]) -> None:
        """Restore a sealed tile."""
        for column, partial in zip(self._columns, partials, strict=True):
            if partial is not None:
                column.put(k, partial)

    def entries(self, k: int) -> list[Entry] | None:
        """Return the entries of an open tile in (time, id) order, None when it is sealed."""
        return self._open.get(k)

    def partials(self, k: int) -> list[Partial | None]:
        """Return a tile's partial of every column."""
        return [column.get(k) for column in self._columns]

    def seal(self, k: int) -> None:
        """Forget a tile's entries, keep its partials."""
        self._open.pop(k, None)
        self._ids.pop(k, None)

    def drop(self, k: int) -> bool:
        """Forget the oldest tile, a sealed one; return whether it left something that ``last_ever`` needs."""
        lasts = [column.drop_oldest(k) for column in self._columns]
        left = False
        for index, _ in self._plan.ever:
            last, known = lasts[index], self.ever[index]
            if last is not None and (known is None or last[:2] > known[:2]):
                self.ever[index] = last
                left = True
        return left

    def instants_from(self, start_us: int, watermark_us: int | None) -> list[int]:
        """Return the instants >= start at which the entity has rows: its events, and its expiries <= watermark."""
        hop_us, ks = self._plan.hop_us, self._columns[0].ks
        if (watermark_us is None or watermark_us < start_us) and self._open[ks[-1]][-1][0] == start_us:
            return [start_us]  # the newest event of a time that is not over: nothing lies behind it
        instants: set[int] = set()
        for k in ks[bisect_left(ks, tile_of(start_us, hop_us)) :]:
            instants.update(time_us for time_us, _, _ in self._open[k] if time_us >= start_us)
        if watermark_us is not None and watermark_us >= start_us:
            for tiles in self._plan.tiles_per_window:
                first = bisect_left(ks, tile_of(start_us, hop_us) - tiles)
                until = bisect_right(ks, watermark_us // hop_us - tiles)
                instants.update((k + tiles) * hop_us for k in ks[first:until])
        return sorted(instants)

    def has_event_at(self, boundary_us: int) -> bool:
        """Whether an event happened exactly at a tile's end; only asked while that tile is open."""
        entries = self._open.get(boundary_us // self._plan.hop_us)
        return entries is not None and entries[-1][0] == boundary_us

    def values_at(self, at_us: int) -> dict[str, Value]:
        """Return the row as of an instant whose own tile is still open."""
        floor = at_us // self._plan.hop_us
        entries = self._open.get(floor + 1)
        is_whole = entries is None or entries[-1][0] <= at_us
        tails = None if entries is None or is_whole or entries[0][0] > at_us else self._tails(entries, at_us)
        until = floor + 1 if is_whole else floor
        values = self._plan.empty.copy()
        for index, windows in self._plan.windows:
            column = self._columns[index]
            high = bisect_right(column.ks, until)
            tail = None if tails is None else tails[index]
            for window, reads in windows:
                low = 0 if window is None else bisect_right(column.ks, floor - window)
                if low == high and tail is None:
                    continue
                for name, read in reads:
                    values[name] = read(column, low, high, tail)
        for index, name in self._plan.ever:
            if values[name] is None and (ever := self.ever[index]) is not None:
                values[name] = ever[2]
        return values

    def _tails(self, entries: list[Entry], at_us: int) -> list[Partial | None]:
        """Return the partials of those entries of a tile that are not after the instant."""
        seen = entries[: bisect_right(entries, at_us, key=lambda entry: entry[0])]
        return [
            fold((s for entry in seen if (s := _stamped(entry, index)) is not None), summed=summed)
            for index, summed in enumerate(self._plan.summed)
        ]


def _stamped(entry: Entry, column: int) -> Stamped | None:
    time_us, event_id, values = entry
    if column == 0:
        return (time_us, event_id, time_us)
    value = values[column - 1]
    return None if value is None else (time_us, event_id, value)
