"""Stream scores for a product application: an iterator over ``scores.<product>``, in a group of the application's own.

    with subscribe("flight_delay", group="gate-screens") as scores:
        for delivery in scores:
            show(delivery.score.subject, delivery.score.probability)
            delivery.ack()

At least once: what is not acknowledged comes again after a restart, or to another instance of the group. Only committed
scores are seen. Acknowledge in any order: what is committed is, in each partition, everything before the first score that
is still open. Refuses to run away from an application that never acknowledges.

What bites: `Subscription.poll` also serves the group; an application that neither polls nor iterates for five minutes is
expelled, and gets again what it had not acknowledged.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import uuid4

import structlog

from headway.clock import monotonic_s
from headway.errors import ContractViolation, TransientFailure
from headway.ports import EventLog, Message, PartitionCallback, TopicPartition
from headway.scores import Score, decode_score
from headway.topics import scores_topic

# What an application may hold unacknowledged; some 2 kB each.
MOST_OPEN = 10_000
_AT_ONCE = 500
_COMMIT_EVERY_S = 1.0
_WAIT_S = 0.5
_LOG = structlog.get_logger()

# Makes the log, which is to call this when partitions go.
OpenLog = Callable[[PartitionCallback], EventLog]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One score, and the way to say that it is dealt with. ``partition`` and ``offset`` are its place in the topic."""

    score: Score
    partition: int
    offset: int
    acknowledge: Callable[[int, int], None]

    def ack(self) -> None:
        """Have it count as dealt with; from any thread. Repeating it, or doing it too late, is nothing."""
        self.acknowledge(self.partition, self.offset)


@dataclass
class _Open:
    """A record that was taken, and whether it is acknowledged."""

    message: Message
    done: bool = False


class Subscription:
    """Scores as they are committed. One thread, or one task, takes; any may acknowledge."""

    def __init__(self, open_log: OpenLog, *, most_open: int = MOST_OPEN) -> None:
        self._open: dict[int, dict[int, _Open]] = {}
        self._ready: deque[Delivery] = deque()
        self._most_open = most_open
        self._held = threading.Lock()
        self._closed = threading.Event()
        self._commit_after_s = monotonic_s() + _COMMIT_EVERY_S
        self._log = open_log(self._let_go)

    def poll(self, timeout_s: float) -> Delivery | None:
        """Return the next score, or None when none came in time; acknowledged ones are committed on the way.

        Raises:
            ContractViolation: too many are open.
        """
        self._commit_when_due()
        if not self._ready:
            self._take(timeout_s)
        return self._ready.popleft() if self._ready else None

    def commit(self) -> None:
        """Commit what is acknowledged now; it is done every second of polling anyway. By whoever polls."""
        self._commit_after_s = monotonic_s() + _COMMIT_EVERY_S
        done = self._done()
        if not done:
            return
        try:
            self._log.commit(done, [])
        except TransientFailure as failure:
            _LOG.warning("acknowledgements not committed; scores come again", scores=len(done), reason=str(failure))
            self._forget()
            return
        with self._held:
            for message in done:
                self._open.get(message.partition, {}).pop(message.offset, None)

    def close(self) -> None:
        """Commit what is acknowledged and leave the group; iterations end."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.commit()
        self._log.close()

    def __iter__(self) -> Iterator[Delivery]:
        """Iterate until `close`."""
        while not self._closed.is_set():
            delivery = self.poll(_WAIT_S)
            if delivery is not None:
                yield delivery

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Iterate until `close`, waiting in a thread so that the event loop goes on."""
        while not self._closed.is_set():
            delivery = self.poll(0) if self._ready else await asyncio.to_thread(self.poll, _WAIT_S)
            if delivery is not None:
                yield delivery

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what was in hand when the body raised comes again."""
        self.close()

    def _take(self, timeout_s: float) -> None:
        with self._held:
            count = sum(map(len, self._open.values()))
        if count >= self._most_open:
            raise ContractViolation(
                f"subscription: {count:,} scores are not acknowledged, wanted fewer than {self._most_open:,}; "
                "call ack() on each delivery once it is dealt with"
            )
        try:
            messages = self._log.poll(min(_AT_ONCE, self._most_open - count), timeout_s)
        except TransientFailure as failure:
            _LOG.warning("scores not reachable; polling again", reason=str(failure))
            self._forget()
            return
        for message in messages:
            self._offer(message)

    def _offer(self, message: Message) -> None:
        with self._held:
            self._open.setdefault(message.partition, {})[message.offset] = _Open(message)
        try:
            score = decode_score(message.value or b"")
        except ContractViolation as error:
            # Nothing the application could do about it, and it would stand in the way of everything after it.
            _LOG.error(
                "no score", topic=message.topic, partition=message.partition, offset=message.offset, reason=str(error)
            )
            self._acknowledge(message.partition, message.offset)
            return
        self._ready.append(
            Delivery(score=score, partition=message.partition, offset=message.offset, acknowledge=self._acknowledge)
        )

    def _acknowledge(self, partition: int, offset: int) -> None:
        with self._held:
            record = self._open.get(partition, {}).get(offset)
            if record is not None:
                record.done = True

    def _commit_when_due(self) -> None:
        if monotonic_s() >= self._commit_after_s:
            self.commit()

    def _done(self) -> list[Message]:
        """Whole prefixes: in each partition everything before the first that is open."""
        done: list[Message] = []
        with self._held:
            for records in self._open.values():
                for record in records.values():
                    if not record.done:
                        break
                    done.append(record.message)
        return done

    def _let_go(self, partitions: Sequence[TopicPartition]) -> None:
        gone = {each.partition for each in partitions}
        with self._held:
            for partition in gone:
                self._open.pop(partition, None)
        self._ready = deque(delivery for delivery in self._ready if delivery.partition not in gone)

    def _forget(self) -> None:
        """Drop what was taken: the log gives all of it again."""
        with self._held:
            self._open.clear()
        self._ready.clear()


def subscribe(product: str, *, group: str, bootstrap: str | None = None, instance: str | None = None) -> Subscription:
    """Subscribe an application to the scores of a product, from the oldest the log keeps.

    Args:
        product: its name.
        group: of the application; instances with the same name share the scores.
        bootstrap: brokers, host:port,...; as ``HEADWAY_KAFKA_BOOTSTRAP`` or the local stack when None.
        instance: tells instances of the group apart, and is best kept across restarts; drawn when None.
    """
    from headway.adapters.kafka_log import KafkaEventLog
    from headway.settings import Settings

    settings = Settings()

    def open_log(let_go: PartitionCallback) -> EventLog:
        return KafkaEventLog(
            bootstrap=bootstrap or settings.kafka_bootstrap,
            group=f"headway.app.{product}.{group}",
            topics=[scores_topic(product)],
            instance=instance or str(uuid4()),
            on_revoke=let_go,
            protocol=settings.group_protocol,
        )

    return Subscription(open_log)
