"""One loop for every stream job: poll a micro-batch, transform it, commit inputs and outputs together (S14).

A handler is pure in its messages: it returns records and keeps only state it can restore. When a transaction does not
commit, the handler's state has run ahead of the log, so it is thrown away and restored before the batch is read again.
Sinks outside Kafka are idempotent on their own and write before the offsets are committed.

Nothing stops the loop but a stop. What a handler raises is answered by what it says: `TransientFailure` and OSError
hold the batch back, anything else is taken as the fault of a record, which is searched for and becomes a letter, unless
the records beside it fail too. docs/streaming.md has the table.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headway.clock import monotonic_s
from headway.errors import DependencyDown, Overtaken, TransientFailure
from headway.ports import EventLog, Message, Record, TopicPartition
from streaming.instruments import Instruments
from streaming.isolate import Poison
from streaming.loop import Loop
from streaming.patience import NotCommitted, StateUnreadable

# A sink's buffer in memory; past it nothing more is taken until it is written.
BUFFER_BYTES = 64 * 1024 * 1024

Restore = Callable[[str, int], Iterable[Message]]


class Handler(Protocol):
    """Messages in, messages out; owns whatever state it needs per assigned partition."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Load the state of newly assigned partitions; raise TransientFailure to be asked again."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the state of partitions that now belong to somebody else, or that has run ahead of the log."""
        ...

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return what the batch becomes; called again with the same messages after an abort.

        Raises:
            DependencyDown: something of ours that it needs does not answer; the batch comes again.
            Exception: a bug; the batch comes again in parts, until the record that it fails on is found.
        """
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
        """Write the buffer and return what is now safe to commit: all of it, or whole prefixes of partitions.

        Raises:
            TransientFailure: the store is away or full; the buffer is dropped and comes again.
            Exception: a bug, or a record the store can never take; it is searched for and becomes a letter.
        """
        ...

    def drop(self) -> None:
        """Forget what was offered and not flushed; it will be offered again, here or elsewhere."""
        ...


class Worker(Protocol):
    """A job at work: told which partitions it owns, and run on its log."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """Take over partitions before their first message comes; called while polling, so only note it."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """Let go of partitions; nothing of theirs may be committed any more."""
        ...

    def run(self, log: EventLog, *, stopped: Callable[[], bool], instruments: Instruments | None = None) -> None:
        """Work until ``stopped``; what is under way is finished first."""
        ...


def partitions_of(owned: Iterable[TopicPartition]) -> list[int]:
    """Return the distinct partition numbers of an assignment, ascending."""
    return sorted({each.partition for each in owned})


class HandlerWorker:
    """Runs a Kafka-to-Kafka handler; exactly once by transactions."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._unrestored: set[int] = set()

    def assigned(self, partitions: Sequence[int]) -> None:
        """Note the partitions; their state is restored before their first message is handled."""
        self._unrestored.update(partitions)

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the partitions."""
        self._unrestored.difference_update(partitions)
        self._handler.revoked(partitions)

    def run(self, log: EventLog, *, stopped: Callable[[], bool], instruments: Instruments | None = None) -> None:
        """Run until ``stopped``."""
        loop = Loop(log, instruments or Instruments())
        while not stopped():
            batch = loop.poll()
            try:
                if not loop.patience.holding:
                    self._restore(loop)
                if batch:
                    loop.work(
                        batch,
                        attempt=lambda part: self._attempt(loop, part),
                        fails=lambda message: self._fails(loop, message),
                        undo=lambda: self._forget(log),
                    )
            except NotCommitted as failure:
                loop.not_committed(failure, messages=len(batch))
                self._forget(log)
            except (TransientFailure, OSError) as failure:
                self._forget(log)
                loop.hold(failure, records=len(batch))

    def _restore(self, loop: Loop) -> None:
        if not self._unrestored:
            return
        partitions = sorted(self._unrestored)
        try:
            with loop.metrics.time("restore"):
                self._handler.assigned(partitions)
        except TransientFailure as failure:
            raise StateUnreadable(f"state of partitions {partitions}: {failure}") from failure
        self._unrestored.difference_update(partitions)

    def _forget(self, log: EventLog) -> None:
        """Throw state away that has run ahead of the log; it is restored before anything else is handled."""
        owned = partitions_of(log.assignment())
        self._handler.revoked(owned)
        self._unrestored.update(owned)

    def _attempt(self, loop: Loop, part: Sequence[Message]) -> None:
        self._restore(loop)
        with loop.instruments.in_hand(part):
            try:
                loop.instruments.hit("before_handle")
                with loop.metrics.time("handle"):
                    outputs = self._handler.handle(part)
                loop.instruments.hit("after_handle")
            except (TransientFailure, OSError):
                raise
            except Exception as error:
                raise Poison from error
        loop.commit(part, outputs)
        loop.instruments.note_done(part)

    def _fails(self, loop: Loop, message: Message) -> bool:
        """Whether a record fails alone; what it becomes is thrown away, and so is the state, afterwards."""
        self._restore(loop)
        with loop.instruments.in_hand([message]):
            try:
                self._handler.handle([message])
            except (TransientFailure, OSError):
                raise
            except Exception:  # noqa: BLE001 - which bug it is does not matter for this count
                return True
        return False


class SinkWorker:
    """Runs a Kafka-to-store sink; offsets are committed only after the store has the messages."""

    def __init__(self, sink: Sink, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._sink = sink
        self._buffer_bytes = buffer_bytes
        self._taken: list[Message] = []
        self._taken_bytes = 0
        self._must_rewind = False

    def assigned(self, partitions: Sequence[int]) -> None:
        """Nothing to load: the store knows what it holds."""

    def revoked(self, partitions: Sequence[int]) -> None:  # noqa: ARG002  # the whole buffer is read again
        """Forget what is not written; it is read again by the next owner, and here for partitions that stay."""
        self._drop()
        self._must_rewind = True

    def run(self, log: EventLog, *, stopped: Callable[[], bool], instruments: Instruments | None = None) -> None:
        """Run until ``stopped``, then write what is buffered."""
        loop = Loop(log, instruments or Instruments(), on_rewound=self._drop)
        while not stopped():
            batch = loop.poll()
            if self._must_rewind:
                self._must_rewind = False
                log.rewind()
                continue
            if batch:
                self._sink.offer(batch)
                self._taken.extend(batch)
                self._taken_bytes += _bytes_of(batch)
            if self._sink.due(monotonic_s()) or self._full or self._is_suspect(loop):
                self._write(loop)
            loop.metrics.buffered_bytes.set(self._taken_bytes)
            loop.patience.press(full=self._full, relieved=self._taken_bytes <= self._buffer_bytes // 2)
        self._write(loop)

    @property
    def _full(self) -> bool:
        return self._taken_bytes >= self._buffer_bytes

    def _is_suspect(self, loop: Loop) -> bool:
        quarantine = loop.instruments.quarantine
        return quarantine is not None and quarantine.is_suspect(self._taken)

    def _write(self, loop: Loop) -> None:
        taken = self._taken
        try:
            if self._is_suspect(loop):
                self._write_in_parts(loop, taken)
                return
            try:
                self._flush(loop, taken)
            except Poison:
                self._write_in_parts(loop, taken)
        except (NotCommitted, Overtaken) as failure:
            loop.not_committed(failure, messages=len(taken))
            self._drop()
            loop.log.rewind()
        except (TransientFailure, OSError) as failure:
            self._drop()
            loop.hold(failure, records=len(taken))

    def _flush(self, loop: Loop, held: Sequence[Message]) -> int:
        """Write and commit what the sink holds; returns how many messages that were."""
        with loop.instruments.in_hand(held):
            try:
                loop.instruments.hit("before_write")
                with loop.metrics.time("write"):
                    flushed = self._sink.flush()
                loop.instruments.hit("after_write")
            except (TransientFailure, OSError):
                raise
            except Exception as error:
                raise Poison from error
        if not flushed.messages:
            return 0
        loop.commit(flushed.messages, flushed.letters)
        loop.instruments.note_done(flushed.messages)
        self._settle(flushed.messages)
        return len(flushed.messages)

    def _write_in_parts(self, loop: Loop, taken: Sequence[Message]) -> None:
        """Have the sink write again in parts, until the record it fails on is found."""
        self._sink.drop()

        def attempt(part: Sequence[Message]) -> None:
            self._sink.offer(part)
            if self._flush(loop, part) < len(part):
                raise DependencyDown("store", f"it took fewer than {len(part)} records")

        loop.work(taken, attempt=attempt, fails=self._fails, undo=self._sink.drop)
        self._taken, self._taken_bytes = [], 0

    def _fails(self, message: Message) -> bool:
        self._sink.drop()
        self._sink.offer([message])
        try:
            self._sink.flush()
        except (TransientFailure, OSError):
            raise
        except Exception:  # noqa: BLE001 - which bug it is does not matter for this count
            return True
        return False

    def _settle(self, written: Sequence[Message]) -> None:
        if len(written) == len(self._taken):
            self._taken, self._taken_bytes = [], 0
            return
        done = {(message.topic, message.partition, message.offset) for message in written}
        self._taken = [m for m in self._taken if (m.topic, m.partition, m.offset) not in done]
        self._taken_bytes = _bytes_of(self._taken)

    def _drop(self) -> None:
        self._sink.drop()
        self._taken, self._taken_bytes = [], 0


def _bytes_of(messages: Iterable[Message]) -> int:
    return sum(len(message.key or b"") + len(message.value or b"") for message in messages)
