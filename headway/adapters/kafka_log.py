"""A stream job's view of Kafka: one consumer in a group, one transactional producer (SEMANTICS S14).

Thin over confluent-kafka. What bites is settled here: a commit whose outcome is unknown is ended by a new producer
before offsets are asked for again, and nothing is committed under another membership than it was read with.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from headway.adapters.kafka_client import READ_COMMITTED, as_message, client_settings
from headway.adapters.kafka_membership import is_in_group
from headway.adapters.kafka_transactions import Transactions
from headway.errors import PermanentFailure, TransientFailure
from headway.ports import (
    BATCH_BYTES,
    CommitCallback,
    CommitStep,
    Message,
    PartitionCallback,
    Record,
    TopicPartition,
    next_offsets,
)

logger = logging.getLogger(__name__)

# A `TopicPartition` in all but its class, at a quarter of the cost: one per message.
_PLACE = attrgetter("topic", "partition")

GroupProtocol = Literal["consumer", "classic"]

# After this a group goes on without a silent member (the classic protocol; with the other it is the broker's setting).
# No transaction stays open longer: the member's successor is told no offsets until what it left open has ended.
_SESSION_TIMEOUT_S = 6.0
# Short, as news of the group wait behind it (see `KafkaEventLog.poll`), and asking again costs nothing.
_OFFSETS_TIMEOUT_S = 2.0
# Messages taken from the client's queue at once; between two such takings a batch's bytes are counted.
_TAKEN_AT_ONCE = 100
# What one fetch brings of a partition. At the client's 1 MiB a job that is behind takes batch after batch of one partition,
# hours of event time, and then the same hours of the next; the feature job writes rows again for all that lies between.
_PART_OF_A_FETCH = 64 * 1024
# Small batches are taken so far apart, as a transaction costs broker and job as much for one record as for hundreds: under
# steady load a job would make fifty a second. One record alone waits for nobody.
_APART_S = 0.05
# How often an instance without partitions asks the broker whether it is a member, and a paused one for the ends.
_ASK_EVERY_S = 2.0


def _nothing(_: Sequence[TopicPartition]) -> None:
    """Ignore news of the group."""


def _no_step(_: CommitStep) -> None:
    """Pass every step of a commit."""


class KafkaEventLog:
    """`headway.ports.EventLog` on Kafka: one consumer in a group and one transactional producer.

    ``instance`` names this process within the group and must stay the same across its restarts and differ
    between processes that run together: it is the transactional id, by which a restarted process ends what its
    predecessor left open. Connects at the first poll.

    Memory is bounded whatever producers send: 16 MiB of prefetched messages and one fetch of 16 MiB more, a batch of
    ``batch_bytes`` and at most a hundred messages more, and 64 MiB of records handed over.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        instance: str,
        on_assign: PartitionCallback = _nothing,
        on_revoke: PartitionCallback = _nothing,
        on_lost: PartitionCallback | None = None,
        on_step: CommitCallback = _no_step,
        protocol: GroupProtocol = "consumer",
        transaction_timeout_s: float = _SESSION_TIMEOUT_S,
        max_poll_interval_s: float = 300.0,
        batch_bytes: int = BATCH_BYTES,
        security: Mapping[str, str] | None = None,
    ) -> None:
        self._who = f"{group} ({instance})"
        self._group = group
        self._batch_bytes = batch_bytes
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._on_lost = on_lost or on_revoke
        self._assigned: set[TopicPartition] = set()
        self._ended: set[TopicPartition] = set()
        self._paused = False
        self._must_rewind = False
        self._known_member = False
        self._ask_after_s = 0.0
        self._take_after_s = 0.0
        self._ends: dict[TopicPartition, int] = {}
        self._membership: Any = None  # the SDK's opaque group metadata
        self._common = client_settings(bootstrap, security)
        self._transactions = Transactions(
            common=self._common,
            transactional_id=f"{group}.{instance}",
            timeout_s=transaction_timeout_s,
            on_step=on_step,
        )
        self._consumer = Consumer(
            {
                **self._common,
                **READ_COMMITTED,
                **_membership_settings(protocol, topics, max_poll_interval_s=max_poll_interval_s),
                "group.id": group,
                "client.id": f"{group}.{instance}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "max.partition.fetch.bytes": _PART_OF_A_FETCH,
                # Offsets of transactional topics have gaps: only this event says that a partition's end is reached.
                "enable.partition.eof": True,
                "max.poll.interval.ms": int(max_poll_interval_s * 1000),
            },
            logger=logger,
        )
        self._consumer.subscribe(list(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """See `headway.ports.EventLog.poll`."""
        try:
            self._recover()
            return self._poll(limit, timeout_s)
        except BaseException:
            # Nobody gets what had been taken, and the client would go on behind it.
            self._must_rewind = True
            raise

    def _poll(self, limit: int, timeout_s: float) -> list[Message]:
        time.sleep(max(0.0, self._take_after_s - time.monotonic()))
        # Not consume(limit, timeout_s) alone: that waits the whole timeout for the batch to fill.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        begun_s = time.monotonic()
        messages = self._owned(self._take(first, limit))
        self._take_after_s = begun_s + _APART_S if 0 < len(messages) < limit // 2 else 0.0
        # Taken with the messages, not at commit: if this member is expelled in between, the broker must see the
        # membership under which they were read, and refuse.
        self._membership = self._consumer.consumer_group_metadata()
        if messages and not self._consumer.memberid():
            # Expelled and not yet told. Offsets sent without a member id are not checked by the broker.
            raise TransientFailure(f"{self._who}: expelled from its group. Poll again.")
        if messages and self._paused:
            # They were on their way while the pause was set.
            self._put_back(messages)
            return []
        return messages

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        """See `headway.ports.EventLog.commit`."""
        try:
            self._transactions.write(outputs, next_offsets(inputs), self._membership)
        except TransientFailure as failure:
            self._must_rewind = True
            raise TransientFailure(
                f"{self._who}: commit of {len(inputs)} inputs failed ({failure}). The log is rewound to what is "
                "committed: drop everything computed since the last commit and poll again."
            ) from failure
        except PermanentFailure:
            raise
        except BaseException:
            self._must_rewind = True
            raise

    def rewind(self) -> None:
        """See `headway.ports.EventLog.rewind`; done at the next poll when the broker cannot be asked now."""
        self._must_rewind = True
        if not self._assigned:
            self._must_rewind = False
            return
        try:
            asked = [KafkaTopicPartition(*where) for where in sorted(self._assigned)]
            committed = self._consumer.committed(asked, timeout=_OFFSETS_TIMEOUT_S)
            self._seek((each.topic, each.partition, each.offset) for each in committed)
        except KafkaException as error:
            logger.warning("rewind postponed: %s", error, extra={"log": self._who})
        else:
            self._must_rewind = False

    def pause(self) -> None:
        """See `headway.ports.EventLog.pause`."""
        self._paused = True
        self._consumer.pause([KafkaTopicPartition(*where) for where in self._assigned])

    def resume(self) -> None:
        """See `headway.ports.EventLog.resume`."""
        self._paused = False
        self._ends = {}
        self._consumer.resume([KafkaTopicPartition(*where) for where in self._assigned])

    def assignment(self) -> frozenset[TopicPartition]:
        """See `headway.ports.EventLog.assignment`."""
        return frozenset(self._assigned)

    def is_member(self) -> bool:
        """See `headway.ports.EventLog.is_member`; asks the broker, as the client is not told of an empty assignment."""
        if not self._known_member and self._asks_now():
            self._known_member = is_in_group(self._common, group=self._group, member=self._consumer.memberid())
        return self._known_member

    def at_end(self) -> frozenset[TopicPartition]:
        """See `headway.ports.EventLog.at_end`."""
        return frozenset(self._ended)

    def lag(self) -> dict[TopicPartition, int]:
        """See `headway.ports.EventLog.lag`; from what fetches told, and from the broker while paused."""
        found = {}
        if self._paused and self._asks_now():
            self._ends = self._ask_ends()
        for each in self._consumer.position([KafkaTopicPartition(*where) for where in self._assigned]):
            where = TopicPartition(each.topic, each.partition)
            _, end = self._consumer.get_watermark_offsets(each, cached=True)
            end = max(end, self._ends.get(where, end))
            if where in self._ended and not self._paused:
                found[where] = 0
            elif each.offset >= 0 and end >= 0:
                found[where] = max(0, end - each.offset)
        return found

    def close(self) -> None:
        """See `headway.ports.EventLog.close`."""
        self._consumer.close()
        self._transactions.drop()

    def _recover(self) -> None:
        """Have a producer, which also ends any transaction its predecessor left, and only then ask for offsets."""
        self._transactions.ensure()
        if self._must_rewind:
            # Serves news of the group, which would otherwise wait for as long as rewinding fails; whatever message
            # this takes comes again after the rewind.
            self._consumer.poll(0)
            self.rewind()
        if self._must_rewind:
            raise TransientFailure(
                f"{self._who}: the committed offsets of {len(self._assigned)} partitions could not be read within "
                f"{_OFFSETS_TIMEOUT_S:.0f} s. Is the broker up? Poll again."
            )

    def _take(self, first: KafkaMessage, limit: int) -> list[Message]:
        """Whatever waits in the client's queue, within the bounds."""
        messages = self._readable([first])
        taken, size = 1, len(first)
        while taken < limit and size < self._batch_bytes:
            try:
                more = self._consumer.consume(min(_TAKEN_AT_ONCE, limit - taken), 0)
            except KafkaException as error:
                raise self._stuck(error.args[0]) from error
            if not more:
                break
            messages += self._readable(more)
            taken += len(more)
            size += sum(map(len, more))
        return messages

    def _readable(self, received: Sequence[KafkaMessage]) -> list[Message]:
        messages: list[Message] = []
        for each in received:
            error = each.error()
            if error is None:
                message = as_message(each)
                if self._ended:
                    self._ended.discard(TopicPartition(message.topic, message.partition))
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the SDK's name for it
                self._ended |= {TopicPartition(each.topic() or "", each.partition() or 0)} & self._assigned
            else:
                failure = self._stuck(error)
                if isinstance(failure, PermanentFailure):
                    raise failure
                logger.info("consumer event: %s", error.str(), extra={"log": self._who})
        return messages

    def _owned(self, messages: list[Message]) -> list[Message]:
        """Those of partitions that are still ours: taking serves news of the group."""
        if self._assigned.issuperset(map(_PLACE, messages)):
            return messages
        return [message for message in messages if _PLACE(message) in self._assigned]

    def _put_back(self, messages: Sequence[Message]) -> None:
        first: dict[TopicPartition, int] = {}
        for message in messages:
            first.setdefault(TopicPartition(message.topic, message.partition), message.offset)
        self._seek((*where, offset) for where, offset in first.items())

    def _seek(self, offsets: Iterable[tuple[str, int, int]]) -> None:
        self._ended.clear()
        for topic, partition, offset in offsets:
            start = offset if offset >= 0 else OFFSET_BEGINNING
            self._consumer.seek(KafkaTopicPartition(topic, partition, start))

    def _stuck(self, error: KafkaError) -> PermanentFailure | TransientFailure:
        if error.fatal():
            return PermanentFailure(f"{self._who}: the consumer cannot go on ({error.str()}). Restart this process.")
        return TransientFailure(f"{self._who}: reading failed ({error.str()}). Poll again.")

    def _asks_now(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._ask_after_s:
            return False
        self._ask_after_s = now_s + _ASK_EVERY_S
        return True

    def _ask_ends(self) -> dict[TopicPartition, int]:
        ends = {}
        try:
            for where in self._assigned:
                _, ends[where] = self._consumer.get_watermark_offsets(KafkaTopicPartition(*where), timeout=0.5)
        except KafkaException as error:
            logger.info("ends not known: %s", error, extra={"log": self._who})
        return ends

    def _assign(self, consumer: Consumer, partitions: Sequence[KafkaTopicPartition]) -> None:
        gained = _as_partitions(partitions)
        # By us rather than after this call, so that a paused log stays paused: a fetch may start at once.
        consumer.incremental_assign(list(partitions))
        if self._paused:
            consumer.pause(list(partitions))
        else:
            # What went while it was paused is still paused for the client when it comes back, and nobody else knows.
            consumer.resume(list(partitions))
        self._assigned.update(gained)
        self._known_member = True
        self._on_assign(gained)

    def _revoke(self, _: Consumer, partitions: Sequence[KafkaTopicPartition]) -> None:
        self._let_go(partitions, self._on_revoke)

    def _lose(self, _: Consumer, partitions: Sequence[KafkaTopicPartition]) -> None:
        self._let_go(partitions, self._on_lost)

    def _let_go(self, partitions: Sequence[KafkaTopicPartition], tell: PartitionCallback) -> None:
        gone = _as_partitions(partitions)
        self._assigned.difference_update(gone)
        self._ended.difference_update(gone)
        if gone:
            tell(gone)


def _membership_settings(
    protocol: GroupProtocol, topics: Sequence[str], *, max_poll_interval_s: float
) -> dict[str, Any]:
    if protocol == "consumer":
        # Session and heartbeat are the broker's business here, and librdkafka refuses them on the client.
        # Range gives partition p of every topic to one member, so that state kept by partition has one owner, and a
        # job has as many instances with work as partitions. Uniform spreads topics apart; with one topic there is
        # nothing to spread, and it moves fewer partitions when a member comes or goes.
        return {"group.protocol": "consumer", "group.remote.assignor": "range" if len(topics) > 1 else "uniform"}
    return {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        # librdkafka refuses a session that outlasts the longest gap between two polls.
        "session.timeout.ms": int(min(_SESSION_TIMEOUT_S, max_poll_interval_s) * 1000),
        "heartbeat.interval.ms": 1000,
    }


def _as_partitions(partitions: Sequence[KafkaTopicPartition]) -> list[TopicPartition]:
    return sorted(TopicPartition(each.topic, each.partition) for each in partitions)
