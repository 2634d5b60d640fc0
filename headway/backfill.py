"""The changelog of a view's past, written to the lake: the rows of a window become exactly those that events imply.

`as_served` is the past as it was known, for training and parity; it goes into the view's own table, beside the rows that
streamed, which are never touched. `truth` counts what came too late as well; it goes into a table of its own, which
nothing serves. A repeat changes nothing, and a run that was cut short leaves whole slices, right ones: repeat it.

Memory does not grow with history (`headway.features.slices`). What bites: Spark and this process write the same rows, so
two runs over the same window at once refuse each other's commits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headway.backfill_events import EVENTS, event_columns, parts_of, plan_slices, reached
from headway.clock import from_us
from headway.drift import Window
from headway.features.changelog import backfilled_rows, changelog_table, truth_table
from headway.features.definitions import FeatureView
from headway.features.offline import Mode, changelogs
from headway.features.slices import SLICE_EVENTS, Slice, months
from headway.lake import LakeTable

if TYPE_CHECKING:
    from headway.adapters.delta import Lake


@dataclass(frozen=True, kw_only=True)
class Backfilled:
    """What a backfill of one view wrote."""

    view: str
    table: str
    rows: int
    slices: int
    events: int


def backfill(lake: "Lake", view: FeatureView, window: Window, *, mode: Mode, limit: int = SLICE_EVENTS) -> Backfilled:
    """Make a view's rows of [from, until) exactly those the lake's events imply, in this process.

    Streamed rows stay, whatever they say: of one instant the greater revision counts, and theirs is greater.
    """
    [done] = backfill_together(lake, [view], window, mode=mode, limit=limit)
    return done


def backfill_together(
    lake: "Lake",
    views: Sequence[FeatureView],
    window: Window,
    *,
    mode: Mode,
    limit: int = SLICE_EVENTS,
    at_once: int = 1,
) -> list[Backfilled]:
    """Do the same for several views, so many at once, from events that are read once.

    A view that remembers for good has all events read that there ever were: give it alone.
    """
    events = lake.scan(EVENTS)
    planned = plan_slices(events, views, window, limit=limit)
    for view in views:
        lake.create(table_of(view, mode))
    rows, read = Counter[str](), Counter[str]()
    with ThreadPoolExecutor(at_once, thread_name_prefix="backfill") as pool:
        for piece in planned:
            found = events.filter(reached(views, piece.window)).select(event_columns(views))
            make = _SliceMaker(lake=lake, mode=mode, piece=piece, events=found, whole=_whole(found, piece, views))
            for view, (made, seen) in zip(views, pool.map(make, views), strict=True):
                rows[view.qualified] += made
                read[view.qualified] += seen
    return [
        Backfilled(
            view=view.qualified,
            table=table_of(view, mode).name,
            rows=rows[view.qualified],
            slices=len(planned),
            events=read[view.qualified],
        )
        for view in views
    ]


@dataclass(frozen=True, kw_only=True)
class _SliceMaker:
    """Makes the rows of a slice, one view after another or several at once."""

    lake: "Lake"
    mode: Mode
    piece: Slice
    events: pl.LazyFrame
    whole: Mapping[str, pl.DataFrame] | None

    def __call__(self, view: FeatureView) -> tuple[int, int]:
        """Write and commit a view's rows; return how many they are, and from how many events."""
        from headway.adapters.delta_files import staging

        read = 0
        with staging(self.lake) as folder:
            for part, found in enumerate(self._parts(view)):
                write_part(found, view, self.piece.window, mode=self.mode, folder=folder, part=part)
                read += found.height
            table = table_of(view, self.mode)
            return commit_slice(self.lake, table.name, self.piece, folder, first_part=0), read

    def _parts(self, view: FeatureView) -> Iterable[pl.DataFrame]:
        if self.whole is None:
            return parts_of(self.events, view, self.piece.parts)
        return [self.whole[view.source]]


def _whole(events: pl.LazyFrame, piece: Slice, views: Sequence[FeatureView]) -> Mapping[str, pl.DataFrame] | None:
    """Return a slice's events by type; None when they are to be read in parts, as each view has its own."""
    if piece.parts > 1:
        return None
    found = events.collect(engine="streaming")
    return {name: found.filter(pl.col("type") == name) for name in sorted({view.source for view in views})}


def table_of(view: FeatureView, mode: Mode) -> LakeTable:
    """Return where the rows of a mode belong."""
    return changelog_table(view) if mode == "as_served" else truth_table(view)


def write_part(events: pl.DataFrame, view: FeatureView, window: Window, *, mode: Mode, folder: Path, part: int) -> int:
    """Write the rows of [from, until) to a file a month and return how many there are.

    Every engine calls this, so all are bit-equal (S9). Twice gives the same files under the same names, and a file is
    whole when it is there. Months without rows have none.
    """
    from headway.adapters.delta_files import write_file

    table, stretches, count = table_of(view, mode), list(months(window)), 0
    # `changelogs` takes (start, until], a window is [from, until).
    bounds_us = [window.from_us - 1, *(stretch.until_us - 1 for _, stretch in stretches)]
    made = changelogs(events, view, bounds_us=bounds_us, mode=mode)
    for (month, _), found in zip(stretches, made, strict=True):
        if found.height:
            rows = backfilled_rows(view, found.with_columns(month=pl.lit(month)), table=table)
            write_file(rows.drop("month"), part_file(folder, month, part), required=table.required)
            count += rows.height
    return count


def commit_slice(lake: "Lake", table: str, piece: Slice, folder: Path, *, first_part: int) -> int:
    """Replace the rows of a slice by those that its parts have put into the folder; return how many came."""
    from headway.adapters.delta_files import replace_rows

    named = [month for month, _ in months(piece.window)]
    files = ((m, part_file(folder, m, first_part + part)) for m in named for part in range(piece.parts))
    made = [(month, file) for month, file in files if file.exists()]
    return replace_rows(lake, table, made, going=_replaced(piece.window), months=named)


def part_file(folder: Path, month: str, part: int) -> Path:
    """Return where the rows of a month of a part are until they are committed."""
    return folder / month / f"part-{part:05}.parquet"


def _replaced(window: Window) -> pl.Expr:
    inside = pl.col("event_timestamp").is_between(from_us(window.from_us), from_us(window.until_us), closed="left")
    return (pl.col("source") == "backfill") & inside
