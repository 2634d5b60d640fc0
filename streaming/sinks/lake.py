"""Lake loader: committed records -> Delta tables, exactly once by (topic, partition, last offset) (S14).

A crash between the Delta commit and the Kafka commit makes the same records come again, perhaps in other batches. So
before writing, records at or below the table's own newest version of their partition are left out: the table, not the
consumer group, knows what it holds. A loader that lost a partition and does not know it yet is refused by the same
figure: what it cut its batch after is no longer what the table says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
from prometheus_client import Counter

from headway.adapters.delta import Lake
from headway.contracts import Domain
from headway.features.changelog import changelog_table, streamed_changelog
from headway.lake import LakeTable, events_table, streamed_rows
from headway.letter_table import letter_rows, letters_table
from headway.letters import any_letter
from headway.ports import Message
from headway.predictions import prediction_rows, predictions_table
from headway.ticks import is_tick
from headway.topics import (
    EVENTS_ENRICHED,
    EVENTS_ENRICHED_LETTERS,
    EVENTS_RAW_LETTERS,
    features_topic,
    predictions_topic,
    scores_topic,
)
from streaming.runtime import Flushed
from streaming.sinks.buffer import Buffer, Limits
from streaming.sinks.records import enriched_event

# A Delta commit costs 20-50 ms and one file per partition value: seconds of buffering keep both rare.
FLUSH_AGE_S = 3.0
FLUSH_MESSAGES = 20_000
# An event may have 256 kB: counted alone, a buffer of 20,000 could be 5 GB. As rows it takes about three times this.
FLUSH_BYTES = 32 * 1024 * 1024

ROWS = Counter("headway_lake_rows_total", "Rows written to the lake by this loader.", ["table"])

Decode = Callable[[Sequence[Message]], pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Where a topic's records go, and how they become rows; records that are no rows are left out by ``decode``."""

    table: LakeTable
    decode: Decode


class LakeSink:
    """Buffers records of many topics and writes one commit per table."""

    def __init__(self, lake: Lake, loads: Mapping[str, Load]) -> None:
        self._lake = lake
        self.loads = loads
        self._buffer = Buffer(Limits(messages=FLUSH_MESSAGES, bytes=FLUSH_BYTES, age_s=FLUSH_AGE_S))
        for load in loads.values():
            lake.create(load.table)

    def offer(self, batch: Sequence[Message]) -> None:
        """Take messages into the buffer."""
        self._buffer.add(batch)

    def due(self, now_s: float) -> bool:
        """Whether the buffer is large or old enough for a commit."""
        return self._buffer.due(now_s)

    def flush(self) -> Flushed:
        """Write the buffer, one commit per table, and return its messages."""
        by_place: dict[tuple[str, int], list[Message]] = {}
        for message in self._buffer.messages:
            by_place.setdefault((message.topic, message.partition), []).append(message)
        batches: dict[str, dict[str, tuple[int, pl.DataFrame]]] = {}
        after: dict[str, dict[str, int | None]] = {}
        for (topic, partition), messages in by_place.items():
            load = self.loads[topic]
            app_id = f"{topic}-{partition}"
            held = self._lake.committed(load.table.name, app_id)
            new = [m for m in messages if held is None or m.offset > held]
            rows = load.decode(new)
            if rows.height:
                batches.setdefault(load.table.name, {})[app_id] = (new[-1].offset, rows)
                after.setdefault(load.table.name, {})[app_id] = held
        for table, each in batches.items():
            self._lake.append_each_once(table, each, after=after[table])
            ROWS.labels(table).inc(sum(rows.height for _, rows in each.values()))
        return Flushed(messages=self._buffer.clear())

    def drop(self) -> None:
        """Forget the buffer."""
        self._buffer.clear()


def build_lake_sink(domain: Domain, products: Sequence[str], root: str) -> LakeSink:
    """Return the loader of a domain's events, letters and changelogs and of the products' prediction logs."""
    letters = Load(table=letters_table(), decode=_letter_rows)
    loads = {
        EVENTS_ENRICHED: Load(table=events_table(domain), decode=partial(event_rows, domain)),
        EVENTS_RAW_LETTERS: letters,
        EVENTS_ENRICHED_LETTERS: letters,
    }
    for view in domain.views:
        loads[features_topic(view.qualified)] = Load(
            table=changelog_table(view), decode=partial(streamed_changelog, view)
        )
    for product in products:
        answers = Load(table=predictions_table(product), decode=prediction_rows)
        loads |= dict.fromkeys((predictions_topic(product), scores_topic(product)), answers)
    return LakeSink(Lake(Path(root)), loads)


def _letter_rows(messages: Sequence[Message]) -> pl.DataFrame:
    return letter_rows([(message, any_letter(message)) for message in messages])


def event_rows(domain: Domain, messages: Sequence[Message]) -> pl.DataFrame:
    """Return the lake rows of enriched events; ticks are left out."""
    return streamed_rows(domain, [enriched_event(domain, message) for message in messages if not is_tick(message)])
