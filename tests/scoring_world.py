"""The stream scorer of the flights product in memory: real handler, real model, a registry and a store that can be away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from domains.flights.contracts import ARRIVED, SCHEDULED
from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryReader
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.memory_registry import MemoryRegistry
from headway.adapters.redis_online import OnlineRow
from headway.clock import DAY_US, HOUR_US, FrozenClock, from_us, parse_instant_us
from headway.errors import TransientFailure
from headway.events import TYPE_HEADER, Event, encode_event
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows
from headway.letters import Letter, letter_of
from headway.ports import Message, Record, TopicPartition
from headway.predictions import ModelId
from headway.predictor import Predictor
from headway.registry import LIVE, ModelSource
from headway.scores import Score, decode_score
from headway.ticks import TICK_BEFORE_HEADER, tick_record
from headway.topics import (
    EVENTS_ENRICHED,
    EVENTS_ENRICHED_LETTERS,
    PARTITIONS,
    partition_of,
    scores_topic,
    topic_table,
)
from streaming.due_reads import OnlineReads
from streaming.handlers.score import ScoreHandler
from streaming.live_models import LiveModels
from streaming.runtime import HandlerWorker, partitions_of
from tests.serving_world import FLIGHT, product, trained

GROUP = "scorer"
# Of the flight that everybody asks about: 15:00, so it is asked at 14:00.
DEPARTURE_US = parse_instant_us("2013-07-01T15:00:00Z", field="sched_dep")
DUE_US = DEPARTURE_US - HOUR_US
SCORES = scores_topic(product().name)


@dataclass
class Reader:
    """A reader of the store in memory that can be away."""

    store: MemoryOnlineStore
    away: bool = False
    asked: list[int] = field(default_factory=list)

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        read = self.store.over(views)

        async def answer(rows: Sequence[Keys]) -> OnlineRows:
            self.asked.append(len(rows))
            if self.away:
                raise TransientFailure("online store: no answer")
            return await read(rows)

        return answer

    async def close(self) -> None:
        self.away = True


def opened(registry: ModelSource, model: ModelId) -> Predictor:
    from headway.adapters.lightgbm import LightGbm
    from headway.predictor import open_predictor

    text, manifest = registry.load(model.name, model.version)
    return open_predictor(text, manifest, load=LightGbm().load)


@dataclass
class ScoringWorld:
    """The topics, and what a scorer needs; each `scorer` is a new process."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    store: MemoryOnlineStore = field(default_factory=MemoryOnlineStore)
    wait_s: float = 0.0
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        self.broker.create(
            topic_table(views=[], products=[product().name], replication_factor=1, min_insync_replicas=1)
        )
        self.reader = Reader(self.store)
        self.reference = product().domain.load_reference()
        self.clock = FrozenClock(from_us(DUE_US + DAY_US))
        self._reads: list[OnlineReads] = []

    def release(self, seed: int) -> int:
        """Register a version and make it live."""
        version = trained(seed).register(self.registry)
        self.registry.set_alias(product().name, LIVE, version)
        return version

    def fill(self, *, row_us: int, watermark_us: int) -> None:
        """One row for every entity of the flight, and watermarks."""
        for view in product().feature_views.values():
            keys = {key: str(FLIGHT[key]) for key in view.keys}
            names = product().use(view.qualified).features
            values = {name: row_us if name.startswith("last_at") else place for place, name in enumerate(names)}
            row = OnlineRow(view=view.online_name, keys=keys, event_timestamp_us=row_us, revision=row_us, values=values)
            self.store.write([row])
            self.store.write_watermarks(view.online_name, {0: watermark_us // 1000}, 1)

    def ask(
        self,
        event_id: str,
        *,
        subject: str = "UA1545",
        tick_before_us: int | None = None,
        changes: Mapping[str, object] = MappingProxyType({}),
    ) -> Message:
        """Write the event that asks, as the Enricher would, its body with changes."""
        event = Event(
            id=event_id,
            source="/flights",
            type=SCHEDULED,
            subject=subject,
            time_us=DEPARTURE_US - DAY_US,
            data={**FLIGHT, **changes, "dest_lat": 29.98},
        )
        headers = [(TYPE_HEADER, event.type.encode()), ("raw_offset", b"7")]
        if tick_before_us is not None:
            headers.append((TICK_BEFORE_HEADER, b"%d" % tick_before_us))
        return self.write(Record(EVENTS_ENRICHED, subject.encode(), encode_event(event), tuple(headers)))

    def other(self) -> Message:
        """Write an event that asks nothing, and is nothing this job could read."""
        headers = ((TYPE_HEADER, ARRIVED.encode()),)
        return self.write(Record(EVENTS_ENRICHED, b"UA1545", b"not JSON", headers))

    def write(self, record: Record) -> Message:
        place = self.broker.append(record)
        [message] = self.broker.messages(TopicPartition(place.topic, place.partition), start=place.offset)
        return message

    def tick(self, tick_us: int = DUE_US) -> None:
        for partition in range(PARTITIONS):
            self.broker.append(tick_record(EVENTS_ENRICHED, tick_us, partition=partition))

    def models(self) -> LiveModels:
        """What is live now, without a thread that looks again."""
        models = LiveModels(product().name, self.registry, partial(opened, self.registry))
        models.look()
        return models

    def scorer(self, models: LiveModels | None = None) -> ScoreHandler:
        reads = OnlineReads(product(), self.reader, wait_s=self.wait_s, patience_s=self.patience_s)
        self._reads.append(reads)
        return ScoreHandler(
            product(),
            models=models or self.models(),
            reads=reads,
            reference=self.reference,
            restore=MemoryReader(self.broker).read_compacted,
            clock=self.clock,
        )

    def run(self, scorer: ScoreHandler | None = None) -> None:
        """Run a scorer until it has nothing to do."""
        worker = HandlerWorker(scorer or self.scorer())
        log = MemoryLog(
            self.broker,
            group=GROUP,
            topics=[EVENTS_ENRICHED],
            on_assign=lambda owned: worker.assigned(partitions_of(owned)),
            on_revoke=lambda owned: worker.revoked(partitions_of(owned)),
        )
        worker.run(log, stopped=lambda: self.remaining() == 0)
        log.close()

    def remaining(self) -> int:
        return sum(
            1 for place in self.places() for _ in self.broker.messages(place, start=self.broker.committed(GROUP, place))
        )

    def rewind(self) -> None:
        """Have the group read everything again."""
        self.broker.commit_offsets(GROUP, dict.fromkeys(self.places(), 0))

    def places(self) -> list[TopicPartition]:
        return [TopicPartition(EVENTS_ENRICHED, number) for number in range(PARTITIONS)]

    def scores(self) -> list[Score]:
        return [decode_score(message.value or b"") for message in MemoryReader(self.broker).read(SCORES)]

    def letters(self) -> list[Letter]:
        return [letter_of(message) for message in MemoryReader(self.broker).read(EVENTS_ENRICHED_LETTERS)]

    def close(self) -> None:
        for reads in self._reads:
            reads.close()


def partition_of_subject(subject: str = "UA1545") -> int:
    return partition_of(subject.encode(), PARTITIONS)


def json_of(score: Score) -> dict[str, Any]:
    """What an answer depends on: all but when it was made."""
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(score))
    return {name: value for name, value in told.items() if name not in ("requested_at_us", "at_offset")}
