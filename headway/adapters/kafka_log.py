"""A stream job's view of Kafka: one consumer in a group, one transactional producer (SEMANTICS S14).

Thin over confluent-kafka. What bites is settled here: a commit whose outcome is unknown is ended by a new producer
before offsets are asked for again.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from headway.adapters.kafka_client import (
    DURABLE,
    PERMANENT_CODES,
    READ_COMMITTED,
    as_message,
    client_settings,
    hand_over,
    name_record,
    unreachable,
)
from headway.errors import PermanentFailure, TransientFailure
from headway.ports import Message, PartitionCallback, Record, TopicPartition, next_offsets

logger = logging.getLogger(__name__)

GroupProtocol = Literal["consumer", "classic"]

# Short, as news of the group wait behind it (see `KafkaEventLog.poll`), and asking again costs nothing.
_OFFSETS_TIMEOUT_S = 2.0


class KafkaEventLog:
    """`headway.ports.EventLog` on Kafka: one consumer in a group and one transactional producer.

    ``instance`` names this process within the group and must stay the same across its restarts and differ
    between processes that run together: it is the transactional id, by which a restarted process ends what its
    predecessor left open. Connects at the first poll.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        instance: str,
        on_assign: PartitionCallback | None = None,
        on_revoke: PartitionCallback | None = None,
        protocol: GroupProtocol = "consumer",
        transaction_timeout_s: float = 10.0,
        max_poll_interval_s: float = 300.0,
        security: Mapping[str, str] | None = None,
    ) -> None:
        self._who = f"{group} ({instance})"
        self._timeout_s = transaction_timeout_s
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._assigned: set[TopicPartition] = set()
        self._membership: Any = None  # the SDK's opaque group metadata
        self._producer: Producer | None = None
        self._must_rewind = False
        self._undelivered: list[tuple[KafkaError, str]] = []
        common = client_settings(bootstrap, security)
        self._producer_settings: dict[str, Any] = {
            **common,
            **DURABLE,
            "transactional.id": f"{group}.{instance}",
            "transaction.timeout.ms": int(transaction_timeout_s * 1000),
            # A batch is handed over at once, so waiting for more only delays the commit.
            "linger.ms": 0,
            # While the broker still writes the last commit's markers it answers "try again", and this is the wait.
            "retry.backoff.ms": 5,
            # Commit only says how many records failed; these calls, none for a delivered one, say which and why.
            "delivery.report.only.error": True,
            "on_delivery": self._note_undelivered,
        }
        self._consumer = Consumer(
            {
                **common,
                **READ_COMMITTED,
                **_membership_settings(protocol),
                "group.id": group,
                "client.id": f"{group}.{instance}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "max.poll.interval.ms": int(max_poll_interval_s * 1000),
            },
            logger=logger,
        )
        self._consumer.subscribe(list(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """See `headway.ports.EventLog.poll`."""
        self._recover()
        # Not consume(limit, timeout_s) alone: that waits the whole timeout for the batch to fill.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        try:
            rest = self._consumer.consume(limit - 1, 0) if limit > 1 else []
        except KafkaException as error:
            raise self._stuck(error.args[0]) from error
        messages = self._readable([first, *rest])
        # Taken with the messages, not at commit: if this member is expelled in between, the broker must see the
        # membership under which they were read, and refuse.
        self._membership = self._consumer.consumer_group_metadata()
        if messages and not self._consumer.memberid():
            # Expelled and not yet told. Offsets sent without a member id are not checked by the broker.
            self._must_rewind = True
            return []
        return messages

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        """See `headway.ports.EventLog.commit`."""
        producer = self._producer
        if producer is None:
            self._must_rewind = True
            raise self._rewound("there is no producer, as an earlier commit failed", inputs)
        offsets = [KafkaTopicPartition(*where, offset) for where, offset in next_offsets(inputs).items()]
        self._undelivered.clear()
        try:
            producer.begin_transaction()
            for record in outputs:
                self._produce(producer, record)
            if offsets:
                producer.send_offsets_to_transaction(offsets, self._membership, self._timeout_s)
            producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            cause, which = (self._undelivered or [(error.args[0], "the transaction")])[0]
            self._end_failed_transaction(producer, error.args[0])
            # The raised error keeps this frame, and would keep a replaced producer alive and connected with it.
            del producer
            if cause.code() in PERMANENT_CODES:
                raise PermanentFailure(
                    f"{self._who}: Kafka refuses {which} ({cause.str()}). Nothing was written. Retrying sends the same "
                    "record: fix its size, topic or permission."
                ) from error
            raise self._rewound(f"{which}: {cause.str()}", inputs) from error

    def rewind(self) -> None:
        """See `headway.ports.EventLog.rewind`; done at the next poll when the broker cannot be asked now."""
        self._must_rewind = True
        if not self._assigned:
            self._must_rewind = False
            return
        try:
            asked = [KafkaTopicPartition(*where) for where in sorted(self._assigned)]
            committed = self._consumer.committed(asked, timeout=_OFFSETS_TIMEOUT_S)
            for each in committed:
                offset = each.offset if each.offset >= 0 else OFFSET_BEGINNING
                self._consumer.seek(KafkaTopicPartition(each.topic, each.partition, offset))
        except KafkaException as error:
            logger.warning("rewind postponed: %s", error, extra={"log": self._who})
        else:
            self._must_rewind = False

    def assignment(self) -> frozenset[TopicPartition]:
        """See `headway.ports.EventLog.assignment`."""
        return frozenset(self._assigned)

    def close(self) -> None:
        """See `headway.ports.EventLog.close`."""
        self._consumer.close()
        self._drop_producer()

    def _recover(self) -> None:
        """Have a producer, which also ends any transaction its predecessor left, and only then ask for offsets."""
        if self._producer is None:
            producer = Producer(self._producer_settings, logger=logger)
            try:
                producer.init_transactions(self._timeout_s)
            except KafkaException as error:
                raise unreachable(f"{self._who}: transactions could not be started", error) from error
            self._producer = producer
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

    def _produce(self, producer: Producer, record: Record) -> None:
        while True:
            try:
                hand_over(producer, record)
            except BufferError:
                # The local queue is full: wait for acknowledgements to make room.
                producer.poll(0.05)
            except KafkaException as error:
                self._undelivered.append((error.args[0], name_record(record.topic, record.key)))
                raise
            else:
                return

    def _note_undelivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            self._undelivered.append((error, name_record(message.topic(), message.key())))

    def _end_failed_transaction(self, producer: Producer, cause: KafkaError) -> None:
        """Abort where the outcome is known, else replace the producer; then rewind."""
        aborted = False
        # A record refused on the spot fails no transaction: nothing but the call itself says so.
        if cause.txn_requires_abort() or cause.code() in PERMANENT_CODES:
            try:
                producer.abort_transaction(self._timeout_s)
                aborted = True
            except KafkaException as error:
                logger.warning("abort failed: %s", error, extra={"log": self._who})
        if not aborted:
            # Timed out or fatal: only a new producer's start settles whether it was committed (S14).
            self._drop_producer()
            self._must_rewind = True
            return
        self.rewind()

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _readable(self, received: Sequence[KafkaMessage]) -> list[Message]:
        messages: list[Message] = []
        for each in received:
            error = each.error()
            if error is not None:
                failure = self._stuck(error)
                if isinstance(failure, PermanentFailure):
                    raise failure
                logger.info("consumer event: %s", error.str(), extra={"log": self._who})
                continue
            message = as_message(each)
            if (message.topic, message.partition) in self._assigned:
                messages.append(message)
        return messages

    def _stuck(self, error: KafkaError) -> PermanentFailure | TransientFailure:
        if error.fatal():
            return PermanentFailure(f"{self._who}: the consumer cannot go on ({error.str()}). Restart this process.")
        return TransientFailure(f"{self._who}: reading failed ({error.str()}). Poll again.")

    def _rewound(self, cause: str, inputs: Sequence[Message]) -> TransientFailure:
        return TransientFailure(
            f"{self._who}: commit of {len(inputs)} inputs failed ({cause}). The log is rewound to what is committed: "
            "drop everything computed since the last commit and poll again."
        )

    def _assign(self, _: Consumer, partitions: Sequence[KafkaTopicPartition]) -> None:
        gained = _as_partitions(partitions)
        self._assigned.update(gained)
        if gained and self._on_assign is not None:
            self._on_assign(gained)

    def _revoke(self, _: Consumer, partitions: Sequence[KafkaTopicPartition]) -> None:
        gone = _as_partitions(partitions)
        self._assigned.difference_update(gone)
        if gone and self._on_revoke is not None:
            self._on_revoke(gone)


def _membership_settings(protocol: GroupProtocol) -> dict[str, Any]:
    if protocol == "consumer":
        # Session and heartbeat are the broker's business here, and librdkafka refuses them on the client.
        # Range gives partition p of every topic to one member, so that state kept by partition has one owner, and a
        # job has as many instances with work as partitions; uniform, the default, spreads topics apart.
        return {"group.protocol": "consumer", "group.remote.assignor": "range"}
    return {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1000,
    }


def _as_partitions(partitions: Sequence[KafkaTopicPartition]) -> list[TopicPartition]:
    return sorted(TopicPartition(each.topic, each.partition) for each in partitions)
