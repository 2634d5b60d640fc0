"""Values of a view over history, vectorised: the backfill, the bootstrap and the judge of parity (SEMANTICS S6, S8, S11).

Reads lake events only, never a changelog. Bit-equal to the aggregator: sums are int64 prefix sums, a mean is one float
division, extremes come from ranges. What bites: queries of the served past need ``served_watermark_us``, the watermark
the answer was computed under, because an event counts only from the tick after it on.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import polars as pl

from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.ranges import Bools, History, Ints, Numbers
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
    time, a row is known when it happens), one column per feature, ``source`` ("backfill").
    """
    history = History.of(events, view, with_too_late=mode == "truth")
    entity, at_us = history.row_instants(start_us=start_us, until_us=until_us)
    return _rows(history, entity, at_us, _evaluate(history, entity, at_us))


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
    kept = past.frame.filter(pl.Series(needed))
    keys = kept.select(view.keys).rows()
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


def _evaluate(history: History, entity: Ints, at_us: Ints) -> pl.DataFrame:
    """Return all features, ``present`` and ``row_time_us`` for pairs of entity and instant."""
    view = history.view
    first = history.first(entity)
    high = history.position(entity, at_us)
    low = {w: history.position(entity, at_us - at_us % view.hop_us - w) for w in view.windows_us}
    columns, filled = [], np.zeros(len(entity), dtype=bool)
    for aggregate in view.aggregates:
        field = history.column(aggregate.field)
        since = first if aggregate.window is None else low[aggregate.window_us]
        values, known = field.reduce(aggregate.function, field.before[since], field.before[high])
        filled |= (values > 0) if aggregate.function == "count" else known
        columns.append(_series(aggregate.name, values, known))
    newest = history.newest_row(first, high, low)
    columns.append(pl.Series(PRESENT, filled))
    columns.append(_series(ROW_TIME, newest, high > first))
    return pl.DataFrame(columns)


def _series(name: str, values: Numbers, known: Bools) -> pl.Series:
    return pl.DataFrame({name: values, "known": known}).select(pl.when("known").then(name).alias(name))[name]
