"""One view's history as sorted arrays, where every window of every query is a pair of positions.

Events are sorted by (entity, time, id); the events of an entity in (start, T] are then positions [low, high), found for
all queries at once by binary search. Sums are differences of prefix sums, extremes come from a table of doubling
ranges. int64 throughout: an instant is replaced by its rank where two numbers must share one word.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from headway.errors import ContractViolation
from headway.features.definitions import FeatureView, Function

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]  # Any: int64 or float64, as the view declares
NEVER = np.iinfo(np.int64).min  # "no tick before": sorts before every tick


@dataclass(frozen=True, kw_only=True)
class Field:
    """The non-null values of one field in history order; ``before[i]`` of them lie before event i, shape (n + 1,)."""

    values: Numbers
    times_us: Ints
    before: Ints

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
        return np.append(source, source.dtype.type(0))[np.where(known, high - 1, -1)], known

    @cached_property
    def _totals(self) -> Ints:
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.values, dtype=np.int64)])

    def _extreme(self, function: Function, low: Ints, count: Ints) -> Numbers:
        """Cover each range by two ranges of the greatest power of two that fits; one doubling table row at a time."""
        pick = np.minimum if function == "min" else np.maximum
        found = np.zeros(len(low), dtype=self.values.dtype)
        level_of = np.frexp(count)[1] - 1  # floor(log2(count)); -1 for empty ranges
        row = self.values
        for level in range(int(level_of.max(initial=-1)) + 1):
            chosen = np.flatnonzero(level_of == level)
            start = low[chosen]
            found[chosen] = pick(row[start], row[start + count[chosen] - (1 << level)])
            row = pick(row[: -(1 << level)], row[1 << level :])
        return found


@dataclass(frozen=True)
class History:
    """Events of one view.

    Attributes:
        keys: one row per entity, sorted; its position is the entity's number.
        frame: the events with ``entity``, ``id``, ``time_us``, ``known_after_us`` (an answer knows the event iff its
            watermark is greater), ``field:<name>`` and the keys, sorted by (entity, time_us, id).
    """

    view: FeatureView
    keys: pl.DataFrame
    frame: pl.DataFrame

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
        if frame["id"].n_unique() < frame.height:  # first write wins inside a tile (S12)
            tile = -(-pl.col("time_us") // pl.lit(view.hop_us, pl.Int64))  # of its own accord `unique` panics on Int32
            frame = frame.unique([*view.keys, "id", tile], keep="first", maintain_order=True)
        keys = frame.select(view.keys).unique().sort(view.keys)
        numbered = keys.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("entity"))
        frame = frame.join(numbered, on=view.keys, how="left", maintain_order="left", validate="m:1")
        return cls(view, keys, frame.sort("entity", "time_us", "id"))

    def known_at(self, served_us: int, *, entities: Ints) -> "History":
        """Return only these entities' events that an answer under a watermark knew."""
        known = (pl.col("known_after_us") < served_us) & pl.col("entity").is_in(entities)
        return History(self.view, self.keys, self.frame.filter(known))

    @cached_property
    def entity(self) -> Ints:
        """Entity of each event, shape (n,)."""
        return self.frame["entity"].to_numpy()

    @cached_property
    def time_us(self) -> Ints:
        """Instant of each event, shape (n,)."""
        return self.frame["time_us"].to_numpy()

    @cached_property
    def _instants(self) -> Ints:
        return np.unique(self.time_us)

    @cached_property
    def _codes(self) -> Ints:
        return self._code(self.entity, self.time_us)

    def _code(self, entity: Ints, at_us: Ints) -> Ints:
        return entity * (len(self._instants) + 1) + np.searchsorted(self._instants, at_us, side="right")

    def position(self, entity: Ints, at_us: Ints) -> Ints:
        """Return how many events lie before or at (entity, instant) in the sort order."""
        return np.searchsorted(self._codes, self._code(entity, at_us), side="right")

    def first(self, entity: Ints) -> Ints:
        """Return the position of each entity's first event."""
        return np.searchsorted(self._codes, entity * (len(self._instants) + 1), side="right")

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
        column = self.frame[f"field:{name}"]
        known = column.is_not_null().to_numpy()
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(known, dtype=np.int64)])
        return Field(values=column.drop_nulls().to_numpy(), times_us=self.time_us[known], before=before)

    def row_instants(self, *, start_us: int, until_us: int) -> tuple[Ints, Ints]:
        """Return (entity, instant) of every changelog row in (start, until], sorted: events and expiries."""
        end_us = -(-self.time_us // self.view.hop_us) * self.view.hop_us
        instants = [self.time_us, *(end_us + window_us for window_us in self.view.windows_us)]
        rows = pl.DataFrame({"entity": np.tile(self.entity, len(instants)), "at_us": np.concatenate(instants)})
        rows = rows.filter(pl.col("at_us").is_between(start_us, until_us, closed="right")).unique()
        rows = rows.sort("entity", "at_us")
        return rows["entity"].to_numpy(), rows["at_us"].to_numpy()

    def newest_row(self, first: Ints, high: Ints, low: dict[int, Ints]) -> Ints:
        """Return the newest row's instant: the newest event, or the newest expiry of a window. Meaningless without."""
        padded = np.append(self.time_us, 0)
        newest = np.where(high > first, padded[high - 1], NEVER)
        for window_us, start in low.items():
            end_us = -(-padded[start - 1] // self.view.hop_us) * self.view.hop_us
            newest = np.where(start > first, np.maximum(newest, end_us + window_us), newest)
        return newest

    def latest_known_after(self, entity: Ints, as_of_us: Ints) -> Ints:
        """Return the latest ``known_after_us`` of an entity's events up to an instant; NEVER when there is none."""
        ticks = self.frame["known_after_us"].to_numpy()
        ranked = np.unique(ticks)
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
        known = pl.col(f"field:{field}").is_not_null() & (pl.col("time_us") <= until_us)
        rows = self.frame.with_row_index("at").filter(known).group_by("entity").agg(pl.col("at").last())
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
