"""One view's history as sorted arrays, where every window of every query is a pair of positions.

Events are sorted by (entity, time, id); the events of an entity in (start, T] are then positions [low, high), found for
all queries at once by binary search. Sums are differences of prefix sums, extremes come from a table of doubling
ranges. int64 throughout: an instant is replaced by its rank where two numbers must share one word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from headway.errors import ContractViolation
from headway.features.definitions import FeatureView, Function
from headway.features.order import Ints, Scale, number_entities, order_events

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]  # Any: int64 or float64, as the view declares
NEVER = np.iinfo(np.int64).min  # "no tick before": sorts before every tick


@dataclass(frozen=True, kw_only=True)
class Field:
    """The non-null values of one field in history order; ``before[i]`` of them lie before event i, shape (n + 1,)."""

    values: Numbers
    times_us: Ints
    before: Ints

    @property
    def complete(self) -> bool:
        """Whether no event lacks the field, so that positions of events are positions of values."""
        return len(self.values) == len(self.before) - 1

    def reduce(self, function: Function, low: Ints, high: Ints) -> tuple[Numbers, Bools]:
        """Return one aggregate over value ranges [low, high), and where it is not null."""
        count = high - low
        known = count > 0
        if function == "count":
            return count, np.ones(len(count), dtype=np.bool_)
        if function in ("min", "max"):
            return self._extreme(function, low, count), known
        if function in ("sum", "mean"):
            total = self._totals[high] - self._totals[low]
            return (total if function == "sum" else total.astype(np.float64) / np.maximum(count, 1)), known
        source = self.times_us if function == "last_at" else self.values
        if not len(source):
            return np.zeros(len(count), dtype=source.dtype), known
        return source[np.where(known, high - 1, 0)], known

    @cached_property
    def _totals(self) -> Ints:
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.values, dtype=np.int64)])

    def _extreme(self, function: Function, low: Ints, count: Ints) -> Numbers:
        """Cover each range by two ranges of the greatest power of two that fits; one doubling table row at a time."""
        pick = np.minimum if function == "min" else np.maximum
        found = np.zeros(len(low), dtype=self.values.dtype)
        level_of = np.frexp(count)[1] - 1  # floor(log2(count)); -1 for empty ranges
        rows = self._doubled.setdefault(function, [self.values])
        for level in range(int(level_of.max(initial=-1)) + 1):
            if level == len(rows):
                half = 1 << (level - 1)
                rows.append(pick(rows[-1][:-half], rows[-1][half:]))
            chosen = np.flatnonzero(level_of == level)
            start = low[chosen]
            found[chosen] = pick(rows[level][start], rows[level][start + count[chosen] - (1 << level)])
        return found

    @cached_property
    def _doubled(self) -> dict[Function, list[Numbers]]:
        """Extremes of ranges of 1, 2, 4, ... values from every position on, as far as somebody asked."""
        return {}


@dataclass(frozen=True)
class History:
    """Events of one view.

    Attributes:
        keys: one row per entity, sorted; its position is the entity's number.
        scale: the order of (entity, instant).
        found: the events as they came, with ``entity``, ``id``, ``time_us``, ``known_after_us`` (an answer knows the
            event iff its watermark is greater) and ``field:<name>``.
        order: what sorts them by (entity, time_us, id). Columns are sorted when they are asked for: a backfill needs
            neither ids nor ticks.
    """

    view: FeatureView
    keys: pl.DataFrame
    scale: Scale
    found: pl.DataFrame
    order: Ints

    @classmethod
    def of(cls, events: pl.DataFrame, view: FeatureView, *, with_too_late: bool) -> "History":
        """Return the history of a view from lake events: its type, no null key, an id once per tile."""
        needed = {"type", "time", "id", "topic", "tick_before", "too_late", *view.keys, *view.fields}
        if missing := needed - set(events.columns):
            raise ContractViolation(
                f"events for {view.qualified}: no column {sorted(missing)} (found: {events.columns}). "
                f"Give rows of the lake's events table."
            )
        mine = pl.col("type") == view.source
        counted = mine if with_too_late else mine & pl.col("too_late").not_().fill_null(value=True)
        chosen = events.lazy().filter(counted, *(pl.col(key).is_not_null() for key in view.keys))
        frame = chosen.select(
            *(pl.col(key).cast(pl.String) for key in view.keys),
            "id",
            pl.col("time").dt.timestamp("us").alias("time_us"),
            _known_after().alias("known_after_us"),
            *(_typed(view, name).alias(f"field:{name}") for name in view.fields),
        ).collect()
        # Equal hashes are rare enough to look closer: repeats of an id, and one pair in 2^64.
        if frame["id"].hash().n_unique() < frame.height:  # first write wins inside a tile (S12)
            tile = -(-pl.col("time_us") // pl.lit(view.hop_us, pl.Int64))  # of its own accord `unique` panics on Int32
            frame = frame.unique([*view.keys, "id", tile], keep="first", maintain_order=True)
        keys, entity = number_entities(frame, view.keys)
        time_us = frame["time_us"].to_numpy()
        scale = Scale.of(time_us, entities=keys.height, beyond_us=view.max_window_us + view.hop_us)
        order = order_events(scale.place(entity, time_us), frame["id"])
        return cls(view, keys, scale, frame.drop(view.keys).with_columns(pl.Series("entity", entity)), order)

    def known_at(self, served_us: int, *, entities: Ints) -> "History":
        """Return only these entities' events that an answer under a watermark knew."""
        known = (pl.col("known_after_us") < served_us) & pl.col("entity").is_in(entities)
        chosen = self.found[self.order].filter(known)
        return History(self.view, self.keys, self.scale, chosen, np.arange(chosen.height))

    def sorted(self, column: str) -> pl.Series:
        """Return a column of the events in order."""
        return self.found[column].gather(pl.Series(self.order))

    @cached_property
    def entity(self) -> Ints:
        """Entity of each event, shape (n,)."""
        return self.found["entity"].to_numpy()[self.order]

    @cached_property
    def time_us(self) -> Ints:
        """Instant of each event, shape (n,)."""
        return self.found["time_us"].to_numpy()[self.order]

    @cached_property
    def places(self) -> Ints:
        """Return each event's place on the scale, shape (n,)."""
        return self.scale.place(self.entity, self.time_us)

    def position(self, entity: Ints, at_us: Ints) -> Ints:
        """Return how many events lie before or at (entity, instant) in the sort order."""
        return np.searchsorted(self.places, self.scale.place(entity, at_us), side="right")

    def window_starts(self, entity: Ints, at_us: Ints) -> dict[int, Ints]:
        """Return for each window the position of its first event, of pairs of entity and instant."""
        start_us = at_us - at_us % self.view.hop_us
        return {w: self.position(entity, start_us - w) for w in self.view.windows_us}

    def first(self, entity: Ints) -> Ints:
        """Return the position of each entity's first event."""
        starts = np.searchsorted(self.entity, np.arange(-1, self.keys.height), side="left")
        return starts[entity + 1]

    def entities_of(self, queries: pl.DataFrame) -> Ints:
        """Return the entity of each query; -1, which has no events, where the history does not know it."""
        numbered = self.keys.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("entity"))
        asked = queries.select(pl.col(key).cast(pl.String) for key in self.view.keys)
        found = asked.join(numbered, on=self.view.keys, how="left", maintain_order="left", validate="m:1")
        return found["entity"].fill_null(-1).to_numpy()

    def column(self, field: str | None) -> Field:
        """Return a field's values; the events themselves, by their instant, for None."""
        if field is None:
            return Field(values=self.time_us, times_us=self.time_us, before=np.arange(len(self.time_us) + 1))
        return self._fields[field]

    @cached_property
    def _fields(self) -> dict[str, Field]:
        return {name: self._field(name) for name in self.view.fields}

    def _field(self, name: str) -> Field:
        column = self.sorted(f"field:{name}")
        if not column.null_count():
            return Field(values=column.to_numpy(), times_us=self.time_us, before=np.arange(len(column) + 1))
        known = column.is_not_null().to_numpy()
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(known, dtype=np.int64)])
        return Field(values=column.drop_nulls().to_numpy(), times_us=self.time_us[known], before=before)

    def newest_row(self, first: Ints, high: Ints, low: Mapping[int, Ints]) -> Ints:
        """Return the newest row's instant: the newest event, or the newest expiry of a window. Meaningless without."""
        padded = np.append(self.time_us, 0)
        newest = np.where(high > first, padded[high - 1], NEVER)
        for window_us, start in low.items():
            end_us = -(-padded[start - 1] // self.view.hop_us) * self.view.hop_us
            newest = np.where(start > first, np.maximum(newest, end_us + window_us), newest)
        return newest

    def latest_known_after(self, entity: Ints, as_of_us: Ints) -> Ints:
        """Return the latest ``known_after_us`` of an entity's events up to an instant; NEVER when there is none."""
        ticks = self.sorted("known_after_us").to_numpy()
        ranked = pl.Series(ticks).unique().sort().to_numpy()
        width = len(ranked) + 1
        offset = self.entity * width
        running = np.maximum.accumulate(offset + np.searchsorted(ranked, ticks)) - offset
        high = self.position(entity, as_of_us)
        latest = np.append(ranked[running], NEVER)[high - 1] if len(ticks) else np.full(len(high), NEVER)
        return np.where(high > self.first(entity), latest, NEVER)

    def last_known_instant(self, entity: Ints, as_of_us: Ints, served_us: Ints) -> Ints:
        """Return the instant whose values were online: as_of, or behind it the watermark or the newest event."""
        high = self.position(entity, as_of_us)
        event_us = np.where(high > self.first(entity), np.append(self.time_us, NEVER)[high - 1], NEVER)
        return np.where(served_us >= as_of_us, as_of_us, np.maximum(served_us, event_us))

    def newest(self, field: str, until_us: int) -> Ints:
        """Return the positions of each entity's newest event with a non-null field, up to an instant."""
        known = self.sorted(f"field:{field}").is_not_null() & (pl.Series(self.time_us) <= until_us)
        events = pl.DataFrame({"entity": self.entity}).with_row_index("at").filter(known)
        rows = events.group_by("entity").agg(pl.col("at").last())
        return rows["at"].cast(pl.Int64).to_numpy()


def _known_after() -> pl.Expr:
    """Streamed: the tick before it in its partition. Bulk: just before its own instant (ADR 0006)."""
    bulk = pl.col("topic").is_null()
    unticked = pl.when(bulk).then(pl.col("time").dt.timestamp("us") - 1).otherwise(pl.lit(NEVER))
    return pl.col("tick_before").dt.timestamp("us").fill_null(unticked)


def _typed(view: FeatureView, field: str) -> pl.Expr:
    column = pl.col(field)
    # Adding 0.0 makes -0.0 a 0.0, as the aggregator does: a minimum must not depend on order.
    return column.cast(pl.Int64) if view.fields[field] == "int64" else column.cast(pl.Float64) + 0.0
