"""A view's past as the stream job would have made it: the same aggregator, fed the lake's events in order, with ticks.

For comparing engines (S9), one event at a time: a year of flights takes minutes. The rows of a stream are right when its
ticks and events are, so this says nothing about brokers; the replay does.
"""

from collections.abc import Mapping

import polars as pl

from headway.drift import Window
from headway.features.changelog import DTYPES
from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.offline import EVENT_TIMESTAMP, Mode
from headway.features.tiles import Key, tile_of
from headway.features.windows import Row, ViewTask
from headway.lake import INSTANT

# What a task has changed is kept until it is asked for; nobody here writes it anywhere.
_FORGET_EVERY = 10_000


def streamed_rows(events: pl.DataFrame, view: FeatureView, window: Window, *, mode: Mode) -> pl.DataFrame:
    """Return keys, instant and features of the final rows of [from, until), sorted by key and instant.

    Args:
        events: the lake's columns, all that can show in the window.
        view: what to compute.
        window: which rows to return.
        mode: whether events that came too late count.
    """
    counted = pl.col("type") == view.source
    if mode == "as_served":
        counted &= pl.col("too_late").not_().fill_null(value=True)
    present = [pl.col(key).is_not_null() for key in view.keys]
    ordered = events.filter(counted, *present).sort("time", "id")
    final: dict[tuple[Key, int], Mapping[str, Value]] = {}

    def keep(rows: list[Row]) -> None:
        for row in rows:
            if window.from_us <= row.event_time_us < window.until_us:
                final[row.key, row.event_time_us] = row.values

    task, hop_us, tick_us = ViewTask(view, [0]), view.hop_us, None
    keys = list(map(tuple, ordered.select(pl.col(key).cast(pl.String) for key in view.keys).rows()))
    fields = ordered.select(list(view.fields)).rows(named=True) or [{}] * ordered.height
    places = zip(keys, ordered["id"], ordered["time"].dt.timestamp("us"), fields, strict=True)
    for revision, (key, event_id, time_us, values) in enumerate(places, start=1):
        before_us = (tile_of(time_us, hop_us) - 1) * hop_us
        if tick_us is None or before_us > tick_us:
            tick_us = before_us
            keep(task.on_tick(0, tick_us, revision=revision))
        keep(task.on_event(key, event_id, time_us, values, tick_before_us=tick_us, revision=revision))
        if revision % _FORGET_EVERY == 0:
            task.dirty_state()
    keep(task.on_tick(0, max(tick_us or 0, window.until_us - 1), revision=ordered.height + 1))
    return _frame(view, final)


def _frame(view: FeatureView, final: Mapping[tuple[Key, int], Mapping[str, Value]]) -> pl.DataFrame:
    rows = [(*key, at_us, *(values[name] for name in view.columns)) for (key, at_us), values in final.items()]
    schema = {
        **dict.fromkeys(view.keys, pl.String()),
        EVENT_TIMESTAMP: pl.Int64(),
        **{name: DTYPES[dtype] for name, dtype in view.columns.items()},
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col(EVENT_TIMESTAMP).cast(INSTANT)).sort(*view.keys, EVENT_TIMESTAMP)
