"""Which events of the lake a backfill reads: those that can show in its rows, slice by slice, and in parts of entities."""

import math
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from headway.clock import DAY_US, format_us, from_us
from headway.drift import Window
from headway.features.definitions import FeatureView
from headway.features.slices import Slice, reach_us, slices

EVENTS = "events"


def event_columns(views: Sequence[FeatureView]) -> list[str]:
    """Return the columns of the lake's events that the views' rows come from."""
    wanted = ["id", "type", "time", "topic", "tick_before", "too_late"]
    return list(dict.fromkeys(wanted + [name for view in views for name in (*view.keys, *view.fields)]))


def plan_slices(events: pl.LazyFrame, views: Sequence[FeatureView], window: Window, *, limit: int) -> list[Slice]:
    """Return the slices of a window, from how many events of the views' types there were each day."""
    return list(slices(_farthest(views), window, _events_by_day(events, views, window), limit=limit))


def reached_months(views: Sequence[FeatureView], window: Window) -> tuple[str, str]:
    """Return the first and the last month of events that can show in the rows of a window."""
    back_us = reach_us(_farthest(views))
    return "" if back_us is None else _month(window.from_us - back_us), _month(window.until_us - 1)


def reached(views: Sequence[FeatureView], window: Window) -> pl.Expr:
    """Return which events can show in the rows of a window: its own, and those its first windows look back on."""
    types = sorted({view.source for view in views})
    until = (pl.col("time") < from_us(window.until_us)) & pl.col("type").is_in(types)
    back_us = reach_us(_farthest(views))
    if back_us is None:
        return until
    first, last = reached_months(views, window)
    since = pl.col("time") > from_us(window.from_us - back_us)
    return pl.col("month").is_between(pl.lit(first), pl.lit(last)) & until & since


def parts_of(events: pl.LazyFrame, view: FeatureView, parts: int) -> Iterator[pl.DataFrame]:
    """Yield the events of the entities of each part, one after another, as all together are too many."""
    entity = pl.concat_str(pl.col(key).cast(pl.String) for key in view.keys)
    mine = events.filter(pl.col("type") == view.source)
    for part in range(parts):
        yield mine.filter(entity.hash() % parts == part).collect(engine="streaming")


def _farthest(views: Sequence[FeatureView]) -> FeatureView:
    """Return the view whose events are also all that the others look back on; None is for good."""
    return max(views, key=lambda view: math.inf if (back_us := reach_us(view)) is None else back_us)


def _events_by_day(events: pl.LazyFrame, views: Sequence[FeatureView], window: Window) -> Mapping[int, int]:
    day = pl.col("time").dt.timestamp("us") // DAY_US * DAY_US
    counted = events.filter(reached(views, window)).group_by(day.alias("day")).len()
    return dict(counted.collect(engine="streaming").iter_rows())


def _month(at_us: int) -> str:
    return format_us(at_us)[:7]
