"""Where a bootstrap cuts the past from the stream: judgements over what the lake holds and the jobs have read (S11).

The bootstrap computes events up to T0, the stream brings those after it. What falls between is in no window, and no
later step can tell: so each way to fall between is refused here, before anything is written.
"""

from collections.abc import Iterable, Mapping

import polars as pl

from headway.clock import format_us, from_us, to_us
from headway.errors import PermanentFailure, TransientFailure
from headway.features.definitions import FeatureView
from headway.ports import TopicPartition


def cut_us(newest_event_us: int | None, watermarks_us: Iterable[int | None]) -> int:
    """Return the earliest T0 that nothing known lies behind: the newest event, or all views' watermark when newer.

    Raises:
        PermanentFailure: nothing is known: there is neither an event nor a watermark.
    """
    least = min((each for each in watermarks_us if each is not None), default=None)
    known = [each for each in (newest_event_us, least) if each is not None]
    if not known:
        raise PermanentFailure(
            "features bootstrap, --until: got none, and the lake has no events to take it from. Give the instant from "
            "which on the stream brings every event"
        )
    return max(known)


def check_loaded(passed: Mapping[TopicPartition, int], loaded: Mapping[TopicPartition, int]) -> None:
    """Refuse to cut while the lake lacks events that stage 1 has passed on: they come by no way any more.

    Raises:
        TransientFailure: says how many records the loader has to read yet.
    """
    waiting = sum(max(0, offset - loaded.get(place, 0)) for place, offset in passed.items())
    if waiting:
        raise TransientFailure(
            f"features bootstrap: the lake lacks up to {waiting} records that the feature job has read; let the lake "
            "loader run until it has them, and repeat"
        )


def check_cut(events: pl.DataFrame, passed: Mapping[TopicPartition, int], *, until_us: int) -> None:
    """Refuse a T0 that events lie behind which stage 1 has passed on: a bootstrapped window would lack them for good.

    Args:
        events: lake events after T0: ``time``, ``topic``, ``partition``, ``offset``.
        passed: the next offset that stage 1 reads, by partition of its input.
        until_us: T0.

    Raises:
        PermanentFailure: says how many there are, and the T0 that has none behind it.
    """
    gone = [
        to_us(time)
        for time, topic, partition, offset in events.select("time", "topic", "partition", "offset").iter_rows()
        if topic is not None and offset < passed.get(TopicPartition(topic, partition), 0)
    ]
    if gone:
        raise PermanentFailure(
            f"features bootstrap, --until: got {format_us(until_us)}, but the feature job has read {len(gone)} events "
            f"from after it, up to {format_us(max(gone))}, and does not read them again. Take that instant or a later "
            "one, or leave --until out"
        )


def check_whole_past(view: FeatureView, events: pl.DataFrame, *, first_row_us: int) -> None:
    """Refuse to bootstrap a version that the job began from nothing while its source had a past.

    Its first rows stand for windows that lack that past, with revisions that no backfill overtakes (S4).

    Args:
        view: a version whose state was not bootstrapped.
        events: lake events.
        first_row_us: instant of its first streamed row.

    Raises:
        PermanentFailure: says how many events it lacks, and the way out.
    """
    known = (pl.col("type") == view.source) & ~pl.col("too_late").fill_null(value=False)
    named = pl.all_horizontal(pl.col(key).is_not_null() for key in view.keys)
    lacking = events.filter(known & named & (pl.col("time") < from_us(first_row_us)))
    if not any(aggregate.window is None for aggregate in view.aggregates):
        reach_us = first_row_us - view.max_window_us - view.hop_us
        lacking = lacking.filter(pl.col("time") > from_us(reach_us))
    if lacking.height:
        raise PermanentFailure(
            f"features bootstrap: {view.qualified} was streamed from {format_us(first_row_us)} on without its past, "
            f"{lacking.height} events of its windows. Rows of half-filled windows stay in its changelog and its table. "
            f"Make it {view.name} version {view.version + 1}, and bootstrap that before the feature job runs it"
        )
