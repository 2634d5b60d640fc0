"""Name the event behind a parity mismatch: the first one that served and recomputed values disagree about (S8).

Hypotheses are tried on the whole vector of one view, from the most to the least exact: one event not counted, one
event counted that must not be, an older or a later row served, every event shifted by whole hours, an event the lake
does not have. The first that gives exactly the served vector wins. Where several events fit, the earliest one after
the entity's last matching prediction is named; what matched before was counted right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import polars as pl

from headway.clock import HOUR_US, floor_us, format_us
from headway.features.bruteforce import row_instants, values_at
from headway.features.cases import MAX_CANDIDATES, Case, LakeEvent, Position

Cause = Literal[
    "not-counted", "counted-too-soon", "counted-too-late", "older-row", "later-row", "shifted", "not-in-lake", "unknown"
]
# Zones differ by up to 14 hours; a shift that is no whole hour is found as the first event that could differ.
_MAX_SHIFT_H = 14
# Replays move by 15 minutes and writers run seconds ahead: a row from further in the future is no leak but a shift.
_MAX_LEAK_US = HOUR_US


@dataclass(frozen=True, kw_only=True)
class Offence:
    """The first offending event and what it explains.

    ``position`` is the event; for ``not-in-lake`` it is the offset that is missing (``event_id`` is then its left
    neighbour's); None when neither exists.
    """

    cause: Cause
    position: Position | None
    says: str


def first_offence(case: Case, lake: pl.DataFrame) -> Offence:
    """Return the first offending event of a mismatch; ``lake`` is searched for an offset gap as a last resort."""
    for search in (_not_counted, _counted, _other_row, _shifted):
        for offence in search(case):
            return offence
    return _not_in_lake(case, lake) or could_differ(case)


def could_differ(case: Case) -> Offence:
    """Return the first event, after the last match or in the widest window, after which values can differ."""
    suspects = case.suspects(case.events) or sorted(case.events, key=lambda e: abs(e.time_us - case.as_of_us))
    if not suspects:
        return Offence(cause="unknown", position=None, says="the lake has no event of this entity")
    return _offence("unknown", suspects[0], "first event after which served and recomputed values can differ")


def _offence(cause: Cause, event: LakeEvent, says: str) -> Offence:
    return Offence(cause=cause, position=Position.of(event), says=says)


def _not_counted(case: Case) -> Iterator[Offence]:
    known = case.known
    for event in case.suspects(known):
        if case.explained_by([e for e in known if e is not event], case.at_us):
            yield _offence("not-counted", event, "the served values are those without this event")


def _counted(case: Case) -> Iterator[Offence]:
    known = case.known
    for event in case.suspects([e for e in case.events if not e.known_at(case.served_us)]):
        if case.explained_by([*known, event], max(case.at_us, event.time_us)):
            if event.too_late:
                yield _offence("counted-too-late", event, "counted although it was beyond lateness")
            else:
                yield _offence("counted-too-soon", event, "counted although it came after the served watermark")


def _other_row(case: Case) -> Iterator[Offence]:
    instants = row_instants(case.view, case.events, until_us=case.as_of_us + _MAX_LEAK_US)
    for at_us in [at for at in instants if case.start_us < at < case.at_us][: -MAX_CANDIDATES - 1 : -1]:
        if case.explained_by(case.known, at_us):
            missed = case.suspects(e for e in case.known if e.time_us > at_us) or case.suspects(case.known)
            for event in missed[:1]:
                yield _offence(
                    "older-row", event, f"the served row is of {format_us(at_us)}, before this event counted"
                )
    for at_us in [at for at in instants if at > case.as_of_us][:MAX_CANDIDATES]:
        future = sorted((e for e in case.events if case.as_of_us < e.time_us <= at_us), key=lambda e: e.time_us)
        if future and case.explained_by(case.events, at_us):
            yield _offence("later-row", future[0], f"the served row is of {format_us(at_us)}, after the as-of")
    if case.explained_by([], case.at_us):
        for event in case.suspects(case.known)[:1]:
            yield _offence("older-row", event, "the served values are those of an entity without events")


def _shifted(case: Case) -> Iterator[Offence]:
    for hours in sorted((h for h in range(-_MAX_SHIFT_H, _MAX_SHIFT_H + 1) if h), key=abs):
        moved = [msgspec.structs.replace(e, time_us=e.time_us + hours * HOUR_US) for e in case.known]
        if case.explained_by(moved, case.at_us):
            for event in case.suspects(case.known)[:1]:
                yield _offence("shifted", event, f"the served values are those with every event {hours:+d} h away")


def _not_in_lake(case: Case, lake: pl.DataFrame) -> Offence | None:
    """Return the offset gap nearest to where the counts say that an event is missing."""
    expected = values_at(case.view, case.known, case.at_us)
    counts = [a for a in case.view.aggregates if a.function == "count"]
    over = [a.window_us for a in counts if (case.served[a.name] or 0) > (expected[a.name] or 0)]
    if not over:
        return None
    even = [a.window_us for a in counts if a.window_us < min(over)]
    starts = {w: floor_us(case.at_us - w, case.view.hop_us) for w in (*over, *even)}
    low_us = max(starts[min(over)], case.matched_us or 0)
    high_us = starts[max(even)] if even else case.as_of_us
    gaps = offset_gaps(lake).filter(pl.col("time_before") <= high_us, pl.col("time_after") > low_us)
    for gap in gaps.sort("ticked", "time_before", "topic", "partition").head(1).iter_rows(named=True):
        position = Position(
            event_id=gap["id"],
            time_us=gap["time_before"],
            topic=gap["topic"],
            partition=gap["partition"],
            offset=gap["offset"] + 1,
        )
        return Offence(
            cause="not-in-lake",
            position=position,
            says=f"the answer counted an event that the lake does not have; offset {position.offset} is missing after "
            f"event {gap['id']} ({gaps.height} gap{'s' if gaps.height > 1 else ''} between {format_us(low_us)} and "
            f"{format_us(high_us)}; transactions and ticks leave gaps too)",
        )
    return None


def offset_gaps(lake: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps between neighbouring offsets of lake events, one row each, named by the left neighbour.

    ``ticked`` says that a tick, which takes an offset too, lies between the neighbours.
    """
    place = ("topic", "partition")
    placed = lake.filter(pl.col("offset").is_not_null()).select(
        *place,
        "offset",
        "id",
        pl.col("time").dt.timestamp("us").alias("time_before"),
        pl.col("tick_before").dt.timestamp("us").fill_null(0).alias("tick"),
    )
    after = (pl.col(name).shift(-1).over(place).alias(f"{name}_after") for name in ("offset", "tick", "time_before"))
    ordered = placed.sort(*place, "offset").with_columns(after)
    gaps = ordered.filter(pl.col("offset_after") - pl.col("offset") > 1)
    return gaps.select(
        *place,
        "offset",
        "id",
        "time_before",
        pl.col("time_before_after").alias("time_after"),
        (pl.col("tick_after") > pl.col("tick")).alias("ticked"),
    )
