"""Planted bugs: ``python -m orchestration.chaos.mutant NAME MODULE [ARGUMENT ...]`` runs a module with one of them in.

They show that a chaos test can fail, and for the right reason. They live here only: production code knows none, and a
stack runs its modules through this one when `headway.local.stack.THROUGH_VARIABLE` says so.
"""

import asyncio
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.errors import ContractViolation
from headway.ports import Position
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS

# Any: what is patched is typed where it is defined, and deliberately broken here.


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One bug: ``plant`` patches what the processes of ``modules`` (with this first argument, if any) run."""

    bug: str
    module: str
    argument: str | None
    plant: Callable[[], None]

    def concerns(self, module: str, arguments: Sequence[str]) -> bool:
        """Whether this process is to carry the bug."""
        return module == self.module and self.argument in (None, *arguments[:1])


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


def _acknowledge_early(topic: str) -> Callable[[], None]:
    def plant() -> None:
        from headway.adapters.kafka_publisher import KafkaPublisher

        acknowledge_before_delivery(KafkaPublisher, topic=topic)

    return plant


def _commit_before_write() -> None:
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


def _offsets_before_outputs() -> None:
    from headway.adapters.kafka_log import KafkaEventLog

    commit_offsets_first(KafkaEventLog)


def _append_whatever_comes() -> None:
    from headway.adapters.delta import Lake

    def nothing(_self: Any, _table: str, _app_id: str) -> None:
        """Know nothing of what the table holds."""

    def append(self: Any, table: str, batches: Any, **_after: Any) -> frozenset[str]:
        """Add rows without asking whether the table has them."""
        for _, frame in batches.values():
            self.append(table, frame)
        return frozenset(batches)

    Lake.committed, Lake.append_each_once = nothing, append  # type: ignore[method-assign,assignment]


def _acknowledge_by_the_leader_alone() -> None:
    from headway.adapters import kafka_client, kafka_publisher

    early = {**kafka_client.DURABLE, "acks": 1, "enable.idempotence": False}
    setattr(kafka_publisher, "DURABLE", early)  # noqa: B010 - imported there, and exported nowhere


def _skip_what_is_rejected() -> None:
    from headway.topics import EVENTS_ENRICHED_LETTERS
    from streaming.handlers.enrich import EnrichHandler

    handle = EnrichHandler.handle

    def without_letters(self: Any, batch: Any) -> Any:
        return [record for record in handle(self, batch) if record.topic != EVENTS_ENRICHED_LETTERS]

    EnrichHandler.handle = without_letters  # type: ignore[method-assign]


def _replay_in_two_steps() -> None:
    from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
    from headway.topics import EVENTS_RAW

    write = KafkaExclusiveWriter.write

    def in_two(self: Any, records: Any) -> None:
        """Put the events back in one transaction and say so in another; whoever dies between them forgets it did."""
        write(self, [record for record in records if record.topic == EVENTS_RAW])
        write(self, [record for record in records if record.topic != EVENTS_RAW])

    KafkaExclusiveWriter.write = in_two  # type: ignore[method-assign]


def _take_down_for_refused() -> None:
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


def _forget_state() -> None:
    from streaming.handlers.aggregate import AggregateHandler

    assigned = AggregateHandler.assigned

    def begin_anew(self: Any, partitions: Any) -> None:
        self._restore = lambda _topic, _partition: []
        assigned(self, partitions)

    AggregateHandler.assigned = begin_anew  # type: ignore[method-assign]


def _replay_forgets() -> None:
    from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
    from headway.topics import EVENTS_RAW

    write = KafkaExclusiveWriter.write

    def unmarked(self: Any, records: Any) -> None:
        """Put the events back and note nothing of it."""
        write(self, [record for record in records if record.topic == EVENTS_RAW] or records)

    KafkaExclusiveWriter.write = unmarked  # type: ignore[method-assign]


MUTANTS: Mapping[str, Mutant] = {
    "acks-1": Mutant(
        bug="the Collector's producer asks for the leader's acknowledgement alone",
        module="serving.collector_main",
        argument=None,
        plant=_acknowledge_by_the_leader_alone,
    ),
    "ack-before-delivery": Mutant(
        bug="the Collector answers before the broker's delivery report",
        module="serving.collector_main",
        argument=None,
        plant=_acknowledge_early(EVENTS_RAW),
    ),
    "letter-swallowed": Mutant(
        bug="the Collector answers 4xx although the letter was not acknowledged",
        module="serving.collector_main",
        argument=None,
        plant=_acknowledge_early(EVENTS_RAW_LETTERS),
    ),
    "commit-before-write": Mutant(
        bug="the lake loader commits its offsets before it writes",
        module="streaming.main",
        argument="lake-loader",
        plant=_commit_before_write,
    ),
    "offsets-before-outputs": Mutant(
        bug="the Enricher commits its offsets in one transaction and its outputs in another",
        module="streaming.main",
        argument="enricher",
        plant=_offsets_before_outputs,
    ),
    "lake-appends-blindly": Mutant(
        bug="the lake loader writes without asking which offsets the table holds",
        module="streaming.main",
        argument="lake-loader",
        plant=_append_whatever_comes,
    ),
    "poison-skipped": Mutant(
        bug="the Enricher skips what it rejects instead of making it a letter",
        module="streaming.main",
        argument="enricher",
        plant=_skip_what_is_rejected,
    ),
    "down-taken-for-refused": Mutant(
        bug="the Enricher takes an Enrichment API that does not answer for one that refuses",
        module="streaming.main",
        argument="enricher",
        plant=_take_down_for_refused,
    ),
    "state-forgotten": Mutant(
        bug="the feature job takes partitions over without restoring what their windows hold",
        module="streaming.main",
        argument="features-aggregate",
        plant=_forget_state,
    ),
    "replay-in-two-steps": Mutant(
        bug="a replay of letters puts events back in one transaction and notes it in another",
        module="headway.cli",
        argument="letters",
        plant=_replay_in_two_steps,
    ),
    "replay-forgets": Mutant(
        bug="a replay of letters puts events back and does not note that it did",
        module="headway.cli",
        argument="letters",
        plant=_replay_forgets,
    ),
}


def find_mutant(name: str) -> Mutant:
    """Return a mutant by name.

    Raises:
        ContractViolation: there is none of that name.
    """
    if name not in MUTANTS:
        raise ContractViolation(f"mutant: got {name!r}, wanted one of {', '.join(sorted(MUTANTS))}")
    return MUTANTS[name]


def main() -> None:
    """Plant the bug if it is about this process, then run the module as if by ``python -m``."""
    name, module, *arguments = sys.argv[1:]
    mutant = find_mutant(name)
    if mutant.concerns(module, arguments):
        mutant.plant()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
