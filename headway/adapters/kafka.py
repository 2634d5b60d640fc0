"""Apache Kafka behind the log ports: transactional jobs, acknowledged publishing, reads to the end, topics.

Thin over confluent-kafka. Three things bite and are settled here: a commit whose outcome is unknown is ended by
a new producer before offsets are asked for again (S14); offsets of transactional topics have gaps, so an end is
known by the broker's end-of-partition event and never by counting; and keys go to partitions as Java's clients
send them, so that a Spark or Java producer agrees with us.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public by its manual, not by __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.ports import (
    Message,
    PartitionCallback,
    Position,
    Record,
    TopicPartition,
    newest_by_key,
    next_offsets,
)
from headway.topics import Topic, TopicDrift, find_drift

logger = logging.getLogger(__name__)

GroupProtocol = Literal["consumer", "classic"]

_OnDelivery = Callable[[KafkaError | None, KafkaMessage], None]

# Long enough for a broker to restart under a request, short enough for a person who waits.
_REQUEST_TIMEOUT_S = 10.0

# Short, as news of the group wait behind it (see `KafkaEventLog.poll`), and asking again costs nothing.
_OFFSETS_TIMEOUT_S = 2.0

# Refusals that repeat for as long as the record or the permissions are what they are.
_PERMANENT_CODES = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - the SDK's public name for a client-side code
    }
)


def admin_client(bootstrap: str, *, security: Mapping[str, str] | None = None) -> AdminClient:
    """An admin client for `apply_topics` and `topic_drift`; ``security`` holds librdkafka's SASL and TLS settings."""
    return AdminClient(_client_settings(bootstrap, security))


def apply_topics(admin: AdminClient, topics: Sequence[Topic]) -> list[str]:
    """Make the topics as declared; returns what was done, one line each, empty when nothing was to do.

    Creates topics and sets their settings. Returns when the brokers know every new topic.

    Raises:
        ContractViolation: a topic exists with another number of partitions or replicas; nothing was changed.
        TransientFailure: the brokers did not answer, or did not finish in time.
    """
    drift = topic_drift(admin, topics)
    unfixable = [each for each in drift if each.field in ("partitions", "replication_factor")]
    if unfixable:
        raise ContractViolation(
            f"{'; '.join(f'topic {each.topic}: {each.field} is {each.got}, wanted {each.wanted}' for each in unfixable)}. "
            "This cannot be changed under keyed data. Declare what exists, or move to a new topic; on one machine "
            "with nothing to keep, `headway down` and remove the state folder."
        )
    missing = {each.topic for each in drift if each.field == "topic"}
    _create_topics(admin, [topic for topic in topics if topic.name in missing])
    _set_configs(admin, [each for each in drift if each.topic not in missing])
    return [f"{name}: created" for name in sorted(missing)] + [
        f"{each.topic}: {each.field} {each.got} -> {each.wanted}" for each in drift if each.topic not in missing
    ]


def group_members(admin: AdminClient, group: str) -> int:
    """Return how many members a consumer group has now; 0 when there is no such group.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    [future] = admin.describe_consumer_groups([group], request_timeout=_REQUEST_TIMEOUT_S).values()
    try:
        return len(future.result(_REQUEST_TIMEOUT_S).members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise _unreachable(f"group {group} could not be read", error) from error


def topic_drift(admin: AdminClient, topics: Sequence[Topic]) -> list[TopicDrift]:
    """Every way in which the brokers' topics differ from the declared ones, in the order of ``topics``.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    try:
        known = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        present = [topic for topic in topics if topic.name in known]
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in present]
        futures = admin.describe_configs(resources) if resources else {}
        configs = {
            resource.name: {key: entry.value for key, entry in future.result(_REQUEST_TIMEOUT_S).items()}
            for resource, future in futures.items()
        }
    except KafkaException as error:
        raise _unreachable("topics could not be read", error) from error
    drift: list[TopicDrift] = []
    for topic in topics:
        actual = known.get(topic.name)
        partitions = None if actual is None else len(actual.partitions)
        replicas = 0 if actual is None else len(actual.partitions[0].replicas)
        config = configs.get(topic.name, {})
        drift += find_drift(topic, partitions=partitions, replication_factor=replicas, config=config)
    return drift


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
        common = _client_settings(bootstrap, security)
        self._producer_settings: dict[str, Any] = {
            **common,
            **_DURABLE,
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
                **_READ_COMMITTED,
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
            if cause.code() in _PERMANENT_CODES:
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
                raise _unreachable(f"{self._who}: transactions could not be started", error) from error
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
                _hand_over(producer, record)
            except BufferError:
                # The local queue is full: wait for acknowledgements to make room.
                producer.poll(0.05)
            except KafkaException as error:
                self._undelivered.append((error.args[0], _name(record.topic, record.key)))
                raise
            else:
                return

    def _note_undelivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            self._undelivered.append((error, _name(message.topic(), message.key())))

    def _end_failed_transaction(self, producer: Producer, cause: KafkaError) -> None:
        """Abort where the outcome is known, else replace the producer; then rewind."""
        aborted = False
        # A record refused on the spot fails no transaction: nothing but the call itself says so.
        if cause.txn_requires_abort() or cause.code() in _PERMANENT_CODES:
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
            message = _as_message(each)
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


class KafkaPublisher:
    """`headway.ports.Publisher` on Kafka: acks=all, idempotent, no transaction. Safe from several threads.

    ``linger_ms`` trades latency for batch size; ``delivery_timeout_s`` is when an unacknowledged record is given
    up. Giving up says nothing about whether it was written. One background thread serves acknowledgements.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        linger_ms: float = 1.0,
        delivery_timeout_s: float = 10.0,
        security: Mapping[str, str] | None = None,
    ) -> None:
        self._delivery_timeout_s = delivery_timeout_s
        self._acknowledged: deque[tuple[asyncio.Future[Position], Position | Exception]] = deque()
        self._producer = Producer(
            {
                **_client_settings(bootstrap, security),
                **_DURABLE,
                "linger.ms": linger_ms,
                "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            },
            logger=logger,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-publisher", daemon=True)
        self._thread.start()

    def publish(self, records: Sequence[Record]) -> None:
        """See `headway.ports.Publisher.publish`."""
        failures: list[tuple[Record, KafkaError]] = []
        unsettled = _Countdown(len(records))

        def settle(record: Record) -> _OnDelivery:
            def on_delivery(error: KafkaError | None, _: KafkaMessage) -> None:
                if error is not None:
                    failures.append((record, error))
                unsettled.down()

            return on_delivery

        for record in records:
            self._hand_over_patiently(record, on_delivery=settle(record))
        # librdkafka settles every record within its own timeout; the extra second is for the callback to get here.
        if not unsettled.wait(self._delivery_timeout_s + 1.0):
            raise TransientFailure(
                f"{len(records)} records: not all acknowledged in {self._delivery_timeout_s:.0f} s. Retry."
            )
        if failures:
            raise self._refused(*failures[0])

    def publish_async(self, record: Record) -> asyncio.Future[Position]:
        """See `headway.ports.Publisher.publish_async`. A full local queue fails the future at once."""
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def on_delivery(error: KafkaError | None, message: KafkaMessage) -> None:
            outcome = self._refused(record, error) if error is not None else _position(message)
            self._acknowledged.append((future, outcome))

        try:
            _hand_over(self._producer, record, on_delivery=on_delivery)
        except BufferError:
            future.set_exception(self._queue_full(record))
        except KafkaException as error:
            future.set_exception(self._refused(record, error.args[0]))
        return future

    def flush(self, timeout_s: float) -> None:
        """See `headway.ports.Publisher.flush`."""
        remaining = self._producer.flush(timeout_s)
        self._resolve_futures()
        if remaining:
            raise TransientFailure(
                f"{remaining} records are not acknowledged after {timeout_s:.1f} s. Is the broker up? Flush again."
            )

    def close(self) -> None:
        """See `headway.ports.Publisher.close`; waits at most the delivery timeout."""
        self._producer.flush(self._delivery_timeout_s)
        self._closing.set()
        self._thread.join()
        self._resolve_futures()

    def _hand_over_patiently(self, record: Record, *, on_delivery: _OnDelivery) -> None:
        deadline = time.monotonic() + self._delivery_timeout_s
        while True:
            try:
                return _hand_over(self._producer, record, on_delivery=on_delivery)
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise self._queue_full(record) from error
                # The background thread makes room as acknowledgements come.
                time.sleep(0.005)
            except KafkaException as error:
                raise self._refused(record, error.args[0]) from error

    def _serve(self) -> None:
        while not self._closing.is_set():
            # Returns at the first acknowledgement; the bound is only how long close() may wait for the thread.
            self._producer.poll(0.2)
            self._resolve_futures()

    def _resolve_futures(self) -> None:
        """Wake each event loop once for all that arrived: waking it per record costs more than the record."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Position], Position | Exception]]] = {}
        while self._acknowledged:
            try:
                settled = self._acknowledged.popleft()
            except IndexError:
                # Another thread, in flush or close, took the last one.
                break
            by_loop.setdefault(settled[0].get_loop(), []).append(settled)
        for loop, batch in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, batch)
            except RuntimeError:
                logger.warning("event loop closed with %d acknowledgements on their way", len(batch))

    def _refused(self, record: Record, error: KafkaError) -> PermanentFailure | TransientFailure:
        what = f"{_name(record.topic, record.key)} was not acknowledged ({error.str()})"
        if error.code() in _PERMANENT_CODES:
            return PermanentFailure(f"{what}. The same record will be refused again.")
        return TransientFailure(f"{what}. It may or may not have been written; publish it again, readers drop repeats.")

    def _queue_full(self, record: Record) -> TransientFailure:
        return TransientFailure(
            f"{_name(record.topic, record.key)} was not sent, the local queue is full. The broker is slower than the "
            "producer; slow down or retry later."
        )


class KafkaReader:
    """`headway.ports.LogReader` on Kafka: reads by assignment, joins no group, commits nothing.

    One consumer, opened anew for each read: two reads may run side by side.
    """

    def __init__(self, *, bootstrap: str, timeout_s: float = 30.0, security: Mapping[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._settings: dict[str, Any] = {
            **_client_settings(bootstrap, security),
            **_READ_COMMITTED,
            # Required by the SDK, used for nothing.
            "group.id": "headway.reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # How long the broker waits before it says "nothing more", which is how a read ends.
            "fetch.wait.max.ms": 20,
        }

    def read(self, topic: str, *, partitions: Collection[int] | None = None) -> Iterator[Message]:
        """See `headway.ports.LogReader.read`. ``timeout_s`` bounds each wait for more, not the whole read."""
        consumer = Consumer(self._settings, logger=logger)
        try:
            ends = self._ends(consumer, topic, partitions)
        except BaseException:
            consumer.close()
            raise
        return self._read_to(consumer, ends)

    def read_compacted(self, topic: str, partition: int) -> list[Message]:
        """See `headway.ports.LogReader.read_compacted`."""
        return newest_by_key(self.read(topic, partitions=[partition]))

    def close(self) -> None:
        """Return: each read closes its own connection."""

    def _ends(self, consumer: Consumer, topic: str, partitions: Collection[int] | None) -> dict[TopicPartition, int]:
        """High watermarks, which count open transactions too: an instance that takes over must see how they ended."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._ends_now(consumer, topic, partitions)
            except KafkaException as error:
                # A partition whose leader has only just been elected answers that it is not the leader.
                if time.monotonic() > deadline:
                    raise _unreachable(f"{topic}: its end could not be read", error) from error
                time.sleep(0.05)

    def _ends_now(
        self, consumer: Consumer, topic: str, partitions: Collection[int] | None
    ) -> dict[TopicPartition, int]:
        known = consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S).topics[topic]
        missing = known.error is not None or bool(set(partitions or ()) - known.partitions.keys())
        if missing:
            raise PermanentFailure(
                f"{topic}: no such topic or partition (asked for {sorted(partitions or ()) or 'all'}, found "
                f"{sorted(known.partitions)}). Apply the topic table first."
            )
        numbers = sorted(known.partitions) if partitions is None else sorted(partitions)
        ends = {}
        for number in numbers:
            low, high = consumer.get_watermark_offsets(KafkaTopicPartition(topic, number), timeout=_REQUEST_TIMEOUT_S)
            if high > low:
                ends[TopicPartition(topic, number)] = high
        return ends

    def _read_to(self, consumer: Consumer, ends: Mapping[TopicPartition, int]) -> Iterator[Message]:
        open_ends = dict(ends)
        try:
            consumer.assign([KafkaTopicPartition(*where, OFFSET_BEGINNING) for where in open_ends])
            waited_from = time.monotonic()
            while open_ends:
                batch = consumer.consume(2000, 0.02)
                if batch:
                    waited_from = time.monotonic()
                elif time.monotonic() - waited_from > self._timeout_s:
                    raise TransientFailure(
                        f"{sorted(open_ends)}: the end was not reached within {self._timeout_s:.0f} s. A transaction "
                        "may be open there, or the broker is gone. Read again."
                    )
                for each in batch:
                    yield from _up_to_end(each, open_ends)
        finally:
            consumer.close()


def _up_to_end(received: KafkaMessage, open_ends: dict[TopicPartition, int]) -> Iterator[Message]:
    """The message if it lies before its partition's end; takes the partition out of ``open_ends`` at the end."""
    where = TopicPartition(received.topic() or "", received.partition() or 0)
    error = received.error()
    end = open_ends.get(where)
    offset = received.offset()
    if end is None or offset is None:
        return
    if error is not None:
        # The end-of-partition event carries the next offset to fetch, which steps over markers as position() does not.
        if error.code() == KafkaError._PARTITION_EOF and offset >= end:  # noqa: SLF001 - the SDK's name for it
            del open_ends[where]
        return
    if offset < end:
        yield _as_message(received)
    if offset >= end - 1:
        del open_ends[where]


class _Countdown:
    """Lets one thread wait for a number of callbacks in another."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()

    def down(self) -> None:
        with self._changed:
            self._count -= 1
            if self._count <= 0:
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count <= 0, timeout_s)


_DURABLE: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    # Java's and Spark's default; librdkafka's own differs, and two producers must agree where a key lives.
    "partitioner": "murmur2_random",
}

_READ_COMMITTED: Mapping[str, Any] = {
    "isolation.level": "read_committed",
    # The defaults prefetch 64 MB, then pause for a second when that is full.
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.queue.backoff.ms": 10,
    # A committed transaction does not wake a waiting fetch at once: the wait is the latency of every hop.
    "fetch.wait.max.ms": 20,
}


def _client_settings(bootstrap: str, security: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        **(security or {}),
        "bootstrap.servers": bootstrap,
        "socket.nagle.disable": True,
        # The default backs off to 10 s, which is what a broker's restart would then cost every client.
        "reconnect.backoff.max.ms": 1000,
    }


def _membership_settings(protocol: GroupProtocol) -> dict[str, Any]:
    if protocol == "consumer":
        # Session and heartbeat are the broker's business here, and librdkafka refuses them on the client.
        return {"group.protocol": "consumer"}
    return {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1000,
    }


def _hand_over(producer: Producer, record: Record, *, on_delivery: _OnDelivery | None = None) -> None:
    producer.produce(
        record.topic,
        value=record.value,
        key=record.key,
        partition=-1 if record.partition is None else record.partition,
        headers=list(record.headers),
        on_delivery=on_delivery,
    )


def _name(topic: str | None, key: str | bytes | None) -> str:
    return f"{topic}: record with key {key!r}"


def _settle(batch: Sequence[tuple[asyncio.Future[Position], Position | Exception]]) -> None:
    for future, outcome in batch:
        if future.done():
            # Whoever waited has gone (a client that hung up); the record is written all the same.
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _position(message: KafkaMessage) -> Position:
    return Position(message.topic() or "", message.partition() or 0, message.offset() or 0)


def _as_message(message: KafkaMessage) -> Message:
    return Message(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        # The SDK's hint also allows what only producers may pass: a dict, and str values.
        tuple((name, value or b"") for name, value in cast("list[tuple[str, bytes | None]]", message.headers() or [])),
        message.timestamp()[1],
    )


def _as_partitions(partitions: Sequence[KafkaTopicPartition]) -> list[TopicPartition]:
    return sorted(TopicPartition(each.topic, each.partition) for each in partitions)


def _create_topics(admin: AdminClient, topics: Sequence[Topic]) -> None:
    if not topics:
        return
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=topic.full_config,
        )
        for topic in topics
    ]
    for name, future in admin.create_topics(new, operation_timeout=_REQUEST_TIMEOUT_S).items():
        try:
            future.result(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            # Two services may apply the table at the same moment.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _unreachable(f"topic {name} could not be created", error) from error
    _wait_for_leaders(admin, topics)


def _wait_for_leaders(admin: AdminClient, topics: Sequence[Topic]) -> None:
    """A topic just created is unknown to the brokers' clients for a moment; a first produce would fail."""
    deadline = time.monotonic() + _REQUEST_TIMEOUT_S
    names = {topic.name: topic.partitions for topic in topics}
    while True:
        known = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        waiting = [
            name
            for name, partitions in names.items()
            if name not in known
            or len(known[name].partitions) < partitions
            or any(each.leader < 0 for each in known[name].partitions.values())
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise TransientFailure(
                f"topics {waiting}: created, but without a leader after {_REQUEST_TIMEOUT_S:.0f} s. Retry."
            )
        time.sleep(0.05)


def _set_configs(admin: AdminClient, drift: Sequence[TopicDrift]) -> None:
    changes: dict[str, list[ConfigEntry]] = {}
    for each in drift:
        entry = ConfigEntry(each.field, each.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(each.topic, []).append(entry)
    if not changes:
        return
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        for name, entries in changes.items()
    ]
    for resource, future in admin.incremental_alter_configs(resources).items():
        try:
            future.result(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise _unreachable(f"settings of topic {resource.name} could not be changed", error) from error


def _unreachable(what: str, error: KafkaException) -> TransientFailure:
    return TransientFailure(f"{what} ({error.args[0].str()}). Is the broker up, and is its address right? Retry.")
