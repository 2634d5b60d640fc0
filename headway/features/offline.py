"""Values of a view over history, vectorised: the backfill, the bootstrap and the judge of parity (SEMANTICS S6, S8, S11).

Reads lake events only, never a changelog. Bit-equal to the aggregator: sums are int64 prefix sums, a mean is one float
division, extremes come from ranges. What bites: queries of the served past need ``served_watermark_us``, the watermark
the answer was computed under, because an event counts only from the tick after it on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from headway.features.changes import Changes
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.order import Ints
from headway.features.ranges import Bools, History, Numbers
from headway.features.tiles import Key

Mode = Literal["as_served", "truth"]
AS_OF, SERVED, PRESENT, ROW_TIME = "as_of_us", "served_watermark_us", "present", "row_time_us"
EVENT_TIMESTAMP, REVISION, KNOWN_AT, SOURCE = "event_timestamp", "revision", "known_at", "source"
_INSTANT = pl.Datetime("us", "UTC")


def values_at(events: pl.DataFrame, view: FeatureView, queries: pl.DataFrame, *, mode: Mode) -> pl.DataFrame:
    """Return a view's values for each query, in the queries' order.

    ``truth`` counts every event up to ``as_of_us``. ``as_served`` counts what an answer under watermark
    ``served_watermark_us`` could know: no too-late event, none that came after that watermark's tick, and, when the
    watermark is behind ``as_of_us``, no expiry beyond it (a window only expires when time is known to have passed).

    Args:
        events: the lake's columns.
        view: what to compute.
        queries: the view's key columns, ``as_of_us`` (int64) and, ``as_served``, ``served_watermark_us`` (int64).
        mode: whose knowledge counts.

    Returns:
        Key columns, ``as_of_us``, one column per feature, ``present`` (some window is not empty, S10) and
        ``row_time_us`` (instant of the newest changelog row not after as_of; null when there is none).
    """
    history = History.of(events, view, with_too_late=mode == "truth")
    entity = history.entities_of(queries)
    as_of = queries[AS_OF].cast(pl.Int64).to_numpy()
    if mode == "truth":
        values = _evaluate(history, entity, as_of)
    else:
        values = _as_served(history, entity, as_of, queries[SERVED].cast(pl.Int64).to_numpy())
    return queries.select(*view.keys, AS_OF).hstack(values)


def changelog(
    events: pl.DataFrame, view: FeatureView, *, start_us: int, until_us: int, mode: Mode = "as_served"
) -> pl.DataFrame:
    """Return all changelog rows in (start, until], sorted by key and instant, as the job would finally have them.

    Columns: the view's keys (strings), ``event_timestamp``, ``revision`` (0), ``known_at`` (the row's own instant: on
    time, a row is known when it happens; null in ``truth``, which nobody knew then), one column per feature, ``source``
    ("backfill").
    """
    [rows] = changelogs(events, view, bounds_us=[start_us, until_us], mode=mode)
    return rows


def changelogs(
    events: pl.DataFrame, view: FeatureView, *, bounds_us: Sequence[int], mode: Mode = "as_served"
) -> Iterator[pl.DataFrame]:
    """Yield the changelog rows between each bound and the next, as ``changelog`` does, from one history."""
    history = History.of(events, view, with_too_late=mode == "truth")
    changes = Changes.of(history, start_us=bounds_us[0], until_us=bounds_us[-1])
    stretch = np.searchsorted(np.asarray(bounds_us[1:-1], dtype=np.int64), changes.at_us, side="left").astype(np.int16)
    for number in range(len(bounds_us) - 1):
        found = changes.at(np.flatnonzero(stretch == number))
        windows = _Windows(history.first(found.entity), found.high, found.low)
        rows = _rows(history, found.entity, found.at_us, _features(history, windows))
        yield rows if mode == "as_served" else rows.with_columns(pl.lit(None, dtype=_INSTANT).alias(KNOWN_AT))


def last_rows(events: pl.DataFrame, view: FeatureView, *, until_us: int) -> pl.DataFrame:
    """Return the newest changelog row of every key as of an instant, in the columns of ``changelog``.

    Keys whose windows have all expired are included: their newest row says count 0, where no row would read as null
    through Feast's SDK.
    """
    history = History.of(events, view, with_too_late=False)
    entity = np.arange(history.keys.height, dtype=np.int64)
    values = _evaluate(history, entity, np.full(len(entity), until_us, dtype=np.int64))
    seen = values[ROW_TIME].is_not_null()
    values, entity = values.filter(seen), entity[seen.to_numpy()]
    return _rows(history, entity, values[ROW_TIME].to_numpy(), values)


def bootstrap_history(
    events: pl.DataFrame, view: FeatureView, *, until_us: int
) -> Iterator[tuple[Key, str, int, Mapping[str, Value]]]:
    """Yield what ``ViewTask.bootstrap`` needs of the past.

    That is every event a live tile holds, and for ``last_ever`` the newest value older than those: a late event can
    still ask for rows from before an entity's newest event.
    """
    past = History.of(events, view, with_too_late=False)
    oldest_us = until_us - view.lateness_us - view.max_window_us - view.hop_us
    needed = (past.time_us > oldest_us) & (past.time_us <= until_us)
    for aggregate in view.aggregates:
        if aggregate.function == "last_ever":
            needed[past.newest(str(aggregate.field), oldest_us)] = True
    kept = past.found[past.order].filter(pl.Series(needed))
    keys = past.keys[kept["entity"]].select(view.keys).rows()
    values = kept.select(pl.col(f"field:{field}").alias(field) for field in view.fields).rows(named=True)
    yield from zip(keys, kept["id"], kept["time_us"], values or [{}] * kept.height, strict=True)


def _rows(history: History, entity: Ints, at_us: Ints, values: pl.DataFrame) -> pl.DataFrame:
    keys = history.keys[entity].select(history.view.keys)
    instant = pl.Series(at_us).cast(_INSTANT)
    return keys.with_columns(
        instant.alias(EVENT_TIMESTAMP),
        pl.lit(0, dtype=pl.Int64).alias(REVISION),
        instant.alias(KNOWN_AT),
        *values.select(list(history.view.columns)),
        pl.lit("backfill").alias(SOURCE),
    )


def _as_served(history: History, entity: Ints, as_of: Ints, served: Ints) -> pl.DataFrame:
    """Answer most queries from the whole history, and those that later knowledge touches from what was known."""
    touched = history.latest_known_after(entity, as_of) >= served
    values = _evaluate(history, entity, history.last_known_instant(entity, as_of, served))
    if not touched.any():
        return values
    parts, rows = [values.filter(pl.Series(~touched))], [np.flatnonzero(~touched)]
    for served_us in np.unique(served[touched]):
        chosen = np.flatnonzero(touched & (served == served_us))
        known = history.known_at(int(served_us), entities=np.unique(entity[chosen]))
        at_us = known.last_known_instant(entity[chosen], as_of[chosen], served[chosen])
        parts.append(_evaluate(known, entity[chosen], at_us))
        rows.append(chosen)
    return pl.concat(parts)[np.argsort(np.concatenate(rows))]


@dataclass(frozen=True)
class _Windows:
    """Positions of pairs of entity and instant: events [first, high) are the entity's so far, [low, high) the window's."""

    first: Ints
    high: Ints
    low: Mapping[int, Ints]

    @classmethod
    def of(cls, history: History, entity: Ints, at_us: Ints) -> "_Windows":
        return cls(history.first(entity), history.position(entity, at_us), history.window_starts(entity, at_us))

    def read(self, history: History, aggregate: Aggregate) -> tuple[Numbers, Bools]:
        """Return an aggregate's values, and where they are not null."""
        field = history.column(aggregate.field)
        since = self.first if aggregate.window is None else self.low[aggregate.window_us]
        if field.complete:
            return field.reduce(aggregate.function, since, self.high)
        return field.reduce(aggregate.function, field.before[since], field.before[self.high])


def _features(history: History, windows: _Windows) -> pl.DataFrame:
    return _nullable({a.name: windows.read(history, a) for a in history.view.aggregates})


def _evaluate(history: History, entity: Ints, at_us: Ints) -> pl.DataFrame:
    """Return all features, ``present`` and ``row_time_us`` for pairs of entity and instant."""
    windows = _Windows.of(history, entity, at_us)
    columns, filled = dict[str, tuple[Numbers, Bools]](), np.zeros(len(entity), dtype=np.bool_)
    for aggregate in history.view.aggregates:
        values, known = columns[aggregate.name] = windows.read(history, aggregate)
        filled |= (values > 0) if aggregate.function == "count" else known
    newest = history.newest_row(windows.first, windows.high, windows.low)
    columns[PRESENT] = filled, np.ones(len(entity), dtype=np.bool_)
    columns[ROW_TIME] = newest, windows.high > windows.first
    return _nullable(columns)


def _nullable(columns: Mapping[str, tuple[Numbers, Bools]]) -> pl.DataFrame:
    """Return a frame of values, null where they are not known."""
    unknown = {f"{name}?": known for name, (_, known) in columns.items() if not known.all()}
    frame = pl.DataFrame({name: values for name, (values, _) in columns.items()} | unknown)
    return frame.select(pl.when(f"{name}?").then(name) if f"{name}?" in unknown else name for name in columns)
