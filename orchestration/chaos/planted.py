"""What the planted bugs do: each function patches, in its own process, what `orchestration.chaos.mutant` runs there."""

import asyncio
from collections.abc import Callable
from typing import Any

from headway.ports import Position

# Any: what is patched is typed where it is defined, and deliberately broken here.


def acknowledge_before_delivery(publisher: Any, *, topic: str) -> None:
    """Have a publisher's class say "acknowledged" of a topic's records as soon as they are handed over."""
    publish_async, publish_each_async = publisher.publish_async, publisher.publish_each_async
    under_way: set[asyncio.Future[Any]] = set()

    def publish(self: Any, record: Any) -> Any:
        delivery = publish_async(self, record)
        if record.topic != topic:
            return delivery
        return at_once(delivery, Position(record.topic, 0, 0))

    def publish_each(self: Any, records: Any) -> Any:
        """For several records only when all are the topic's, since one answer speaks for all."""
        delivery = publish_each_async(self, records)
        return at_once(delivery, {}) if all(record.topic == topic for record in records) else delivery

    def at_once(delivery: asyncio.Future[Any], result: Any) -> Any:
        under_way.add(delivery)
        delivery.add_done_callback(forget)
        told = asyncio.get_running_loop().create_future()
        told.set_result(result)
        return told

    def forget(delivery: asyncio.Future[Any]) -> None:
        """Take note of a failed delivery and tell nobody, which is the bug."""
        under_way.discard(delivery)
        delivery.exception()

    publisher.publish_async, publisher.publish_each_async = publish, publish_each


def acknowledge_early(topic: str) -> Callable[[], None]:
    """The Collector answers for a topic's records before the broker has."""

    def plant() -> None:
        from headway.adapters.kafka_publisher import KafkaPublisher

        acknowledge_before_delivery(KafkaPublisher, topic=topic)

    return plant


def commit_before_write() -> None:
    """The lake loader commits what it has not written, and writes it with the next."""
    from headway.clock import monotonic_s
    from streaming.runtime import Flushed
    from streaming.sinks.lake import FLUSH_AGE_S, LakeSink

    offer, flush, drop = LakeSink.offer, LakeSink.flush, LakeSink.drop
    taken: list[Any] = []
    unwritten: list[Any] = []
    flushed_s = monotonic_s()

    def take(_self: Any, batch: Any) -> None:
        taken.extend(batch)

    def due(_self: Any, now_s: float) -> bool:
        return now_s - flushed_s >= FLUSH_AGE_S

    def commit_first(self: Any) -> Any:
        """Have committed what came last, and write what was committed before it."""
        nonlocal flushed_s
        flushed_s = monotonic_s()
        offer(self, unwritten)
        flush(self)
        unwritten[:] = taken
        taken.clear()
        return Flushed(messages=list(unwritten))

    def forget(self: Any) -> None:
        taken.clear()
        drop(self)

    for name, patch in {"offer": take, "due": due, "flush": commit_first, "drop": forget}.items():
        setattr(LakeSink, name, patch)


def commit_offsets_first(log: Any) -> None:
    """Have a log's class commit in two transactions what belongs in one; dying between them loses the outputs."""
    commit = log.commit

    def in_two(self: Any, inputs: Any, outputs: Any) -> None:
        commit(self, inputs, [])
        commit(self, [], outputs)

    log.commit = in_two


def offsets_before_outputs() -> None:
    """Every job commits its offsets in one transaction and its outputs in another."""
    from headway.adapters.kafka_log import KafkaEventLog

    commit_offsets_first(KafkaEventLog)


def append_whatever_comes() -> None:
    """The lake takes rows whether it has them or not."""
    from headway.adapters.delta import Lake

    def nothing(_self: Any, _table: str, _app_id: str) -> None:
        """Know nothing of what the table holds."""

    def append(self: Any, table: str, batches: Any, **_after: Any) -> frozenset[str]:
        """Add rows without asking whether the table has them."""
        for _, frame in batches.values():
            self.append(table, frame)
        return frozenset(batches)

    Lake.committed, Lake.append_each_once = nothing, append  # type: ignore[method-assign,assignment]


def acknowledge_by_the_leader_alone() -> None:
    """The Collector's producer is content with acks=1."""
    from headway.adapters import kafka_client, kafka_publisher

    early = {**kafka_client.DURABLE, "acks": 1, "enable.idempotence": False}
    setattr(kafka_publisher, "DURABLE", early)  # noqa: B010 - imported there, and exported nowhere


def skip_what_is_rejected() -> None:
    """What the Enricher rejects leaves no letter."""
    from headway.topics import EVENTS_ENRICHED_LETTERS
    from streaming.handlers.enrich import EnrichHandler

    handle = EnrichHandler.handle

    def without_letters(self: Any, batch: Any) -> Any:
        return [record for record in handle(self, batch) if record.topic != EVENTS_ENRICHED_LETTERS]

    EnrichHandler.handle = without_letters  # type: ignore[method-assign]


def replay_in_two_steps() -> None:
    """A replay puts events back, and notes it afterwards."""
    from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
    from headway.topics import EVENTS_RAW

    write = KafkaExclusiveWriter.write

    def in_two(self: Any, records: Any) -> None:
        """Put the events back in one transaction and say so in another; whoever dies between them forgets it did."""
        write(self, [record for record in records if record.topic == EVENTS_RAW])
        write(self, [record for record in records if record.topic != EVENTS_RAW])

    KafkaExclusiveWriter.write = in_two  # type: ignore[method-assign]


def take_down_for_refused() -> None:
    """The Enricher makes letters of what the Enrichment API has not answered."""
    from headway.adapters.enrichment_http import HttpEnrichment
    from headway.errors import DependencyDown
    from headway.ports import EnrichmentRefused

    enrich = HttpEnrichment.enrich

    def refuse(self: Any, items: Any) -> Any:
        try:
            return enrich(self, items)
        except DependencyDown as down:
            return [EnrichmentRefused(str(down), None, "") for _ in items]

    HttpEnrichment.enrich = refuse  # type: ignore[method-assign]


def forget_state() -> None:
    """The feature job begins every window anew."""
    from streaming.handlers.aggregate import AggregateHandler

    assigned = AggregateHandler.assigned

    def begin_anew(self: Any, partitions: Any) -> None:
        self._restore = lambda _topic, _partition: []
        assigned(self, partitions)

    AggregateHandler.assigned = begin_anew  # type: ignore[method-assign]


def retry_nothing() -> None:
    """The load balancer asks nobody else when a replica does not answer."""
    from headway.adapters.haproxy import Backend

    checked = Backend.__post_init__

    def without_retries(self: Any) -> None:
        checked(self)
        object.__setattr__(self, "retry_on", ())

    Backend.__post_init__ = without_retries  # type: ignore[method-assign]


def forget_plan() -> None:
    """The scorer answers with whatever is live when it comes, and remembers nothing of who answered before."""
    from headway.scores import Plan
    from streaming.handlers.score import ScoreHandler

    restored = ScoreHandler._restored  # noqa: SLF001 - patched, like the rest here

    def without_plan(self: Any, kept: Any) -> Any:
        state = restored(self, kept)
        state.plan = Plan()
        return state

    ScoreHandler._restored = without_plan  # type: ignore[method-assign]  # noqa: SLF001


def replay_forgets() -> None:
    """A replay puts events back, and never notes it."""
    from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
    from headway.topics import EVENTS_RAW

    write = KafkaExclusiveWriter.write

    def unmarked(self: Any, records: Any) -> None:
        """Put the events back and note nothing of it."""
        write(self, [record for record in records if record.topic == EVENTS_RAW] or records)

    KafkaExclusiveWriter.write = unmarked  # type: ignore[method-assign]


def cut_letters() -> None:
    """A letter keeps only the beginning of what it is about."""
    from dataclasses import replace

    from headway.letters import Letter

    to_record = Letter.to_record

    def beginning(self: Any, letters_topic: str) -> Any:
        return to_record(replace(self, original=self.original[:_KEPT_BYTES]), letters_topic)

    Letter.to_record = beginning  # type: ignore[method-assign]


# Shorter than any event, longer than what some poison is.
_KEPT_BYTES = 100


def condemn_nothing() -> None:
    """A record that hangs or kills the process is tried for ever."""
    from streaming.quarantine import Quarantine

    def innocent(_self: Any, _message: Any) -> bool:
        return False

    Quarantine.is_condemned = innocent  # type: ignore[assignment,method-assign]
