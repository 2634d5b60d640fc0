"""A small streaming plane in memory: the real handlers on the in-memory log, and a reference that knows three airports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryReader
from headway.clock import parse_instant_us
from headway.contracts import Contract, Domain
from headway.enrichment import CachedEnrichment, ReferenceEnrichment
from headway.errors import InputRejected
from headway.events import Event, encode_event
from headway.features.definitions import Aggregate, FeatureView
from headway.ports import Enrichment, Message, Record, TopicPartition
from headway.ticks import is_tick, tick_record
from headway.topics import EVENTS_ENRICHED, EVENTS_RAW, FEATURES_INPUT, PARTITIONS, topic_table
from streaming.handlers.aggregate import AggregateHandler
from streaming.handlers.enrich import EnrichHandler
from streaming.handlers.fan_out import FanOutHandler
from streaming.runtime import Handler, HandlerWorker, partitions_of


class Departed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    origin: str
    dep_delay_min: Annotated[int, msgspec.Meta(extra={"unit": "min"})]


class Airports:
    version = "three-airports"

    def enrich(self, body: msgspec.Struct) -> dict[str, Any]:
        assert isinstance(body, Departed)
        if body.origin not in ("EWR", "JFK", "LGA"):
            raise InputRejected(
                f"origin: got {body.origin!r}, wanted EWR, JFK or LGA; add the airport to the reference"
            )
        return {"region": "NY"}


DELAY = FeatureView(
    name="delay",
    version=1,
    keys=("origin",),
    source="flight.departed.v1",
    fields={"dep_delay_min": "int64"},
    aggregates=(
        Aggregate(function="count", window=timedelta(hours=1)),
        Aggregate(function="sum", field="dep_delay_min", window=timedelta(hours=1)),
    ),
    owner="tests",
    description="Departures of an hour.",
)
DOMAIN = Domain(
    name="small",
    source="/small",
    contracts=(Contract(event_type="flight.departed.v1", body=Departed, description="left", owner="tests"),),
    enrichment={"region": "string"},
    views=(DELAY,),
    load_reference=Airports,
)


def instant(clock: str) -> int:
    return parse_instant_us(f"2013-07-01T{clock}:00Z", field="time")


def departed(event_id: str, *, at: str, origin: str = "EWR", delay_min: object = 10) -> Event:
    return Event(
        id=event_id,
        source="/small",
        type="flight.departed.v1",
        subject=origin,
        time_us=instant(at),
        data={"origin": origin, "dep_delay_min": delay_min},
    )


Corrupt = Callable[[list[Record]], list[Record]]


@dataclass
class World:
    """The plane and what it holds; ``corrupt`` plants a bug into what stage 1 hands to stage 2."""

    domain: Domain = DOMAIN
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    corrupt: Corrupt | None = None

    def __post_init__(self) -> None:
        views = [view.qualified for view in self.domain.views]
        self.broker.create(topic_table(views=views, products=[], replication_factor=1, min_insync_replicas=1))
        self.reader = MemoryReader(self.broker)
        self.enrichment: Enrichment = CachedEnrichment(ReferenceEnrichment(self.domain.load_reference()), self.domain)

    def send(self, event: Event) -> None:
        self.send_bytes(encode_event(event), key=event.subject)

    def send_bytes(self, raw: bytes, *, key: str) -> None:
        self.broker.append(Record(topic=EVENTS_RAW, key=key.encode(), value=raw))

    def tick(self, at: str) -> None:
        self.tick_us(instant(at))

    def tick_us(self, tick_us: int) -> None:
        for partition in range(PARTITIONS):
            self.broker.append(tick_record(EVENTS_RAW, tick_us, partition=partition))

    def run(self) -> None:
        """Run the three jobs, one after the other, until each is idle; each starts as a new process would."""
        self.run_job(EnrichHandler(self.domain, self.enrichment, self.reader.read_compacted), "enricher", EVENTS_RAW)
        fan_out = FanOutHandler(self.domain.views)
        self.run_job(Corrupted(fan_out, self.corrupt) if self.corrupt else fan_out, "fan-out", EVENTS_ENRICHED)
        self.run_job(AggregateHandler(self.domain.views, self.reader.read_compacted), "aggregate", FEATURES_INPUT)

    def run_job(self, handler: Handler, group: str, topic: str) -> None:
        worker = HandlerWorker(handler)

        def assign(owned: Sequence[TopicPartition]) -> None:
            worker.assigned(partitions_of(owned))

        def revoke(owned: Sequence[TopicPartition]) -> None:
            worker.revoked(partitions_of(owned))

        log = MemoryLog(self.broker, group=group, topics=[topic], on_assign=assign, on_revoke=revoke)
        worker.run(log, stopped=_until_idle(self, group, topic))
        log.close()

    def messages(self, topic: str) -> list[Message]:
        return [message for message in self.reader.read(topic) if not is_tick(message)]

    def remaining(self, group: str, topic: str) -> int:
        return sum(
            1
            for partition in range(self.broker.partition_count(topic))
            for _ in self.broker.messages(
                TopicPartition(topic, partition), start=self.broker.committed(group, TopicPartition(topic, partition))
            )
        )


class Corrupted:
    """A handler with a bug planted into its outputs."""

    def __init__(self, handler: FanOutHandler, corrupt: Corrupt) -> None:
        self._handler, self._corrupt = handler, corrupt
        self.assigned, self.revoked = handler.assigned, handler.revoked

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        return self._corrupt(self._handler.handle(batch))


def _until_idle(world: World, group: str, topic: str) -> Any:
    return lambda: world.remaining(group, topic) == 0
