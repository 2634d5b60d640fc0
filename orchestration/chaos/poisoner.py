"""Writes every kind of poison past the Collector, among the good, and remembers where each record stands."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import polars as pl

from domains.flights.contracts import DEPARTED
from domains.flights.source import iter_events
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.clock import DAY_US, monotonic_s
from headway.events import Event, encode_event
from headway.ports import Position
from headway.topics import PARTITIONS, partition_of
from orchestration.chaos.load import HISTORY_FROM_US
from orchestration.chaos.poison import Kind, Poison, hostile_kinds, kinds
from streaming.accounts import digest_of

WRITTEN_SCHEMA = {
    "raw_partition": pl.Int32(),
    "raw_offset": pl.Int64(),
    "kind": pl.String(),
    "wanted": pl.String(),
    "wanted_path": pl.String(),
    "sent": pl.UInt64(),
}
_BURST_S = 0.25
# Some 900 departures a day, each spent once.
_DAYS = 60
# Kinds whose single record is this large come in small numbers: the disk, not the Enricher, would be on trial.
_LARGE_BYTES = 50_000
_LARGE_EACH = 5
# Each costs its batch four restores and some fifty transactions, as nothing but trying tells which record it is: a
# second and more, in which the good ones beside it wait. So there is one for ten of every other kind, and few in all.
_RAISING_PER = 10
_RAISING = 20


@dataclass(frozen=True, kw_only=True)
class Written:
    """One record past the Collector: where it stands, and what has to become of it (kind None: it is good)."""

    at: Position
    kind: Kind | None
    digest: int


@dataclass
class Poisoner:
    """Writes poison at an even rate, and remembers each record's place; ``repairs`` holds what mends it, by place."""

    bootstrap: str
    each: int
    load_s: float
    generator: random.Random
    written: list[Written] = field(default_factory=list)
    repairs: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        history = iter_events(HISTORY_FROM_US, HISTORY_FROM_US + _DAYS * DAY_US)
        self._events = (event for event in history if event.type == DEPARTED)
        self._to_come = list(self._poisons())
        self.generator.shuffle(self._to_come)

    def run(self) -> None:
        """Write every kind that no process dies on; raises what the log refuses."""
        asyncio.run(self._run())

    def write_one(self, kind: Kind) -> Position:
        """Write one record of a kind; return where it stands."""
        asyncio.run(self._write_one(kind))
        return self.written[-1].at

    @property
    def poison(self) -> int:
        """How many records that must become letters were written."""
        return sum(each.kind is not None for each in self.written)

    def frame(self) -> pl.DataFrame:
        """Return what was written, one row per record (`WRITTEN_SCHEMA`); what is wanted of good ones is null."""
        rows = [
            (
                each.at.partition,
                each.at.offset,
                "good" if each.kind is None else each.kind.name,
                None if each.kind is None else each.kind.reason,
                None if each.kind is None else each.kind.path,
                each.digest,
            )
            for each in self.written
        ]
        return pl.DataFrame(rows, schema=WRITTEN_SCHEMA, orient="row")

    async def _run(self) -> None:
        begun_s, bursts = monotonic_s(), max(1, int(self.load_s / _BURST_S))
        publisher = KafkaPublisher(bootstrap=self.bootstrap)
        try:
            for burst in range(bursts):
                await asyncio.sleep(max(0.0, begun_s + burst * _BURST_S - monotonic_s()))
                await asyncio.gather(*(self._write(publisher, *each) for each in self._to_come[burst::bursts]))
        finally:
            publisher.close()

    async def _write_one(self, kind: Kind) -> None:
        publisher = KafkaPublisher(bootstrap=self.bootstrap)
        try:
            await self._write(publisher, kind, next(self._events))
        finally:
            publisher.close()

    def _poisons(self) -> Iterator[tuple[Kind, Event]]:
        for kind in (*kinds(), *_raising_kinds()):
            for event in islice(self._events, self._count(kind)):
                yield kind, event

    def _count(self, kind: Kind) -> int:
        if kind.reason == "handler-failed":
            return min(max(1, self.each // _RAISING_PER), _RAISING)
        sample = kind.make(next(self._events))
        size = len(sample.original) + sum(len(name) + len(value) for name, value in sample.headers)
        return self.each if size < _LARGE_BYTES else min(self.each, _LARGE_EACH)

    async def _write(self, publisher: KafkaPublisher, kind: Kind, event: Event) -> None:
        if kind.after_good:
            good = Poison(encode_event(event), key=event.subject.encode())
            await self._publish(publisher, event, good, kind=None)
        place = await self._publish(publisher, event, kind.make(event), kind=kind)
        if kind.recoverable:
            self.repairs[place.partition, place.offset] = encode_event(event)

    async def _publish(self, publisher: KafkaPublisher, event: Event, poison: Poison, *, kind: Kind | None) -> Position:
        partition = partition_of(event.subject.encode(), PARTITIONS)
        place = await publisher.publish_async(poison.record(partition=partition))
        self.written.append(Written(at=place, kind=kind, digest=digest_of(poison.original)))
        return place


def deadly_kinds() -> tuple[Kind, ...]:
    """Return the hostile kinds that end the process; they are written one by one."""
    return tuple(kind for kind in hostile_kinds() if kind.reason == "crashed")


def _raising_kinds() -> tuple[Kind, ...]:
    return tuple(kind for kind in hostile_kinds() if kind.reason == "handler-failed")
