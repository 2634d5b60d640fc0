"""The loop on the in-memory log: poisoned records, faults of ours, dead dependencies, full sinks, crashes at each step."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryReader, SimulatedCrash
from headway.errors import DependencyDown, Overtaken, PermanentFailure, TransientFailure
from headway.letters import Letter, letter_of
from headway.ports import CommitStep, Message, Record, TopicPartition
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, topic_table
from streaming import patience
from streaming.instruments import Instruments
from streaming.quarantine import Quarantine
from streaming.runtime import Flushed, HandlerWorker, SinkWorker, Worker, partitions_of

JOB = "copier"


@dataclass
class Copier:
    """Copies records; ``bad`` says what it does about one. Counts what it holds, to show that state follows the log."""

    bad: Callable[[bytes], None] = lambda _: None
    seen: dict[int, list[bytes]] = field(default_factory=dict)
    restores: int = 0
    restore: Callable[[], None] = lambda: None

    def assigned(self, partitions: Sequence[int]) -> None:
        self.restore()
        self.restores += 1
        self.seen |= {partition: [] for partition in partitions}

    def revoked(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.seen.pop(partition, None)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        outputs = []
        for message in batch:
            self.seen[message.partition].append(message.value or b"")
            self.bad(message.value or b"")
            outputs.append(Record(EVENTS_ENRICHED, message.key, message.value, partition=message.partition))
        return outputs


@dataclass
class Shelf:
    """A sink: a store by offset, as idempotent as one."""

    bad: Callable[[bytes], None] = lambda _: None
    takes: int = 1_000_000
    store: dict[tuple[int, int], bytes] = field(default_factory=dict)
    buffer: list[Message] = field(default_factory=list)

    def offer(self, batch: Sequence[Message]) -> None:
        self.buffer.extend(batch)

    def due(self, now_s: float) -> bool:  # noqa: ARG002
        return True

    def flush(self) -> Flushed:
        written = self.buffer[: self.takes]
        for message in written:
            self.bad(message.value or b"")
            self.store[message.partition, message.offset] = message.value or b""
        self.buffer = self.buffer[self.takes :]
        return Flushed(messages=written)

    def drop(self) -> None:
        self.buffer = []


class Bench:
    """One worker on a log of four partitions, run until its group has nothing left, or for so many turns."""

    def __init__(
        self, records: int, *, journal: Path | None = None, value_bytes: int = 0, broker: MemoryBroker | None = None
    ) -> None:
        self.broker = broker or MemoryBroker()
        self.broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
        for number in range(records):
            self.broker.append(Record(EVENTS_RAW, b"k%d" % (number % 40), b"%d" % number + b"." * value_bytes))
        self.journal = journal
        self.log: MemoryLog | None = None
        self.instruments = Instruments(job=JOB)

    def run(
        self,
        worker: Worker,
        *,
        turns: int = 100_000,
        on_step: Callable[[CommitStep], None] = lambda _: None,
        batch_bytes: int = 16 * 1024 * 1024,
        kind: type[MemoryLog] = MemoryLog,
    ) -> None:
        quarantine = None if self.journal is None else Quarantine(self.journal)
        self.instruments = Instruments(job=JOB, quarantine=quarantine)
        left = iter(range(turns))
        log = self.log = kind(
            self.broker,
            group="g",
            topics=[EVENTS_RAW],
            on_assign=lambda owned: worker.assigned(partitions_of(owned)),
            on_revoke=lambda owned: worker.revoked(partitions_of(owned)),
            on_step=on_step,
            batch_bytes=batch_bytes,
        )
        try:
            worker.run(
                log,
                stopped=lambda: next(left, None) is None or self.lag() == 0,
                instruments=self.instruments,
            )
        except SimulatedCrash:
            log.crash()
            raise
        finally:
            if quarantine is not None:
                quarantine.close()
        log.close()

    def lag(self) -> int:
        places = [TopicPartition(EVENTS_RAW, number) for number in range(4)]
        return sum(1 for where in places for _ in self.broker.messages(where, start=self.broker.committed("g", where)))

    def copied(self) -> list[int]:
        return sorted(int((m.value or b"").rstrip(b".")) for m in MemoryReader(self.broker).read(EVENTS_ENRICHED))

    def letters(self) -> list[Letter]:
        return [letter_of(message) for message in MemoryReader(self.broker).read(EVENTS_ENRICHED_LETTERS)]

    def metric(self, name: str, **labels: str) -> float:
        return self.instruments.registry.get_sample_value(f"headway_job_{name}", {"job": JOB, **labels}) or 0.0


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "retry_delay_s", lambda _: 0.0)


def raise_on(*bad: int, error: Exception | None = None) -> Callable[[bytes], None]:
    values = {b"%d" % number for number in bad}

    def check(value: bytes) -> None:
        if value in values:
            raise error or ZeroDivisionError(f"on {value!r}")

    return check


def always(error: Exception, *, times: int = 1_000_000) -> Callable[[bytes], None]:
    left = iter(range(times))

    def check(_: bytes) -> None:
        if next(left, None) is not None:
            raise error

    return check


@pytest.mark.parametrize("bad", [[0], [999], [500], [3, 4], [0, 400, 401, 999], list(range(0, 1000, 10))])
def test_only_the_poisoned_records_become_letters(bad: list[int]) -> None:
    bench = Bench(1000)
    handler = Copier(raise_on(*bad))

    bench.run(HandlerWorker(handler))

    assert bench.copied() == [number for number in range(1000) if number not in bad]
    assert sorted(int(letter.original) for letter in bench.letters()) == bad
    assert bench.metric("errors_total", kind="handler-failed") == len(bad)
    assert bench.metric("messages_total") == 1000
    assert bench.metric("letters_total") == len(bad)


def test_the_letter_says_what_failed_where_and_keeps_the_bytes() -> None:
    bench = Bench(100)

    bench.run(HandlerWorker(Copier(raise_on(42))))

    [letter] = bench.letters()
    [source] = [m for m in MemoryReader(bench.broker).read(EVENTS_RAW) if m.value == b"42"]
    assert (letter.reason, letter.stage, letter.original) == ("handler-failed", JOB, b"42")
    assert (letter.topic, letter.partition, letter.offset) == (EVENTS_RAW, source.partition, source.offset)
    assert letter.detail == "ZeroDivisionError: on b'42'"
    assert letter.stack is not None


def test_a_failed_record_leaves_nothing_in_the_state() -> None:
    """The handler notes a record before it fails on it; that note must not survive."""
    bench = Bench(50)
    handler = Copier(raise_on(7))
    worker = HandlerWorker(handler)
    state: list[bytes] = []
    revoke = worker.revoked

    def revoked(partitions: Sequence[int]) -> None:
        state.extend(value for values in handler.seen.values() for value in values)
        revoke(partitions)

    worker.revoked = revoked  # type: ignore[method-assign]
    bench.run(worker)

    assert b"7" not in state
    assert handler.seen == {}


def test_one_poisoned_record_of_2000_costs_few_restores_and_transactions() -> None:
    bench = Bench(2000)
    handler = Copier(raise_on(1234))
    commits: list[CommitStep] = []

    bench.run(HandlerWorker(handler), on_step=commits.append)

    assert handler.restores <= 7
    assert commits.count("after_commit") <= 48


def test_a_handler_that_fails_on_everything_opens_the_breaker_and_writes_no_letter() -> None:
    bench = Bench(1000)

    bench.run(HandlerWorker(Copier(always(KeyError("table")))), turns=20)

    assert bench.letters() == []
    assert bench.lag() == 1000
    ready, said = bench.instruments.readiness()
    assert (ready, said["breaker"]) == (False, "open")
    assert "KeyError: 'table'" in str(bench.instruments.breaker.reason)
    assert bench.metric("breaker_open") == 1
    assert bench.metric("breaker_opened_total", cause="handler") >= 1


def test_an_open_breaker_closes_when_the_fault_is_gone_and_nothing_is_lost() -> None:
    bench = Bench(1000)
    handler = Copier(always(KeyError("table"), times=3000))

    bench.run(HandlerWorker(handler))

    assert bench.copied() == list(range(1000))
    assert bench.letters() == []
    assert bench.metric("breaker_open") == 0
    assert bench.metric("breaker_opened_total", cause="handler") >= 1
    assert bench.instruments.readiness()[1]["paused"] is None


def test_producers_faults_never_open_it() -> None:
    """A handler that makes a letter of every record has done them all."""

    class Refusing(Copier):
        def handle(self, batch: Sequence[Message]) -> list[Record]:
            return [
                Letter(reason="schema-violation", detail="", stage="x", original=m.value or b"").to_record(
                    EVENTS_ENRICHED_LETTERS
                )
                for m in batch
            ]

    bench = Bench(3000)

    bench.run(HandlerWorker(Refusing()))

    assert len(bench.letters()) == 3000
    assert bench.instruments.breaker.state == "closed"


def test_a_dependency_that_is_down_holds_the_batch_back_and_makes_no_letter() -> None:
    bench = Bench(1000)
    handler = Copier(always(DependencyDown("enrichment", "no answer"), times=5))

    bench.run(HandlerWorker(handler))

    assert bench.copied() == list(range(1000))
    assert bench.letters() == []
    assert bench.metric("errors_total", kind="held-back") == 5
    assert bench.metric("breaker_opened_total", cause="dependency") >= 1


def test_while_held_back_the_log_is_paused_and_readyz_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "retry_delay_s", lambda _: 3600.0)
    bench = Bench(10)

    bench.run(HandlerWorker(Copier(always(DependencyDown("enrichment", "no answer")))), turns=5)

    held = bench.instruments.held
    assert bench.log is not None
    assert bench.log.paused
    assert held is not None
    assert (held.cause, held.reason) == ("dependency", "enrichment is down: no answer")
    assert bench.metric("paused") == 1
    assert bench.metric("errors_total", kind="held-back") == 1


def test_a_poisoned_record_that_comes_alone_is_tried_five_times_and_then_given_up() -> None:
    bench = Bench(1)

    bench.run(HandlerWorker(Copier(raise_on(0))))

    [letter] = bench.letters()
    assert (letter.reason, letter.attempts) == ("handler-failed", 6)
    assert bench.metric("errors_total", kind="held-back") == 5


def test_state_that_cannot_be_read_holds_back_instead_of_handling_without_it() -> None:
    bench = Bench(100)
    unreadable = iter([TransientFailure("broker away")] * 3)

    def restore() -> None:
        if (failure := next(unreadable, None)) is not None:
            raise failure

    bench.run(HandlerWorker(Copier(restore=restore)))

    assert bench.copied() == list(range(100))
    assert bench.letters() == []
    assert bench.metric("errors_total", kind="not-restored") == 3


def test_an_output_that_can_never_be_written_makes_a_letter_of_its_record() -> None:
    class Misdirected(Copier):
        def handle(self, batch: Sequence[Message]) -> list[Record]:
            wrong = {b"13": 99}
            return [Record(EVENTS_ENRICHED, m.key, m.value, partition=wrong.get(m.value or b"", 0)) for m in batch]

    bench = Bench(100)

    bench.run(HandlerWorker(Misdirected()))

    assert bench.copied() == [number for number in range(100) if number != 13]
    assert [(letter.original, letter.detail.split(":")[0]) for letter in bench.letters()] == [
        (b"13", PermanentFailure.__name__)
    ]


def test_a_letter_that_does_not_fit_keeps_what_fits_and_says_where_the_rest_stands() -> None:
    class Tight(MemoryBroker):
        def check(self, record: Record) -> None:
            if len(record.value or b"") > 100_000:
                raise PermanentFailure(f"{record.topic}: too large")
            super().check(record)

    def fail(value: bytes) -> None:
        if len(value) > 100_000:
            raise ZeroDivisionError

    bench = Bench(10, broker=Tight())
    bench.broker.append(Record(EVENTS_RAW, b"big", b"x" * 150_000))

    bench.run(HandlerWorker(Copier(fail)))

    assert bench.copied() == list(range(10))
    [letter] = bench.letters()
    assert letter.original == b"x" * 64 * 1024
    assert "original of 150000 bytes is cut here; it stands in events.raw" in letter.detail


@pytest.mark.parametrize("step", ["before_produce", "after_produce", "before_commit", "after_commit"])
@pytest.mark.parametrize("bad", [(), (3, 77)])
def test_a_crash_at_any_step_of_any_commit_leaves_each_record_once(step: CommitStep, bad: tuple[int, ...]) -> None:
    bench = Bench(100)
    for nth in range(1, 12):
        hits = iter(range(1, 1000))

        def strike(at: CommitStep, nth: int = nth, hits: Iterator[int] = hits) -> None:
            if at == step and next(hits) == nth:
                raise SimulatedCrash

        try:
            bench.run(HandlerWorker(Copier(raise_on(*bad))), on_step=strike)
        except SimulatedCrash:
            continue
    bench.run(HandlerWorker(Copier(raise_on(*bad))))

    assert bench.copied() == [number for number in range(100) if number not in bad]
    assert sorted(int(letter.original) for letter in bench.letters()) == list(bad)


def test_a_record_that_kills_is_found_and_becomes_a_letter(tmp_path: Path) -> None:
    """The process dies on record 57 each time; four deaths later everything else is done."""
    journal = tmp_path / "journal.json"
    bench = Bench(100, journal=journal)
    deaths = 0

    def kill(value: bytes) -> None:
        if value == b"57":
            left.append(journal.read_bytes())
            raise SimulatedCrash

    for _ in range(10):
        left: list[bytes] = []
        try:
            bench.run(HandlerWorker(Copier(kill)))
            break
        except SimulatedCrash:
            deaths += 1
            journal.write_bytes(left[-1])

    assert deaths == 4
    assert bench.copied() == [number for number in range(100) if number != 57]
    [letter] = bench.letters()
    assert (letter.reason, letter.original) == ("crashed", b"57")
    assert bench.metric("errors_total", kind="crashed") == 1


def test_kills_at_random_places_condemn_nobody(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    bench = Bench(200, journal=journal)
    deaths = 0
    for nth in (7, 31, 64, 5, 90, 20, 33, 2, 50):
        left: list[bytes] = []
        handled = iter(range(1, 10_000))

        def kill(_: bytes, nth: int = nth, left: list[bytes] = left, handled: Iterator[int] = handled) -> None:
            if next(handled) == nth:
                left.append(journal.read_bytes())
                raise SimulatedCrash

        try:
            bench.run(HandlerWorker(Copier(kill)))
        except SimulatedCrash:
            deaths += 1
            journal.write_bytes(left[-1])
        bench.broker.append(Record(EVENTS_RAW, b"more", b"%d" % (1000 + nth)))

    bench.run(HandlerWorker(Copier()))

    assert deaths > 4
    assert bench.letters() == []
    assert len(bench.copied()) == 209


def test_a_batch_is_bounded_in_bytes() -> None:
    bench = Bench(100, value_bytes=1000)
    sizes: list[int] = []

    class Measured(Copier):
        def handle(self, batch: Sequence[Message]) -> list[Record]:
            sizes.append(sum(len(m.value or b"") for m in batch))
            return super().handle(batch)

    bench.run(HandlerWorker(Measured()), batch_bytes=10_000)

    assert len(sizes) >= 10
    assert max(sizes) <= 10_000 + 1_100


@pytest.mark.parametrize("bad", [[0], [99], [5, 6, 50]])
def test_a_record_that_a_store_cannot_take_becomes_a_letter_and_the_rest_is_stored(bad: list[int]) -> None:
    bench = Bench(100)
    shelf = Shelf(raise_on(*bad))

    bench.run(SinkWorker(shelf))

    assert sorted(map(int, shelf.store.values())) == [number for number in range(100) if number not in bad]
    assert sorted(int(letter.original) for letter in bench.letters()) == bad
    assert {letter.reason for letter in bench.letters()} == {"handler-failed"}


def test_a_store_that_is_away_holds_back_and_makes_no_letter() -> None:
    bench = Bench(100)
    shelf = Shelf(always(TransientFailure("store away"), times=4))

    bench.run(SinkWorker(shelf))

    assert len(shelf.store) == 100
    assert bench.metric("messages_total") == 100  # what was dropped came again, and is not there twice
    assert bench.letters() == []
    assert bench.metric("errors_total", kind="held-back") == 4


def test_what_a_sink_holds_is_dropped_when_reading_fails_as_it_comes_again() -> None:
    class Stumbling(MemoryLog):
        """Fails at its third poll, and then gives what is not committed once more."""

        polls = itertools.count()

        def poll(self, limit: int, timeout_s: float) -> list[Message]:
            if next(self.polls) == 2:
                self.rewind()
                raise TransientFailure("reading failed")
            return super().poll(min(limit, 20), timeout_s)

    class Filling(Shelf):
        """Written when it holds 50; keeps the places of all that it wrote, in order."""

        def due(self, now_s: float) -> bool:  # noqa: ARG002
            return len(self.buffer) >= 50

        def flush(self) -> Flushed:
            places.extend((message.partition, message.offset) for message in self.buffer)
            return super().flush()

    places: list[tuple[int, int]] = []
    bench = Bench(100)

    bench.run(SinkWorker(Filling()), kind=Stumbling)

    assert len(places) == len(set(places)) == 100


def test_a_writer_that_was_overtaken_reads_again_at_once_as_nobody_is_down() -> None:
    bench = Bench(1000)
    shelf = Shelf(always(Overtaken("another writer came first"), times=2))

    bench.run(SinkWorker(shelf))

    assert len(shelf.store) == 1000
    assert bench.metric("errors_total", kind="not-committed") == 2
    assert bench.metric("errors_total", kind="held-back") == 0
    assert bench.instruments.breaker.state == "closed"


def test_a_full_disk_is_no_fault_of_a_record() -> None:
    bench = Bench(100)
    shelf = Shelf(always(OSError(28, "No space left on device"), times=10))

    bench.run(SinkWorker(shelf))

    assert len(shelf.store) == 100
    assert bench.letters() == []


def test_a_store_that_refuses_everything_opens_the_breaker() -> None:
    bench = Bench(1000)

    bench.run(SinkWorker(Shelf(always(ValueError("schema")))), turns=20)

    assert bench.letters() == []
    assert bench.instruments.breaker.state == "open"


def test_a_slow_store_pauses_the_log_and_bounds_the_buffer() -> None:
    bench = Bench(2000, value_bytes=1000)
    shelf = Shelf(takes=20)
    worker = SinkWorker(shelf, buffer_bytes=100_000)
    most = 0
    paused = 0

    class Watching(Shelf):
        def flush(self) -> Flushed:
            nonlocal most, paused
            most = max(most, sum(len(m.value or b"") for m in self.buffer))
            assert bench.log is not None
            paused += bench.log.paused
            return super().flush()

    worker = SinkWorker(Watching(takes=20), buffer_bytes=100_000)
    bench.run(worker, batch_bytes=50_000)

    assert paused > 0
    assert most <= 100_000 + 2 * 52_000
    assert bench.lag() == 0


def test_an_idle_member_is_ready_and_says_so() -> None:
    bench = Bench(0)
    holders = [MemoryLog(bench.broker, group="g", topics=[EVENTS_RAW]) for _ in range(4)]
    instruments = Instruments(job=JOB)
    log = MemoryLog(bench.broker, group="g", topics=[EVENTS_RAW])
    assert instruments.readiness()[0] is False
    turns = iter(range(3))

    HandlerWorker(Copier()).run(log, stopped=lambda: next(turns, None) is None, instruments=instruments)

    ready, said = instruments.readiness()
    assert (ready, said["idle"], said["partitions"]) == (True, True, 0)
    assert len(holders) == 4
    assert instruments.registry.get_sample_value("headway_job_idle", {"job": JOB}) == 1
