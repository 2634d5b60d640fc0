"""What the core asks of the outside world, as protocols; `headway.adapters` holds the answers.

A port names behaviour, never a vendor. Each has one contract suite that runs against the in-memory adapter
and the real one.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from headway.errors import HeadwayError


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Position(NamedTuple):
    """Where a record was written: it can be read there from now on."""

    topic: str
    partition: int
    offset: int


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record as read from a log. ``value`` None is a tombstone; ``timestamp_ms`` is when it was produced (Unix).

    A Struct, like `Record`, because a frozen dataclass costs five times as much to build, twice per event.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record to write. Without ``partition`` the key decides, by `headway.topics.partition_of`.

    Carries no timestamp on purpose: retention counts from it, and a replayed event of 2013 would be deleted
    the moment it is written. Event time travels in headers and body.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


# The points of a commit at which a test may strike, in order. ``after_produce``: the records are handed over, inside the
# transaction, and the offsets are not sent yet. ``after_commit``: acknowledged, and the caller does not know it yet.
CommitStep = Literal["before_produce", "after_produce", "before_commit", "after_commit"]
CommitCallback = Callable[[CommitStep], None]

# What one poll returns at most, in bytes of keys and values; a batch of 2,000 records of 256 KiB would be 512 MiB.
BATCH_BYTES = 16 * 1024 * 1024

# Called from inside `EventLog.poll` and `EventLog.close`, never from another thread.
PartitionCallback = Callable[[Sequence[TopicPartition]], None]


class EventLog(Protocol):
    """One stream job's view of the log: a member of a consumer group that answers in transactions.

    Not for use from two threads. Construction takes the group, the topics, three `PartitionCallback`s and two more:
    ``on_assign`` runs before the first message of a new partition is returned,
    ``on_revoke`` when partitions are handed back in good order (drop their state),
    ``on_lost`` when they were taken away and somebody else may have them already; ``on_revoke`` unless given.
    After both nothing may be committed for them any more, and the log refuses it.
    ``on_step`` is called inside `commit` with each `CommitStep` as it is reached: what it raises ends the commit there.
    ``batch_bytes`` bounds what one poll returns.
    """

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        """Up to ``limit`` committed messages, in order per partition; empty when none came within ``timeout_s``.

        Returns as soon as there is something, and with fewer once their keys and values pass ``batch_bytes``. While
        paused it returns nothing, and still serves the group: an instance that stops polling is expelled.

        Raises:
            TransientFailure: the log is not reachable or not ready, or this instance was expelled. What was polled since
                the last commit comes again: drop it, and poll again.
            PermanentFailure: this instance cannot go on; restart the process.
        """

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        """Write ``outputs`` and mark ``inputs`` as done, both or neither.

        ``inputs`` must hold whole prefixes: everything polled per partition since the last commit, up to some message.

        Raises:
            TransientFailure: the log has been rewound to what is committed; drop everything computed since the
                last commit, restored state included, and poll again. The outcome of this very commit may be either:
                the messages polled next tell.
        """

    def rewind(self) -> None:
        """Make the next poll start after the last commit, as if nothing had been polled since."""

    def pause(self) -> None:
        """Have polls return nothing until `resume`, from partitions that come meanwhile too; repeating it is nothing."""

    def resume(self) -> None:
        """Go on where reading stopped, or where `rewind` has put it meanwhile."""

    def assignment(self) -> frozenset[TopicPartition]:
        """Partitions this instance owns now; empty for an instance beyond the number of partitions."""

    def is_member(self) -> bool:
        """Whether the group has taken this instance in; true of an idle one. May ask the log, every other second."""

    def at_end(self) -> frozenset[TopicPartition]:
        """Owned partitions of which everything committed has been polled, as far as the last poll could tell."""

    def lag(self) -> dict[TopicPartition, int]:
        """Offsets between what was polled and the end, per owned partition; 0 for those `at_end`.

        Offsets, not messages: those of markers and aborted records are counted until the end is reached. May ask the
        log while paused, as nothing is fetched then; a partition whose end is not known is left out.
        """

    def close(self) -> None:
        """Leave the group at once. What was polled and not committed goes to another instance."""


class Publisher(Protocol):
    """Writes records outside any transaction; acknowledged means replicated as the topic demands."""

    def publish(self, records: Sequence[Record]) -> None:
        """Write all records and return when each is acknowledged.

        Raises:
            TransientFailure: names the first record that was not acknowledged in time; it, and others, may still
                have been written.
            PermanentFailure: the log refuses the record for what it is (too large, for one).
        """

    def publish_async(self, record: Record) -> "asyncio.Future[Position]":
        """A future of the running loop: the position once acknowledged, or the failure `publish` would raise."""

    def publish_each_async(self, records: Sequence[Record]) -> "asyncio.Future[Mapping[int, HeadwayError]]":
        """A future of the running loop, done when every record is settled: the failures, by place in ``records``.

        Empty when all are acknowledged. Costs one wake of the loop, however many records there are.
        """

    def flush(self, timeout_s: float) -> None:
        """Wait until everything handed over is acknowledged or failed.

        Raises:
            TransientFailure: something is still under way after ``timeout_s``.
        """

    def close(self) -> None:
        """Flush as far as possible and stop."""


class ExclusiveWriter(Protocol):
    """Writes records in transactions under a fixed name, as the only one of that name.

    For people's decisions: read what has been decided after `claim`, decide, write. Nobody decides in between.
    """

    def claim(self) -> None:
        """Become the only writer of the name: what the one before left open is undone, and its next write fails.

        Raises:
            TransientFailure: the log is not reachable.
        """

    def write(self, records: Sequence[Record]) -> None:
        """Write all records or none, and return when all are committed.

        Raises:
            PermanentFailure: another process has claimed the name, or the log refuses a record for what it is.
                Nothing was written.
            TransientFailure: it failed in some other way, and may have been written all the same.

        After either, claim again and read what is there before deciding anew.
        """

    def close(self) -> None:
        """Release connections; what is not committed is undone."""


class LogReader(Protocol):
    """Reads what is committed, belonging to no group: for ledgers, parity, state restore and tests."""

    def read(self, topic: str, *, partitions: Collection[int] | None = None) -> Iterator[Message]:
        """Every committed message up to the end as it is when the call is made; order holds within a partition.

        Waits for transactions that are open at that end. Offsets have gaps: markers and aborted records take some.

        Raises:
            TransientFailure: the end was not reached in time.
            PermanentFailure: there is no such topic or partition.
        """

    def read_after(self, topic: str, partition: int, offset: int) -> Iterator[Message]:
        """Every committed message of one partition beyond an offset, up to the end as it is when the call is made.

        -1 is before the first. What retention has deleted meanwhile is left out.

        Raises:
            TransientFailure: the end was not reached in time.
            PermanentFailure: there is no such topic or partition.
        """

    def read_compacted(self, topic: str, partition: int) -> list[Message]:
        """The newest message of every key that is not deleted, in offset order, whether or not compaction has run."""

    def close(self) -> None:
        """Release connections."""


class EnrichmentItem(msgspec.Struct, frozen=True, gc=False):
    """One body to enrich."""

    event_type: str
    body: msgspec.Struct


class Enriched(msgspec.Struct, frozen=True, gc=False):
    """Enrichment columns, the version of the reference data they come from, and when they were fetched (monotonic)."""

    columns: dict[str, Any]
    version: str
    fetched_s: float

    def age_s(self, now_s: float) -> float:
        """Return how old the answer is."""
        return max(0.0, now_s - self.fetched_s)


class EnrichmentRefused(msgspec.Struct, frozen=True, gc=False):
    """The reference data does not know what the body names; ``detail`` names field, got and wanted."""

    detail: str
    field: str | None
    version: str


class EnrichmentFailed(msgspec.Struct, frozen=True, gc=False):
    """This body alone failed, time and again, while others were answered."""

    detail: str
    attempts: int


EnrichmentAnswer = Enriched | EnrichmentRefused | EnrichmentFailed


class Enrichment(Protocol):
    """Static reference data behind a call. What it answers depends on the body and on ``version`` alone.

    Attributes:
        items_at_once: how many items to ask for in one call.
    """

    @property
    def items_at_once(self) -> int:
        """See the class."""

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        """One answer per item, in order.

        Raises:
            DependencyDown: nothing is answered at present; wait and ask for all of it again.
        """

    def close(self) -> None:
        """Release connections."""


FieldKind = Literal["keyword", "text", "long", "double", "boolean", "date", "stored"]


@dataclass(frozen=True, kw_only=True)
class IndexTemplate:
    """What every index whose name fits ``pattern`` is made of; a field that is not declared is refused.

    Attributes:
        fields: name to kind. ``date`` is RFC 3339 text; ``stored`` is text that is kept and cannot be searched.
    """

    name: str
    pattern: str
    fields: Mapping[str, FieldKind]


@dataclass(frozen=True, slots=True)
class Document:
    """One document to write, under an id that a repeat would use again. ``fields`` is JSON without nulls."""

    index: str
    id: str
    fields: Mapping[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Refused:
    """A document the index will never take as it is, and why, in its words."""

    document: Document
    reason: str


@dataclass(frozen=True, kw_only=True)
class Created:
    """What became of documents: ``known`` were there before, from an earlier attempt or another writer."""

    created: int
    known: int
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One document as read, with the fields asked for that it has."""

    index: str
    id: str
    fields: Mapping[str, Any]  # Any: JSON


@dataclass(frozen=True, kw_only=True)
class Between:
    """Documents whose date ``field`` lies in [start, end), microseconds since the epoch."""

    field: str
    start_us: int
    end_us: int


class SearchIndex(Protocol):
    """Documents under ids, in indexes by day. A pattern is an index name that may end in ``*``."""

    def put_template(self, template: IndexTemplate) -> None:
        """Declare what new indexes are made of, and give indexes that are there the fields they lack.

        Raises:
            ContractViolation: an index that is there has a field of another kind; names it.
            TransientFailure: the store cannot be reached; repeat.
        """

    def create(self, documents: Sequence[Document]) -> Created:
        """Write each document unless its id is in its index already: the first write wins, a repeat changes nothing.

        What the store cannot take now is tried again for a while, alone; what it took stays.

        Raises:
            TransientFailure: the store did not take all of them in time; repeat the same call.
        """

    def known(self, pattern: str, ids: Collection[str], *, outside: Collection[str] = ()) -> frozenset[str]:
        """Which of these ids are in any index of the pattern but those ``outside``, all writes before this included."""

    def scan(self, pattern: str, *, fields: Sequence[str], between: Between | None = None) -> Iterator[Found]:
        """Every document of a pattern as of this call, all writes before it included; in no particular order."""

    def count(self, pattern: str) -> int:
        """How many documents there are, all writes before this call included."""

    def indexes(self, pattern: str) -> list[str]:
        """Names of the indexes there are, in name order."""

    def drop(self, index: str) -> None:
        """Delete one index, named in full; nothing happens when there is none."""

    def close(self) -> None:
        """Release connections."""


class InstanceCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances of a job are wanted and how many work; ``held`` when a person decides the number."""

    wanted: int
    ready: int
    held: bool


class Fleet(Protocol):
    """Whatever runs stream jobs: a supervisor on one machine, an orchestrator of containers in a cluster."""

    def counts(self) -> Mapping[str, InstanceCount]:
        """The jobs that run here, by name.

        Raises:
            TransientFailure: nobody answers.
        """

    def scale(self, job: str, instances: int) -> None:
        """Want so many instances of a job from now on; returns before they are there.

        Raises:
            PermanentFailure: there is no such job, it has no work for so many, or a person holds another number.
            TransientFailure: nobody answers.
        """


def next_offsets(inputs: Iterable[Message]) -> dict[TopicPartition, int]:
    """The offset to read next per partition once ``inputs`` are done."""
    offsets: dict[tuple[str, int], int] = {}
    for message in inputs:
        where = (message.topic, message.partition)
        if message.offset >= offsets.get(where, 0):
            offsets[where] = message.offset + 1
    return {TopicPartition(*where): offset for where, offset in offsets.items()}


def newest_by_key(messages: Iterable[Message]) -> list[Message]:
    """The last message of every key that is not a tombstone, in offset order: what compaction will leave."""
    newest: dict[bytes | None, Message] = {}
    for message in messages:
        newest.pop(message.key, None)
        if message.value is not None:
            newest[message.key] = message
    return list(newest.values())
