"""The lake's table of a view's changelog: one row per (entity, instant, revision), streamed or backfilled.

Feast reads it as it is: ``event_timestamp`` is its time, ``created_timestamp`` a monotone function of the revision, so
that its join takes the last of equal instants (SEMANTICS S4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import polars as pl

from headway.clock import from_us
from headway.errors import ContractViolation
from headway.features.definitions import Dtype, FeatureView
from headway.features.wellformed import RESERVED
from headway.features.wire import decode_row
from headway.lake import INSTANT, LakeTable, as_table
from headway.ports import Message
from headway.ticks import is_watermark

DTYPES = {"int64": pl.Int64(), "float64": pl.Float64()}


class Columned(Protocol):
    """A view as a table sees it, whatever computes its rows."""

    @property
    def qualified(self) -> str:
        """Name with version."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What names the entity."""

    @property
    def columns(self) -> Mapping[str, Dtype]:
        """Features and their types."""


def changelog_table(view: Columned) -> LakeTable:
    """Return the table of a view: keys, instants, revision, one column per feature, and where the row came from.

    Raises:
        ContractViolation: a feature has the name of a key or of another column of the table.
    """
    features = {name: DTYPES[dtype] for name, dtype in view.columns.items()}
    if taken := sorted(features.keys() & {*view.keys, *RESERVED}):
        raise ContractViolation(f"view {view.qualified}, columns: got {taken}, wanted names that its table has not yet")
    return LakeTable(
        name=f"features.{view.qualified}",
        columns={
            **dict.fromkeys(view.keys, pl.String()),
            "event_timestamp": INSTANT,
            "created_timestamp": INSTANT,
            "revision": pl.Int64(),
            "known_at": INSTANT,
            **features,
            "source": pl.String(),
            "month": pl.String(),
            "topic": pl.String(),
            "partition": pl.Int64(),
            "offset": pl.Int64(),
        },
        partition_by=("month",),
        required=(*view.keys, "event_timestamp", "created_timestamp", "revision", "month"),
    )


def truth_table(view: FeatureView) -> LakeTable:
    """Return the table of what a view's values would have been, had nothing come too late; for analysis, never served."""
    served = changelog_table(view)
    return replace(served, name=f"truth.{view.qualified}")


def backfilled_rows(view: FeatureView, rows: pl.DataFrame, *, table: LakeTable | None = None) -> pl.DataFrame:
    """Return rows of ``offline.changelog`` in the table's columns; transport columns are null.

    A ``month`` that they have is kept: to format every instant takes longer than to compute its features.
    """
    return _fitted(rows, table or changelog_table(view))


def streamed_changelog(view: FeatureView, messages: Sequence[Message]) -> pl.DataFrame:
    """Return the rows in records of the view's changelog topic, in order; watermarks are left out."""
    schema = {
        **dict.fromkeys(view.keys, pl.String()),
        "event_timestamp": INSTANT,
        "revision": pl.Int64(),
        "known_at": INSTANT,
        **{name: DTYPES[dtype] for name, dtype in view.columns.items()},
        "topic": pl.String(),
        "partition": pl.Int64(),
        "offset": pl.Int64(),
    }
    names = tuple(view.columns)  # a view names its columns anew each time
    rows = []
    for message in messages:
        if is_watermark(message):
            continue
        row = decode_row(message.value or b"")
        known_at = None if row.known_at_us is None else from_us(row.known_at_us)
        values = [row.values[name] for name in names]
        place = (message.topic, message.partition, message.offset)
        rows.append((*row.key, from_us(row.event_time_us), row.revision, known_at, *values, *place))
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return _fitted(frame.with_columns(source=pl.lit("stream")), changelog_table(view))


def _fitted(rows: pl.DataFrame, table: LakeTable) -> pl.DataFrame:
    if "month" not in rows.columns:
        rows = rows.with_columns(month=pl.col("event_timestamp").dt.strftime("%Y-%m"))
    return as_table(rows.with_columns(created_timestamp=pl.col("revision").cast(INSTANT)), table)
