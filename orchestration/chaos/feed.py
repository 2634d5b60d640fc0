"""Enriched events written to stage 1 of the feature job in bulk, with their ticks, as fast as it takes them.

For trials of the feature job alone: the Enricher is left out, and a year is written in minutes. What bites: written all
at once, a year would be read one partition after the other, and each event would find weeks of later ones of its entity
already counted (S6). So the feed is never more than a batch of the job ahead of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Self

from headway.adapters.kafka_backlog import committed_offsets
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_topics import admin_client
from headway.clock import MINUTE_US
from headway.contracts import Domain
from headway.errors import TransientFailure
from headway.events import TYPE_HEADER, Event, encode_event
from headway.ports import Record, TopicPartition
from headway.settings import Settings
from headway.ticks import TICK_BEFORE_HEADER, tick_record
from headway.topics import EVENTS_ENRICHED, PARTITIONS, partition_of
from orchestration.chaos.patience import wait_while_moving
from streaming.jobs import group_name

STEP_US = 15 * MINUTE_US
STAGE_1 = "features-fan-out"
# Half of what a job takes at once, so that two of them are one batch, whose partitions stage 1 merges by time.
_CHUNK = 1_000
# A killed job is back within its session's timeout and a restore; a machine may be busy besides.
_PATIENCE_S = 120.0
# Asking costs the broker; meanwhile there is another chunk to work on.
_POLL_S = 0.1


@dataclass(frozen=True)
class Tick:
    """Everything up to this instant has been sent."""

    at_us: int


Item = Event | Tick


@dataclass
class Stamp:
    """What the Enricher would have noted: places in the log so far, and the newest tick."""

    next_offset: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    tick_us: int | None = None

    def records(self, items: Iterable[Item]) -> Iterator[Record]:
        """Yield the records of items in order; a tick is one in every partition."""
        for item in items:
            if isinstance(item, Tick):
                self.tick_us = item.at_us
                for partition in range(PARTITIONS):
                    self.next_offset[partition] += 1
                    yield tick_record(EVENTS_ENRICHED, item.at_us, partition=partition)
            else:
                yield self._event(item)

    def _event(self, event: Event) -> Record:
        key = event.subject.encode()
        partition = partition_of(key, PARTITIONS)
        offset = self.next_offset[partition]
        self.next_offset[partition] += 1
        headers = [(TYPE_HEADER, event.type.encode()), ("raw_offset", b"%d" % offset)]
        if self.tick_us is not None:
            headers.append((TICK_BEFORE_HEADER, b"%d" % self.tick_us))
        return Record(EVENTS_ENRICHED, key, encode_event(event), tuple(headers), partition)


def in_steps(events: Iterable[Event], *, start_us: int, end_us: int, step_us: int = STEP_US) -> Iterator[Item]:
    """Yield events in time order with a tick behind each step, from the first after ``start_us`` to ``end_us``."""
    tick_us = start_us + step_us
    for event in events:
        while event.time_us > tick_us:
            yield Tick(tick_us)
            tick_us += step_us
        yield event
    for at_us in range(tick_us, end_us + 1, step_us):
        yield Tick(at_us)


class Feed:
    """Writes items to events.enriched, of which it is the only writer; a context, as it holds connections."""

    def __init__(self, settings: Settings, domain: Domain) -> None:
        self._publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap, linger_ms=5.0, delivery_timeout_s=30.0)
        self._admin = admin_client(settings.kafka_bootstrap)
        self._group = group_name(domain, STAGE_1)
        self._stamp = Stamp()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the connections go."""
        self._publisher.close()

    @property
    def told_us(self) -> int | None:
        """The newest tick sent; stage 1 is two chunks behind it at most."""
        return self._stamp.tick_us

    def send(self, items: Sequence[Item]) -> None:
        """Write items and return when the log has them."""
        self._publisher.publish(list(self._stamp.records(items)))

    def play(self, items: Iterable[Item]) -> None:
        """Write all items, at most two chunks ahead of stage 1.

        Raises:
            TransientFailure: stage 1 has stood still for two minutes.
        """
        waiting = iter(items)
        before: Mapping[int, int] = dict(self._stamp.next_offset)
        while chunk := list(islice(waiting, _CHUNK)):
            self.send(chunk)
            self._wait_for(before)
            before = dict(self._stamp.next_offset)
        self._wait_for(before)

    def _wait_for(self, offsets: Mapping[int, int]) -> None:
        def taken() -> int | None:
            try:
                committed = committed_offsets(self._admin, self._group, [EVENTS_ENRICHED])
            except TransientFailure:
                return None
            return sum(min(committed[TopicPartition(EVENTS_ENRICHED, p)], upto) for p, upto in offsets.items())

        reached = wait_while_moving(taken, wanted=sum(offsets.values()), unmoved_s=_PATIENCE_S, every_s=_POLL_S)
        if reached is None or reached < sum(offsets.values()):
            raise TransientFailure(
                f"{STAGE_1}: {reached} of {sum(offsets.values())} records read, and none within {_PATIENCE_S:.0f} s. "
                "See its log."
            )
