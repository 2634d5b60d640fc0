"""When records were written, by Kafka's own clock: how long a record took, and when a job was at work again."""

from collections.abc import Sequence

import polars as pl

from headway.ports import LogReader
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_RAW
from streaming.accounts import frame_of

_SCHEMA = {"partition": pl.Int32(), "raw_offset": pl.Int64(), "at_ms": pl.Int64()}


def read_stamps(reader: LogReader) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return raw and enriched records as ``partition``, ``raw_offset`` and ``at_ms``; ticks left out."""
    raw = ((m.partition, m.offset, m.timestamp_ms) for m in reader.read(EVENTS_RAW) if not is_tick(m))
    enriched = (
        (m.partition, int(header(m, "raw_offset") or b""), m.timestamp_ms)
        for m in reader.read(EVENTS_ENRICHED)
        if not is_tick(m)
    )
    return frame_of(raw, _SCHEMA), frame_of(enriched, _SCHEMA)


def longest_wait_s(raw: pl.DataFrame, enriched: pl.DataFrame) -> dict[int, float]:
    """Return, per partition, the longest that an event waited between events.raw and events.enriched."""
    both = raw.join(enriched, on=["partition", "raw_offset"], suffix="_enriched")
    waits = both.group_by("partition").agg((pl.col("at_ms_enriched") - pl.col("at_ms")).max() / 1000)
    return {int(partition): round(float(wait_s), 3) for partition, wait_s in sorted(waits.rows())}


def seconds_to_resume(enriched: pl.DataFrame, fault_ms: Sequence[int]) -> list[float]:
    """Return, per outage, how long after its last fault the next event was enriched; infinite when none was.

    Faults with no event enriched between them are one outage: whoever is killed while getting up starts over.
    """
    waits: dict[float, float] = {}
    for at_ms in sorted(fault_ms):
        after = enriched.filter(pl.col("at_ms") >= at_ms)["at_ms"].min()
        next_ms = float("inf") if after is None else float(str(after))
        waits[next_ms] = (next_ms - at_ms) / 1000
    return sorted(waits.values())
