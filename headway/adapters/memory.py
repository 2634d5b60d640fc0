"""The event log in memory, with partitions, groups and transactions: for tests and for trying a job out.

Shipped, because whoever writes a handler wants to run it without a broker. Not for use from several threads,
nothing is kept, and retention and compaction do not happen. It is less patient than Kafka on purpose: a member
that joins takes its partitions at once, and whoever held them has its next commit refused.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headway.errors import HeadwayError, PermanentFailure, TransientFailure
from headway.ports import (
    BATCH_BYTES,
    CommitCallback,
    CommitStep,
    Message,
    PartitionCallback,
    Position,
    Record,
    TopicPartition,
    newest_by_key,
    next_offsets,
)
from headway.topics import Topic, partition_of


class SimulatedCrash(BaseException):
    """What a job sees where a real one would be killed: let it end the job, then make a new log and go on.

    No `Exception`, as nobody catches a kill: a runtime that answers for a handler's errors must not answer for this.
    """


def _nothing(_: Sequence[TopicPartition]) -> None:
    """Ignore a change of assignment."""


def _no_step(_: CommitStep) -> None:
    """Pass every step of a commit."""


@dataclass
class MemoryBroker:
    """Topics, groups and committed offsets; everything that outlives a process in the real thing.

    ``crash_before_commit`` makes the next commit of any job raise `SimulatedCrash` with its outputs written and
    not committed; ``refuse_commits`` makes that many commits fail as a transient failure.
    """

    clock_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    crash_before_commit: bool = False
    refuse_commits: int = 0
    _partitions: dict[str, list[list[Message | None]]] = field(default_factory=dict)
    _members: dict[str, list["MemoryLog"]] = field(default_factory=lambda: defaultdict(list))
    _committed: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)
    _holders: dict[str, "MemoryExclusiveWriter"] = field(default_factory=dict)
    _keyless: int = 0

    def create(self, topics: Iterable[Topic]) -> list[str]:
        """Create the topics that are missing; returns their names."""
        created = []
        for topic in topics:
            if topic.name not in self._partitions:
                self._partitions[topic.name] = [[] for _ in range(topic.partitions)]
                created.append(topic.name)
        return created

    def append(self, record: Record, *, committed: bool = True) -> Position:
        """Write one record; not committed means it takes an offset that no reader will ever see."""
        logs = self._logs(record.topic)
        where = self._partition(record, count=len(logs))
        offset = len(logs[where])
        message = Message(record.topic, where, offset, record.key, record.value, record.headers, self.clock_ms())
        logs[where].append(message if committed else None)
        return Position(record.topic, where, offset)

    def check(self, record: Record) -> None:
        """Return when the record can be written; raises `PermanentFailure` for an unknown topic or partition."""
        self._partition(record, count=len(self._logs(record.topic)))

    def write_transaction(self, records: Sequence[Record], *, committed: bool) -> None:
        """Write records and then, as Kafka does, one marker per partition touched, which takes an offset too."""
        positions = [self.append(record, committed=committed) for record in records]
        for topic, partition in {(position.topic, position.partition) for position in positions}:
            self._partitions[topic][partition].append(None)

    def messages(self, where: TopicPartition, *, start: int = 0) -> Iterator[Message]:
        """Committed messages of one partition from an offset on, to the end as of now."""
        logs = self._logs(where.topic)
        if not 0 <= where.partition < len(logs):
            raise PermanentFailure(f"{where.topic}: has no partition {where.partition}, only 0 to {len(logs) - 1}.")
        return (message for message in logs[where.partition][start:] if message is not None)

    def end(self, where: TopicPartition) -> int:
        """Offset after the last one taken, markers included."""
        return len(self._logs(where.topic)[where.partition])

    def partition_count(self, topic: str) -> int:
        """Number of partitions of a topic that exists."""
        return len(self._logs(topic))

    def committed(self, group: str, where: TopicPartition) -> int:
        """Offset the group reads next; 0 before its first commit."""
        return self._committed.get((group, where), 0)

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Set the offsets a group reads next."""
        for where, offset in offsets.items():
            self._committed[group, where] = offset

    def join(self, group: str, member: "MemoryLog") -> None:
        """Add a member to a group."""
        self._members[group].append(member)

    def leave(self, group: str, member: "MemoryLog") -> None:
        """Remove a member from a group; the others find its partitions theirs at their next poll."""
        if member in self._members[group]:
            self._members[group].remove(member)

    def owned(self, group: str, member: "MemoryLog") -> frozenset[TopicPartition]:
        """Partitions that belong to a member now."""
        members = self._members[group]
        if member not in members:
            return frozenset()
        every = sorted(
            TopicPartition(topic, number) for topic in member.topics for number in range(self.partition_count(topic))
        )
        return frozenset(every[members.index(member) :: len(members)])

    def hold(self, name: str, writer: "MemoryExclusiveWriter") -> None:
        """Make a writer the only one of its name."""
        self._holders[name] = writer

    def holder(self, name: str) -> "MemoryExclusiveWriter | None":
        """The writer that claimed a name last."""
        return self._holders.get(name)

    def _logs(self, topic: str) -> list[list[Message | None]]:
        try:
            return self._partitions[topic]
        except KeyError:
            raise PermanentFailure(
                f"{topic}: no such topic. Create it first (headway.topics names them all)."
            ) from None

    def _partition(self, record: Record, *, count: int) -> int:
        if record.partition is not None:
            if not 0 <= record.partition < count:
                raise PermanentFailure(f"{record.topic}: has no partition {record.partition}, only 0 to {count - 1}.")
            return record.partition
        if record.key is not None:
            return partition_of(record.key, count)
        self._keyless += 1
        return self._keyless % count


class MemoryLog:
    """`headway.ports.EventLog` on a `MemoryBroker`.

    `crash` is what the real one cannot do to itself: the instance is gone as by SIGKILL, and its group knows at once.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        group: str,
        topics: Sequence[str],
        on_assign: PartitionCallback = _nothing,
        on_revoke: PartitionCallback = _nothing,
        on_lost: PartitionCallback | None = None,
        on_step: CommitCallback = _no_step,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.topics = tuple(topics)
        self._broker = broker
        self._group = group
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        # Here partitions go to a new member without being asked back, which is what being lost means.
        self._on_lost = on_lost or on_revoke
        self._on_step = on_step
        self._batch_bytes = batch_bytes
        self._positions: dict[TopicPartition, int] = {}
        self._ended: set[TopicPartition] = set()
        self._paused = False
        self._member = False
        self._closed = False
        self._crashed = False
        broker.join(group, self)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:  # noqa: ARG002 - nothing can arrive meanwhile
        """See `headway.ports.EventLog.poll`; never waits."""
        self._must_be_alive()
        self._follow_assignment()
        self._member = True
        batch: list[Message] = []
        size = 0
        for where in [] if self._paused else sorted(self._positions):
            for message in self._broker.messages(where, start=self._positions[where]):
                if len(batch) == limit or size >= self._batch_bytes:
                    return batch
                self._ended.discard(where)
                batch.append(message)
                size += len(message.key or b"") + len(message.value or b"")
                self._positions[where] = message.offset + 1
            self._ended.add(where)
        return batch

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        """See `headway.ports.EventLog.commit`."""
        self._must_be_alive()
        offsets = next_offsets(inputs)
        self._on_step("before_produce")
        for record in outputs:
            self._broker.check(record)
        try:
            self._on_step("after_produce")
            if self._broker.crash_before_commit:
                self._broker.crash_before_commit = False
                self.crash()
                self._must_be_alive()
            self._on_step("before_commit")
        except BaseException:
            self._broker.write_transaction(outputs, committed=False)
            self.rewind()
            raise
        lost = sorted(offsets.keys() - self._broker.owned(self._group, self))
        if lost or self._broker.refuse_commits:
            self._broker.refuse_commits -= not lost
            self._broker.write_transaction(outputs, committed=False)
            self.rewind()
            reason = f"{lost} now belong to another instance" if lost else "refused as planted"
            raise TransientFailure(
                f"{self._group}: commit of {len(inputs)} inputs failed ({reason}). Nothing was written and the log is "
                "rewound: drop what was computed and poll again."
            )
        self._broker.write_transaction(outputs, committed=True)
        self._broker.commit_offsets(self._group, offsets)
        self._on_step("after_commit")

    def rewind(self) -> None:
        """See `headway.ports.EventLog.rewind`."""
        self._ended.clear()
        for where in self._positions:
            self._positions[where] = self._broker.committed(self._group, where)

    def pause(self) -> None:
        """See `headway.ports.EventLog.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See `headway.ports.EventLog.resume`."""
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether `pause` was called and `resume` was not."""
        return self._paused

    def crash(self) -> None:
        """Be gone as by SIGKILL: no callback, nothing committed, and whoever uses this log gets `SimulatedCrash`."""
        self._crashed = self._closed = True
        self._positions.clear()
        self._broker.leave(self._group, self)

    def assignment(self) -> frozenset[TopicPartition]:
        """See `headway.ports.EventLog.assignment`."""
        return frozenset(self._positions)

    def is_member(self) -> bool:
        """See `headway.ports.EventLog.is_member`."""
        return self._member

    def at_end(self) -> frozenset[TopicPartition]:
        """See `headway.ports.EventLog.at_end`."""
        return frozenset(self._ended)

    def lag(self) -> dict[TopicPartition, int]:
        """See `headway.ports.EventLog.lag`."""
        return {
            where: 0 if where in self._ended and not self._paused else self._broker.end(where) - position
            for where, position in self._positions.items()
        }

    def close(self) -> None:
        """See `headway.ports.EventLog.close`."""
        if self._closed:
            return
        self._closed = True
        self._broker.leave(self._group, self)
        self._let_go(self.assignment(), self._on_revoke)

    def _must_be_alive(self) -> None:
        if self._crashed:
            raise SimulatedCrash(f"{self._group}: this instance has crashed. Make a new log.")

    def _follow_assignment(self) -> None:
        owned = self._broker.owned(self._group, self)
        self._let_go(self.assignment() - owned, self._on_lost)
        gained = sorted(owned - self.assignment())
        if gained:
            for where in gained:
                self._positions[where] = self._broker.committed(self._group, where)
            self._on_assign(gained)

    def _let_go(self, partitions: Collection[TopicPartition], tell: PartitionCallback) -> None:
        if partitions:
            for where in partitions:
                del self._positions[where]
                self._ended.discard(where)
            tell(sorted(partitions))


class MemoryPublisher:
    """`headway.ports.Publisher` on a `MemoryBroker`; everything is acknowledged at once."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, records: Sequence[Record]) -> None:
        """See `headway.ports.Publisher.publish`."""
        for record in records:
            self._broker.append(record)

    def publish_async(self, record: Record) -> asyncio.Future[Position]:
        """See `headway.ports.Publisher.publish_async`."""
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._broker.append(record))
        except PermanentFailure as failure:
            future.set_exception(failure)
        return future

    def publish_each_async(self, records: Sequence[Record]) -> asyncio.Future[Mapping[int, HeadwayError]]:
        """See `headway.ports.Publisher.publish_each_async`."""
        future: asyncio.Future[Mapping[int, HeadwayError]] = asyncio.get_running_loop().create_future()
        failures: dict[int, HeadwayError] = {}
        for place, record in enumerate(records):
            try:
                self._broker.append(record)
            except PermanentFailure as failure:
                failures[place] = failure
        future.set_result(failures)
        return future

    def flush(self, timeout_s: float) -> None:
        """Return: nothing is ever under way."""

    def close(self) -> None:
        """Return: there is nothing to release."""


class MemoryExclusiveWriter:
    """`headway.ports.ExclusiveWriter` on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, *, name: str) -> None:
        self._broker = broker
        self._name = name

    def claim(self) -> None:
        """See `headway.ports.ExclusiveWriter.claim`."""
        self._broker.hold(self._name, self)

    def write(self, records: Sequence[Record]) -> None:
        """See `headway.ports.ExclusiveWriter.write`."""
        for record in records:
            self._broker.check(record)
        if self._broker.holder(self._name) is not self:
            raise PermanentFailure(f"{self._name}: another process has claimed this name; nothing was written.")
        if self._broker.crash_before_commit:
            self._broker.crash_before_commit = False
            self._broker.write_transaction(records, committed=False)
            raise SimulatedCrash(f"{self._name}: crashed as planted, {len(records)} records written, none committed")
        if self._broker.refuse_commits:
            self._broker.refuse_commits -= 1
            self._broker.write_transaction(records, committed=False)
            raise TransientFailure(f"{self._name}: refused as planted; claim again and read what is there.")
        self._broker.write_transaction(records, committed=True)

    def close(self) -> None:
        """Return: there is nothing to release."""


class MemoryReader:
    """`headway.ports.LogReader` on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def read(self, topic: str, *, partitions: Collection[int] | None = None) -> Iterator[Message]:
        """See `headway.ports.LogReader.read`."""
        numbers = range(self._broker.partition_count(topic)) if partitions is None else sorted(partitions)
        found = [list(self._broker.messages(TopicPartition(topic, number))) for number in numbers]
        return (message for messages in found for message in messages)

    def read_after(self, topic: str, partition: int, offset: int) -> Iterator[Message]:
        """See `headway.ports.LogReader.read_after`."""
        return iter(list(self._broker.messages(TopicPartition(topic, partition), start=offset + 1)))

    def read_compacted(self, topic: str, partition: int) -> list[Message]:
        """See `headway.ports.LogReader.read_compacted`."""
        return newest_by_key(self.read(topic, partitions=[partition]))

    def close(self) -> None:
        """Return: there is nothing to release."""
