"""One loop for every stream job: poll a micro-batch, transform it, commit inputs and outputs together (S14).

A handler is pure in its messages: it returns records and keeps only state it can restore. When a transaction does not
commit, the handler's state has run ahead of the log, so it is thrown away and restored before the batch is read again.
Sinks outside Kafka are idempotent on their own and write before the offsets are committed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.ports import EventLog, Message, Record, TopicPartition

_LOG = structlog.get_logger()

# Large enough to amortise a transaction (about 10 ms), small enough to bound memory and what an abort repeats.
BATCH_LIMIT = 2000
POLL_TIMEOUT_S = 0.2

Restore = Callable[[str, int], Iterable[Message]]


class Handler(Protocol):
    """Messages in, messages out; owns whatever state it needs per assigned partition."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Load the state of newly assigned partitions."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the state of partitions that now belong to somebody else."""
        ...

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return what the batch becomes; called again with the same messages after an abort."""
        ...


@dataclass(frozen=True, kw_only=True)
class Flushed:
    """What a sink has dealt with: messages that are safe to commit, and letters for those its store refused for good.

    Offsets and letters go into one transaction, so a record is in the store or is a letter, never both or neither.
    """

    messages: Sequence[Message]
    letters: Sequence[Record] = ()


class Sink(Protocol):
    """Writes messages outside Kafka; every write is idempotent, so a repeat after a crash changes nothing."""

    def offer(self, batch: Sequence[Message]) -> None:
        """Take messages into the buffer."""
        ...

    def due(self, now_s: float) -> bool:
        """Whether the buffer is old or large enough to be written."""
        ...

    def flush(self) -> Flushed:
        """Write the buffer and return what is now safe to commit."""
        ...

    def drop(self) -> None:
        """Forget what was offered and not flushed; it will be offered again, here or elsewhere."""
        ...


class Worker(Protocol):
    """A job at work: told which partitions it owns, and run on its log."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Take over partitions before their first message comes."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Let go of partitions; nothing of theirs may be committed any more."""
        ...

    def run(self, log: EventLog, *, stopped: Callable[[], bool]) -> None:
        """Work until ``stopped``; what is under way is finished first."""
        ...


def partitions_of(owned: Iterable[TopicPartition]) -> list[int]:
    """Return the distinct partition numbers of an assignment, ascending."""
    return sorted({each.partition for each in owned})


class HandlerWorker:
    """Runs a Kafka-to-Kafka handler; exactly once by transactions."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.assigned = handler.assigned
        self.revoked = handler.revoked

    def run(self, log: EventLog, *, stopped: Callable[[], bool]) -> None:
        """Run until ``stopped``."""
        while not stopped():
            batch = _poll(log)
            if not batch:
                continue
            outputs = self._handler.handle(batch)
            try:
                log.commit(batch, outputs)
            except TransientFailure as failure:
                _LOG.warning("transaction not committed; reading again", reason=str(failure), messages=len(batch))
                owned = partitions_of(log.assignment())
                self._handler.revoked(owned)
                self._handler.assigned(owned)


class SinkWorker:
    """Runs a Kafka-to-store sink; offsets are committed only after the store has the messages."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._must_rewind = False

    def assigned(self, partitions: Sequence[int]) -> None:
        """Nothing to load: the store knows what it holds."""

    def revoked(self, partitions: Sequence[int]) -> None:  # noqa: ARG002  # the whole buffer is read again
        """Forget what is not written; it is read again by the next owner, and here for partitions that stay."""
        self._sink.drop()
        self._must_rewind = True

    def run(self, log: EventLog, *, stopped: Callable[[], bool]) -> None:
        """Run until ``stopped``, then write what is buffered."""
        while not stopped():
            batch = _poll(log)
            if self._must_rewind:
                self._must_rewind = False
                log.rewind()
                continue
            if batch:
                self._sink.offer(batch)
            if self._sink.due(monotonic_s()):
                self._write(log)
        self._write(log)

    def _write(self, log: EventLog) -> None:
        try:
            flushed = self._sink.flush()
            if flushed.messages:
                log.commit(flushed.messages, flushed.letters)
        except TransientFailure as failure:
            _LOG.warning("sink not written; reading again", reason=str(failure))
            self._sink.drop()
            log.rewind()


def _poll(log: EventLog) -> list[Message]:
    try:
        return log.poll(BATCH_LIMIT, POLL_TIMEOUT_S)
    except TransientFailure as failure:
        _LOG.warning("log not reachable; polling again", reason=str(failure))
        return []
