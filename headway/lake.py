"""The lake's tables as values: names, column types, partitions; derived from a domain, independent of any engine.

One layout serves bulk history and the stream: what differs between them are the transport columns, null in bulk rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from headway.clock import from_us, parse_instant_us
from headway.contracts import ColumnType, Domain
from headway.errors import ContractViolation
from headway.events import Event

INSTANT = pl.Datetime("us", "UTC")
POLARS_TYPES: Mapping[ColumnType, pl.DataType] = {
    "string": pl.String(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "timestamp": INSTANT,
}
_ENVELOPE: Mapping[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "type": pl.String(),
    "subject": pl.String(),
    "time": INSTANT,
    "planted": pl.String(),
    "enrichmentversion": pl.String(),
}
# Where a streamed row came from; all null in bulk rows. `topic` says which of the two a row is.
TRANSPORT: Mapping[str, pl.DataType] = {
    "receivedat": INSTANT,
    "collectorid": pl.String(),
    "requestid": pl.String(),
    "eventsize": pl.Int64(),
    "topic": pl.String(),
    "partition": pl.Int64(),
    "offset": pl.Int64(),
    "raw_partition": pl.Int64(),
    "raw_offset": pl.Int64(),
    "tick_before": INSTANT,
    "too_late": pl.Boolean(),
}


@dataclass(frozen=True, kw_only=True)
class LakeTable:
    """One table of the lake: its columns are fixed, in this order.

    Attributes:
        name: as in DESIGN 6, e.g. ``events`` or ``features.origin_delay.v1``.
        partition_by: columns whose values name folders; a reader that filters on them skips the rest.
        required: columns that are never null.
    """

    name: str
    columns: Mapping[str, pl.DataType]
    partition_by: tuple[str, ...] = ()
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [c for c in (*self.partition_by, *self.required) if c not in self.columns]
        if unknown:
            raise ContractViolation(f"lake table {self.name}: no column {unknown} (found: {list(self.columns)})")


@dataclass(frozen=True, kw_only=True)
class Transport:
    """How one enriched event came: its place in ``events.enriched``, its raw record, and the tick before it.

    Attributes:
        tick_before_us: the last tick seen in its own partition before it; None before the first tick.
        too_late: whether it is older than that tick minus its contract's lateness (ADR 0006).
    """

    topic: str
    partition: int
    offset: int
    raw_partition: int
    raw_offset: int
    tick_before_us: int | None
    too_late: bool


def events_table(domain: Domain) -> LakeTable:
    """Return the ``events`` table of a domain, partitioned by the month (UTC) of the event's time."""
    body = {name: POLARS_TYPES[kind] for name, kind in domain.columns.items()}
    clash = sorted(body.keys() & {*_ENVELOPE, *TRANSPORT, "month"})
    if clash:
        raise ContractViolation(
            f"domain {domain.name}: {clash} are columns of the event envelope; rename the body fields or enrichment"
        )
    return LakeTable(
        name="events",
        columns={**_ENVELOPE, **body, "month": pl.String(), **TRANSPORT},
        partition_by=("month",),
        required=("id", "source", "type", "subject", "time", "month"),
    )


def as_table(frame: pl.DataFrame, table: LakeTable) -> pl.DataFrame:
    """Return the frame with exactly the table's columns, in order; absent ones become null, ``month`` is derived.

    Raises:
        ContractViolation: the frame has a column the table does not know.
    """
    unknown = sorted(set(frame.columns) - set(table.columns))
    if unknown:
        raise ContractViolation(f"lake table {table.name}: no column {unknown} (found: {list(table.columns)})")
    if "month" in table.columns and "month" not in frame.columns:
        frame = frame.with_columns(month=pl.col("time").dt.strftime("%Y-%m"))
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in table.columns.items()
    )


def streamed_rows(domain: Domain, enriched: Sequence[tuple[Event, Transport]]) -> pl.DataFrame:
    """Return the ``events`` rows of enriched events as they came from the log, in the order given.

    Raises:
        InputRejected: a body's timestamp is no RFC 3339 instant; the Validator lets none pass.
    """
    table = events_table(domain)
    body = domain.columns
    rows: list[tuple[Any, ...]] = []
    for event, transport in enriched:
        data = event.data
        rows.append(
            (
                event.id,
                event.source,
                event.type,
                event.subject,
                from_us(event.time_us),
                event.planted,
                event.enrichmentversion,
                *(_cell(name, kind, data.get(name)) for name, kind in body.items()),
                from_us(event.time_us).strftime("%Y-%m"),
                None if event.receivedat_us is None else from_us(event.receivedat_us),
                event.collectorid,
                event.requestid,
                event.eventsize,
                transport.topic,
                transport.partition,
                transport.offset,
                transport.raw_partition,
                transport.raw_offset,
                None if transport.tick_before_us is None else from_us(transport.tick_before_us),
                transport.too_late,
            )
        )
    return pl.DataFrame(rows, schema=dict(table.columns), orient="row")


def _cell(name: str, kind: ColumnType, value: Any) -> Any:  # Any: one cell of a JSON body, typed by its column
    if value is None:
        return None
    if kind == "timestamp" and isinstance(value, str):
        return from_us(parse_instant_us(value, field=name))
    return float(value) if kind == "float64" else value
