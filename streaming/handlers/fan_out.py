"""Feature job, stage 1: events.enriched -> features.input, one record per (view, entity) an event touches (S3).

Stateless. A tick of source partition p goes to every partition of features.input, so that a task of stage 2 knows when
all sources have reached an instant.

What bites: a poll brings one partition after the other, and with them hours of event time, when the job is behind. In
that order each event finds later ones of its entity already there, and every row from it on is emitted again (S6). So a
batch is merged by time first; within a partition nothing changes places.
"""

from collections.abc import Iterator, Sequence
from heapq import merge

from headway.events import Event, parse_event
from headway.features.definitions import FeatureView
from headway.features.wire import FeatureInput, encode_input, partition_key
from headway.ports import Message, Record
from headway.ticks import is_tick, tick_before_us, tick_record, tick_us_of
from headway.topics import FEATURES_INPUT, PARTITIONS


class FanOutHandler:
    """Stage 1 for the views of one domain."""

    def __init__(self, views: Sequence[FeatureView]) -> None:
        self._by_type: dict[str, list[FeatureView]] = {}
        for view in views:
            self._by_type.setdefault(view.source, []).append(view)

    def assigned(self, partitions: Sequence[int]) -> None:
        """Nothing to load."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """Nothing to forget."""

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return the feature inputs and forwarded ticks of a batch, in order."""
        outputs: list[Record] = []
        for _, message, event in _merged(batch):
            if event is None:
                outputs.extend(_forward(message))
            else:
                outputs.extend(self._fan_out(event, tick_before_us(message)))
        return outputs

    def _fan_out(self, event: Event, tick_before: int | None) -> list[Record]:
        outputs = []
        for view in self._by_type.get(event.type, ()):
            key = tuple(event.data.get(field) for field in view.keys)
            if any(part is None for part in key):
                continue
            item = FeatureInput(
                view=view.qualified,
                key=tuple(map(str, key)),
                event_id=event.id,
                time_us=event.time_us,
                values={field: event.data.get(field) for field in view.fields},
                tick_before_us=tick_before,
            )
            outputs.append(
                Record(topic=FEATURES_INPUT, key=partition_key(item.view, item.key), value=encode_input(item))
            )
        return outputs


_Timed = tuple[int, Message, Event | None]  # the newest instant of its partition so far; no event for a tick


def _merged(batch: Sequence[Message]) -> Iterator[_Timed]:
    """Yield a batch by time across its partitions; each partition's own order stays, as late events have it."""
    parts: dict[int, list[_Timed]] = {}
    for message in batch:
        event = None if is_tick(message) else parse_event(message.value or b"")
        reached_us = tick_us_of(message) if event is None else event.time_us
        part = parts.setdefault(message.partition, [])
        part.append((max(reached_us, part[-1][0]) if part else reached_us, message, event))
    return merge(*parts.values(), key=_reached)


def _reached(timed: _Timed) -> int:
    return timed[0]


def _forward(message: Message) -> list[Record]:
    tick_us = tick_us_of(message)
    return [
        tick_record(FEATURES_INPUT, tick_us, partition=partition, source_partition=message.partition)
        for partition in range(PARTITIONS)
    ]
