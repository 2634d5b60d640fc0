"""The feature backfill on Spark: the same slices, the same functions, the same table as in process, so the same bits (S9).

Spark reads the events, sends each to the part of its entity, and runs `write_part` on every part in a Python worker. There
is no Delta reader for this Spark, so the driver lists the files of the table's newest version and Spark reads those; a
table whose files alone do not say what is in it (deletion vectors, mapped columns) is refused. Values of partition
columns are not in the files and are not asked for.

Workers write Parquet files below the lake, which executors must therefore see where the driver sees it; the driver
commits their names slice by slice. A task that runs twice writes its files twice, under the same names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.delta_files import plain_files, staging
from headway.backfill import Backfilled, commit_slice, table_of, write_part
from headway.backfill_events import EVENTS, event_columns, plan_slices, reached_months
from headway.drift import Window
from headway.features.definitions import FeatureView
from headway.features.offline import Mode
from headway.features.slices import SLICE_EVENTS, Slice
from headway.lake import INSTANT

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_SPARK_TYPES: Mapping[pl.DataType, str] = {
    pl.String(): "string",
    pl.Int64(): "bigint",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    INSTANT: "timestamp",
}
# Parts for every core, so that a core whose entities are few is not idle to the end.
_PARTS_PER_CORE = 2
# Of Arrow, to a Python worker; Spark's own 10,000 is made for wider rows.
_BATCH_ROWS = 100_000


def backfill_on_spark(
    session: "SparkSession",
    lake: Lake,
    view: FeatureView,
    window: Window,
    *,
    mode: Mode,
    limit: int = SLICE_EVENTS,
) -> Backfilled:
    """Make a view's rows of [from, until) exactly those the lake's events imply; see `headway.backfill.backfill`.

    Raises:
        ContractViolation: the table of events uses what its files alone do not tell.
    """
    table = table_of(view, mode)
    lake.create(table)
    planned = _spread(
        plan_slices(lake.scan(EVENTS), [view], window, limit=limit), cores=session.sparkContext.defaultParallelism
    )
    first = _first_parts(planned)
    files = plain_files(lake, EVENTS, months=reached_months([view], window))
    with staging(lake) as folder:
        if files:
            make = PartWriter(view=view, mode=mode, windows=_windows(planned), folder=str(folder))
            parts = _parted(_events(session, lake, view, files), view, planned, first)
            parts.mapInArrow(make, "part int, rows bigint").collect()
        count = commit_parts(lake, table.name, planned, folder)
    events = sum(piece.events for piece in planned)
    return Backfilled(view=view.qualified, table=table.name, rows=count, slices=len(planned), events=events)


def commit_parts(lake: Lake, table: str, planned: Sequence[Slice], folder: Path) -> int:
    """Replace the rows of each slice by those that its parts have put into the folder; return how many came."""
    places = zip(planned, _first_parts(planned), strict=True)
    return sum(commit_slice(lake, table, piece, folder, first_part=first) for piece, first in places)


@dataclass(frozen=True, kw_only=True)
class PartWriter:
    """What a Python worker does with one part: its events in, its rows in files, their number out."""

    view: FeatureView
    mode: Mode
    windows: Sequence[Window]
    folder: str

    def __call__(self, batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        """Take all events of a part; give its number and how many rows it made. A part without events makes none."""
        import pyarrow as pa

        taken = list(batches)
        if not sum(len(batch) for batch in taken):
            return
        events = pl.DataFrame(pa.Table.from_batches(taken))
        part = int(events["part"][0])
        rows = write_part(
            events.drop("part"), self.view, self.windows[part], mode=self.mode, folder=Path(self.folder), part=part
        )
        yield pa.RecordBatch.from_pydict({"part": pa.array([part], pa.int32()), "rows": pa.array([rows])})


def _spread(planned: Sequence[Slice], *, cores: int) -> list[Slice]:
    """Return the slices in enough parts to keep all cores busy."""
    times = -(-_PARTS_PER_CORE * cores // max(1, sum(piece.parts for piece in planned)))
    return [replace(piece, parts=piece.parts * times) for piece in planned]


def _first_parts(planned: Sequence[Slice]) -> list[int]:
    starts = [0]
    for piece in planned:
        starts.append(starts[-1] + piece.parts)
    return starts[:-1]


def _windows(planned: Sequence[Slice]) -> list[Window]:
    return [piece.window for piece in planned for _ in range(piece.parts)]


def _events(session: "SparkSession", lake: Lake, view: FeatureView, files: Sequence[Path]) -> "DataFrame":
    from pyspark.sql import functions as f

    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(_BATCH_ROWS))
    types = lake.scan(EVENTS).collect_schema()
    columns = event_columns([view])
    layout = ", ".join(f"`{name}` {_SPARK_TYPES[types[name]]}" for name in columns)
    read = session.read.schema(layout).parquet(*(str(file) for file in files))
    return read.filter(f.col("type") == view.source)


def _parted(events: "DataFrame", view: FeatureView, planned: Sequence[Slice], first: Sequence[int]) -> "DataFrame":
    """Send each event to every slice in whose rows it can show, there to the part of its entity."""
    from pyspark.sql import functions as f

    session = events.sparkSession
    rows = [
        (piece.since_us, piece.window.until_us, start, piece.parts) for piece, start in zip(planned, first, strict=True)
    ]
    stretches = session.createDataFrame(rows, "since_us bigint, until_us bigint, start int, parts int")
    at_us = f.unix_micros("time")
    reached = (f.col("since_us").isNull() | (at_us > f.col("since_us"))) & (at_us < f.col("until_us"))
    entity = f.xxhash64(*(f.col(key).cast("string") for key in view.keys))
    part = (f.col("start") + f.pmod(entity, f.col("parts"))).cast("int")
    joined = events.join(f.broadcast(stretches), reached).withColumn("part", part)
    total = sum(piece.parts for piece in planned)
    return joined.select("part", *event_columns([view])).repartitionById(total, "part")
