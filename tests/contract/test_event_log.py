"""What every event log promises, tried on the memory log and on a real broker with both group protocols."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from headway.adapters.kafka_log import KafkaEventLog
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics, topic_drift
from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryReader, SimulatedCrash
from headway.errors import ContractViolation, HeadwayError, PermanentFailure, TransientFailure
from headway.ports import CommitStep, EventLog, Message, Record, TopicPartition
from headway.topics import LETTER_MAX_BYTES, Topic, partition_of, topic_table
from tests.contract.conftest import EXPELLED_AFTER_S, KafkaStack, LogStack, RealBroker, plain_topic

DEADLINE_S = 30.0


def numbered(topic: str, numbers: Iterable[int], *, partition: int | None = None) -> list[Record]:
    return [Record(topic, b"key %d" % (number % 7), b"%d" % number, partition=partition) for number in numbers]


def values(messages: Iterable[Message]) -> list[int]:
    return sorted(int(message.value or b"-1") for message in messages)


def poll_exactly(log: EventLog, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came"
        found += log.poll(count - len(found), 0.2)
    return found


def poll_until_assigned(logs: Sequence[EventLog], *, each: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while any(len(log.assignment()) != each for log in logs):
        assert time.monotonic() < deadline, [sorted(log.assignment()) for log in logs]
        for log in logs:
            assert log.poll(1, 0.05) == []


def copy(messages: Iterable[Message], *, to: str) -> list[Record]:
    return [Record(to, message.key, message.value, message.headers) for message in messages]


def test_a_message_arrives_as_it_was_written(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=4)
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("empty", b""))

    stack.publisher().publish([Record(topic, b"key", b"\x00value", headers), Record(topic, b"key", None)])

    first, second = stack.reader().read(topic)
    assert (first.topic, first.key, first.value, first.headers) == (topic, b"key", b"\x00value", headers)
    assert (second.key, second.value, second.offset) == (b"key", None, first.offset + 1)
    assert abs(first.timestamp_ms / 1000 - time.time()) < 600


def test_a_key_goes_to_the_partition_that_the_function_says(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=4)
    keys = [b"x" * length for length in range(1, 40)]

    stack.publisher().publish([Record(topic, key, b"") for key in keys])

    assert all(message.partition == partition_of(message.key or b"", 4) for message in stack.reader().read(topic))


def test_a_declared_partition_wins_over_the_key(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=4)

    stack.publisher().publish(numbered(topic, range(20), partition=3))

    assert {message.partition for message in stack.reader().read(topic)} == {3}


def test_what_is_committed_is_written_once_and_not_read_again(stack: LogStack) -> None:
    source, sink = stack.create_topic(partitions=4), stack.create_topic(partitions=4)
    stack.publisher().publish(numbered(source, range(100)))
    log = stack.event_log(group="copy", topic=source)

    batch = poll_exactly(log, 100)
    log.commit(batch, copy(batch, to=sink))
    log.close()

    assert values(stack.reader().read(sink)) == list(range(100))
    assert stack.event_log(group="copy", topic=source).poll(10, 1.0) == []


def test_order_holds_within_a_partition(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(500)))
    log = stack.event_log(group="order", topic=topic)

    offsets = defaultdict(list)
    for message in poll_exactly(log, 500):
        offsets[message.partition].append(message.offset)

    assert all(found == list(range(len(found))) for found in offsets.values())


def test_what_was_polled_and_not_committed_comes_again_after_a_restart(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=4)
    stack.publisher().publish(numbered(topic, range(50)))
    first = stack.event_log(group="again", topic=topic)
    poll_exactly(first, 50)

    first.close()

    assert values(poll_exactly(stack.event_log(group="again", topic=topic), 50)) == list(range(50))


def test_rewinding_returns_to_the_last_commit(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(topic, range(30)))
    log = stack.event_log(group="rewind", topic=topic)
    log.commit(poll_exactly(log, 10), [])
    assert values(poll_exactly(log, 15)) == list(range(10, 25))

    log.rewind()

    assert values(poll_exactly(log, 20)) == list(range(10, 30))


def test_a_prefix_of_the_batch_may_be_committed(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(topic, range(10)))
    log = stack.event_log(group="prefix", topic=topic)

    log.commit(poll_exactly(log, 10)[:4], [])
    log.rewind()

    assert values(poll_exactly(log, 6)) == list(range(4, 10))


def test_a_refused_output_leaves_nothing_behind_and_the_inputs_are_not_lost(stack: LogStack) -> None:
    source, sink = stack.create_topic(partitions=4), stack.create_topic(partitions=4)
    stack.publisher().publish(numbered(source, range(5)))
    log = stack.event_log(group="refused", topic=source)
    batch = poll_exactly(log, 5)

    with pytest.raises(PermanentFailure):
        log.commit(batch, [*copy(batch, to=sink), Record(sink, b"", b"", partition=99)])

    log.rewind()
    again = poll_exactly(log, 5)
    log.commit(again, copy(again, to=sink))
    assert values(stack.reader().read(sink)) == list(range(5))


def test_instances_share_the_partitions_and_lose_none(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=4)
    logs = [stack.event_log(group="share", topic=topic, instance=str(number)) for number in range(2)]
    poll_until_assigned(logs, each=2)
    stack.publisher().publish(numbered(topic, range(200)))

    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < 200 and time.monotonic() < deadline:
        for log in logs:
            batch = log.poll(50, 0.05)
            log.commit(batch, [])
            found += batch

    assert values(found) == list(range(200))


def test_an_instance_beyond_the_partitions_idles(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)
    logs = [stack.event_log(group="idle", topic=topic, instance=str(number)) for number in range(2)]
    deadline = time.monotonic() + DEADLINE_S

    while sum(len(log.assignment()) for log in logs) != 1:
        assert time.monotonic() < deadline
        for log in logs:
            log.poll(1, 0.05)

    assert sorted(len(log.assignment()) for log in logs) == [0, 1]


def test_partitions_are_announced_before_their_messages_and_taken_back_at_close(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(20)))
    owned: set[TopicPartition] = set()
    log = stack.event_log(group="told", topic=topic, on_assign=owned.update, on_revoke=owned.difference_update)

    for message in poll_exactly(log, 20):
        assert (message.topic, message.partition) in owned
    assert owned == log.assignment()
    log.close()

    assert owned == set()


def test_a_member_that_lost_its_partitions_cannot_commit(stack: LogStack) -> None:
    """A job that hangs longer than the group allows must not write what its successor writes too."""
    source, sink = stack.create_topic(partitions=1), stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(source, range(5)))
    zombie = stack.event_log(group="zombie", topic=source, instance="a", max_poll_interval_s=EXPELLED_AFTER_S)
    stale = poll_exactly(zombie, 5)
    heir = take_over(stack, source=source)

    with pytest.raises(TransientFailure):
        zombie.commit(stale, copy(stale, to=sink))
    batch = poll_exactly(heir, 5)
    heir.commit(batch, copy(batch, to=sink))

    assert values(stack.reader().read(sink)) == list(range(5))


def take_over(stack: LogStack, *, source: str) -> EventLog:
    """An instance that has got the only partition of ``source`` from one that no longer polls."""
    # The memory log deals partitions out in joining order, so that the second of two gets none: let it be the first.
    if (broker := getattr(stack, "broker", None)) is not None:
        members = broker._members["zombie"]
        heir = stack.event_log(group="zombie", topic=source, instance="b")
        members.reverse()
        return heir
    heir = stack.event_log(group="zombie", topic=source, instance="b")
    deadline = time.monotonic() + DEADLINE_S
    while not heir.assignment():
        assert time.monotonic() < deadline
        heir.poll(1, 0.2)
        heir.rewind()
    return heir


def test_who_was_expelled_is_told_that_its_partitions_are_lost(stack: LogStack) -> None:
    """Handed back in good order and taken away are different news: in between somebody else has written."""
    source = stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(source, range(5)))
    news: list[str] = []
    zombie = stack.event_log(
        group="zombie",
        topic=source,
        instance="a",
        on_revoke=lambda _: news.append("revoked"),
        on_lost=lambda _: news.append("lost"),
        max_poll_interval_s=EXPELLED_AFTER_S,
    )
    poll_exactly(zombie, 5)
    take_over(stack, source=source)

    deadline = time.monotonic() + DEADLINE_S
    while not news:
        assert time.monotonic() < deadline
        try:
            zombie.poll(1, 0.1)
        except TransientFailure:
            continue

    assert news == ["lost"]
    assert zombie.assignment() == frozenset()


@pytest.mark.parametrize("step", ["before_produce", "after_produce", "before_commit"])
def test_a_crash_inside_a_transaction_leaves_nothing_to_see(stack: LogStack, step: CommitStep) -> None:
    source, sink = stack.create_topic(partitions=2), stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(source, range(20)))
    log = stack.event_log(group="crash", topic=source, on_step=crash_at(step))
    batch = poll_exactly(log, 20)

    with pytest.raises(SimulatedCrash):
        log.commit(batch, copy(batch, to=sink))
    stack.kill(log)
    heir = stack.event_log(group="crash", topic=source)
    batch = poll_exactly(heir, 20)

    assert list(stack.reader().read(sink)) == []
    heir.commit(batch, copy(batch, to=sink))
    assert values(stack.reader().read(sink)) == list(range(20))


def test_a_crash_after_the_commit_repeats_nothing(stack: LogStack) -> None:
    """The process dies before it knows; its successor is told by the offsets."""
    source, sink = stack.create_topic(partitions=2), stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(source, range(20)))
    log = stack.event_log(group="crash", topic=source, on_step=crash_at("after_commit"))
    batch = poll_exactly(log, 20)

    with pytest.raises(SimulatedCrash):
        log.commit(batch, copy(batch, to=sink))
    stack.kill(log)
    heir = stack.event_log(group="crash", topic=source)
    poll_until_assigned([heir], each=2)
    stack.publisher().publish(numbered(source, [99]))

    assert values(poll_exactly(heir, 1)) == [99]
    assert values(stack.reader().read(sink)) == list(range(20))


def crash_at(step: CommitStep) -> Callable[[CommitStep], None]:
    def strike(reached: CommitStep) -> None:
        if reached == step:
            raise SimulatedCrash

    return strike


def test_an_error_inside_a_commit_leaves_nothing_and_the_log_goes_on(stack: LogStack) -> None:
    source, sink = stack.create_topic(partitions=1), stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(source, range(5)))
    failures = iter([ZeroDivisionError()])

    def fail_once(step: CommitStep) -> None:
        if step == "before_commit" and (failure := next(failures, None)) is not None:
            raise failure

    log = stack.event_log(group="error", topic=source, on_step=fail_once)
    batch = poll_exactly(log, 5)
    with pytest.raises(ZeroDivisionError):
        log.commit(batch, copy(batch, to=sink))

    batch = poll_exactly(log, 5)
    log.commit(batch, copy(batch, to=sink))

    assert values(stack.reader().read(sink)) == list(range(5))


def test_a_paused_log_returns_nothing_keeps_its_place_and_goes_on_where_it_stopped(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(60)))
    log = stack.event_log(group="pause", topic=topic)
    before = poll_exactly(log, 25)

    log.pause()
    paused = [message for _ in range(10) for message in log.poll(100, 0.05)]
    owned = log.assignment()
    log.resume()

    assert paused == []
    assert len(owned) == 2
    assert values([*before, *poll_exactly(log, 35)]) == list(range(60))


def test_a_rewind_while_paused_counts_when_it_goes_on(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(30)))
    log = stack.event_log(group="hold", topic=topic)
    log.commit(poll_exactly(log, 10), [])
    poll_exactly(log, 20)

    log.rewind()
    log.pause()
    assert [message for _ in range(5) for message in log.poll(100, 0.05)] == []
    log.resume()

    assert len(poll_exactly(log, 20)) == 20


def test_partitions_that_come_while_paused_stay_paused(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(10)))
    log = stack.event_log(group="early", topic=topic)

    log.pause()
    poll_until_assigned([log], each=2)
    assert [message for _ in range(5) for message in log.poll(100, 0.05)] == []
    log.resume()

    assert values(poll_exactly(log, 10)) == list(range(10))


def test_partitions_that_went_while_paused_go_on_when_they_come_back(stack: LogStack) -> None:
    """A frozen writer woke up without its store and without its partitions; those that came back stood still for good."""
    topic = stack.create_topic(partitions=2)
    log = stack.event_log(group="back", topic=topic)
    poll_until_assigned([log], each=2)
    log.pause()
    other = stack.event_log(group="back", topic=topic, instance="1")
    poll_until_assigned([log, other], each=1)
    log.resume()
    other.close()
    poll_until_assigned([log], each=2)

    stack.publisher().publish([record for p in (0, 1) for record in numbered(topic, [p], partition=p)])

    assert values(poll_exactly(log, 2)) == [0, 1]


def test_one_poll_is_bounded_in_bytes(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)
    stack.publisher().publish([Record(topic, b"k", b"x" * 10_000) for _ in range(300)])
    log = stack.event_log(group="bytes", topic=topic, batch_bytes=100_000)

    sizes: list[int] = []
    deadline = time.monotonic() + DEADLINE_S
    while sum(sizes) < 300:
        assert time.monotonic() < deadline
        sizes.append(len(log.poll(2000, 0.2)))

    # The real one counts after every hundred messages.
    assert max(sizes) <= 110


def test_the_end_is_known_past_the_markers_and_lag_counts_down_to_it(stack: LogStack) -> None:
    source, topic = stack.create_topic(partitions=1), stack.create_topic(partitions=1)
    stack.publisher().publish(numbered(source, range(3)))
    writer = stack.event_log(group="writer", topic=source)
    for _ in range(3):
        batch = poll_exactly(writer, 1)
        writer.commit(batch, copy(batch, to=topic))
    log = stack.event_log(group="end", topic=topic)
    where = TopicPartition(topic, 0)

    poll_exactly(log, 1)
    assert (log.at_end(), log.lag()[where] >= 4) == (frozenset(), True)
    poll_exactly(log, 2)
    deadline = time.monotonic() + DEADLINE_S
    while not log.at_end():
        assert time.monotonic() < deadline
        assert log.poll(10, 0.1) == []

    assert (log.at_end(), log.lag()) == (frozenset({where}), {where: 0})


def test_the_lag_of_a_paused_log_grows(stack: LogStack) -> None:
    """Nothing is fetched while paused, so what fetches told is old news."""
    topic = stack.create_topic(partitions=1)
    publisher = stack.publisher()
    publisher.publish(numbered(topic, range(5)))
    log = stack.event_log(group="behind", topic=topic)
    log.commit(poll_exactly(log, 5), [])
    log.pause()

    publisher.publish(numbered(topic, range(7)))
    deadline = time.monotonic() + DEADLINE_S
    while log.lag() != {TopicPartition(topic, 0): 7}:
        assert time.monotonic() < deadline, log.lag()
        log.poll(1, 0.1)


def test_an_idle_instance_knows_that_it_is_a_member(stack: LogStack) -> None:
    """With the consumer protocol the client is told nothing when its assignment is empty."""
    topic = stack.create_topic(partitions=1)
    logs = [stack.event_log(group="member", topic=topic, instance=str(number)) for number in range(2)]
    deadline = time.monotonic() + DEADLINE_S
    while not all(log.is_member() for log in logs) or sorted(len(log.assignment()) for log in logs) != [0, 1]:
        assert time.monotonic() < deadline, [(log.is_member(), log.assignment()) for log in logs]
        for log in logs:
            log.poll(1, 0.05)


def test_a_reader_sees_what_was_there_and_waits_for_nothing_else(stack: LogStack) -> None:
    """Markers of transactions lie at the end; counting offsets would wait for ever."""
    source, sink = stack.create_topic(partitions=1), stack.create_topic(partitions=1)
    publisher, log = stack.publisher(), stack.event_log(group="end", topic=source)
    for number in range(3):
        publisher.publish(numbered(source, [number]))
        batch = poll_exactly(log, 1)
        log.commit(batch, copy(batch, to=sink))

    reading = stack.reader().read(sink)
    publisher.publish(numbered(sink, [99]))

    found = list(reading)
    assert [message.value for message in found] == [b"0", b"1", b"2"]
    assert [message.offset for message in found] == [0, 2, 4]


def test_what_has_just_been_committed_is_read(stack: LogStack) -> None:
    """A commit is answered before its markers are written: a reader that stops before them misses it."""
    source, sink = stack.create_topic(partitions=1), stack.create_topic(partitions=1)
    publisher, log = stack.publisher(), stack.event_log(group="fresh", topic=source)
    publisher.publish(numbered(source, range(20)))
    counts = []
    for _ in range(20):
        batch = poll_exactly(log, 1)
        log.commit(batch, copy(batch, to=sink))
        counts.append(len(list(stack.reader().read(sink))))

    assert counts == list(range(1, 21))


def test_an_empty_topic_reads_as_nothing(stack: LogStack) -> None:
    assert list(stack.reader().read(stack.create_topic(partitions=4))) == []


def test_a_missing_topic_or_partition_is_said_so(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)

    with pytest.raises(PermanentFailure, match="partition"):
        list(stack.reader().read(topic, partitions=[7]))
    with pytest.raises(PermanentFailure, match="no such topic"):
        list(stack.reader().read("never.created"))


def test_what_lies_beyond_an_offset_is_read_without_what_lies_before(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    stack.publisher().publish(numbered(topic, range(10), partition=1))
    reader = stack.reader()

    found = [values(reader.read_after(topic, 1, offset)) for offset in (-1, 6, 9, 99)]

    assert found == [list(range(10)), [7, 8, 9], [], []]
    assert list(reader.read_after(topic, 0, -1)) == []
    with pytest.raises(PermanentFailure, match="partition"):
        list(reader.read_after(topic, 7, -1))


def test_state_reads_as_the_newest_value_of_each_key_that_is_not_deleted(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    writes = [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"), (b"b", None), (b"c", b"2"), (b"a", b"3")]
    stack.publisher().publish([Record(topic, key, value, partition=1) for key, value in writes])

    found = stack.reader().read_compacted(topic, 1)

    assert [(message.key, message.value) for message in found] == [(b"c", b"2"), (b"a", b"3")]
    assert stack.reader().read_compacted(topic, 0) == []


def test_async_publishing_answers_with_the_position(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=1)
    publisher = stack.publisher()

    async def publish_all() -> list[int]:
        futures = [publisher.publish_async(record) for record in numbered(topic, range(100))]
        return [position.offset for position in await asyncio.gather(*futures)]

    assert asyncio.run(publish_all()) == list(range(100))


def test_the_memory_log_can_crash_between_writing_and_committing() -> None:
    broker = MemoryBroker()
    broker.create([plain_topic("in", partitions=1), plain_topic("out", partitions=1)])
    broker.append(Record("in", b"k", b"1"))
    log = MemoryLog(broker, group="g", topics=["in"])
    batch = log.poll(10, 0.0)
    broker.crash_before_commit = True

    with pytest.raises(SimulatedCrash):
        log.commit(batch, copy(batch, to="out"))

    heir = MemoryLog(broker, group="g", topics=["in"])
    heir.commit(heir.poll(10, 0.0), copy(batch, to="out"))
    assert values(MemoryReader(broker).read("out")) == [1]


def test_the_memory_log_can_refuse_a_commit() -> None:
    broker = MemoryBroker(refuse_commits=1)
    broker.create([plain_topic("in", partitions=1)])
    broker.append(Record("in", b"k", b"1"))
    log = MemoryLog(broker, group="g", topics=["in"])

    with pytest.raises(TransientFailure, match="poll again"):
        log.commit(log.poll(10, 0.0), [])

    batch = log.poll(10, 0.0)
    log.commit(batch, [])
    assert values(batch) == [1]


@pytest.mark.integration
def test_a_reader_waits_for_the_transaction_that_is_open_at_the_end(shared_broker: RealBroker) -> None:
    """An instance that takes over must see how its predecessor's last transaction ended, before it restores."""
    bootstrap = shared_broker.config.bootstrap
    apply_topics(admin_client(bootstrap), [plain_topic("open", partitions=1)])
    writer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "open"})
    writer.init_transactions(DEADLINE_S)
    writer.begin_transaction()
    writer.produce("open", b"7")
    writer.flush(DEADLINE_S)
    reading = KafkaReader(bootstrap=bootstrap).read("open")

    writer.commit_transaction(DEADLINE_S)

    assert values(reading) == [7]


class _Stumbling:
    """A client that fails once in the middle of taking a batch."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._failures = [KafkaError(KafkaError._TRANSPORT)]

    def consume(self, count: int, timeout_s: float) -> Any:
        if self._failures:
            raise KafkaException(self._failures.pop())
        return self._consumer.consume(count, timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


@pytest.mark.integration
def test_what_was_taken_before_reading_failed_comes_again(
    shared_broker: RealBroker, shared_publisher: KafkaPublisher
) -> None:
    """The client has moved on behind it, so the next commit would pass over it."""
    stack = KafkaStack(shared_broker.config.bootstrap, "consumer", shared_publisher)
    topic = stack.create_topic(partitions=1)
    log = stack.event_log(group="stumbling", topic=topic)
    log._consumer = _Stumbling(log._consumer)  # type: ignore[attr-defined]
    stack.publisher().publish(numbered(topic, range(5)))

    with pytest.raises(TransientFailure, match="reading failed"):
        poll_exactly(log, 5)

    assert [message.value for message in poll_exactly(log, 5)] == [b"0", b"1", b"2", b"3", b"4"]
    stack.close()


@pytest.mark.integration
def test_a_backlog_comes_from_all_partitions_alike(shared_broker: RealBroker, shared_publisher: KafkaPublisher) -> None:
    """At the client's own setting a whole partition came before the next, and the feature job did its work many times."""
    topic, generator = f"t.{uuid4().hex}", random.Random(1)
    apply_topics(admin_client(shared_broker.config.bootstrap), [plain_topic(topic, partitions=4)])
    for _ in range(25):
        shared_publisher.publish(
            [Record(topic, None, generator.randbytes(300), partition=number % 4) for number in range(400)]
        )
    log = KafkaEventLog(bootstrap=shared_broker.config.bootstrap, group=topic, topics=[topic], instance="0")

    taken, apart, deadline = dict.fromkeys(range(4), 0), 0, time.monotonic() + DEADLINE_S
    while sum(taken.values()) < 10_000:
        assert time.monotonic() < deadline, taken
        for message in log.poll(1_000, 0.2):
            taken[message.partition] += 1
        apart = max(apart, max(taken.values()) - min(taken.values()))
    log.close()

    assert apart < 1_250, "half of what a partition has"


@pytest.mark.integration
def test_applying_the_topic_table_twice_changes_nothing(own_broker: RealBroker) -> None:
    admin = admin_client(own_broker.config.bootstrap)
    table = topic_table(views=["delay.v1"], products=["flight_delay"], replication_factor=1, min_insync_replicas=1)

    assert len(apply_topics(admin, table)) == len(table)
    assert apply_topics(admin, table) == []


@pytest.mark.integration
def test_a_changed_setting_is_shown_and_applied(shared_broker: RealBroker) -> None:
    admin = admin_client(shared_broker.config.bootstrap)
    apply_topics(admin, [_topic(retention_ms=60_000)])

    drift = topic_drift(admin, [_topic(retention_ms=120_000)])
    done = apply_topics(admin, [_topic(retention_ms=120_000)])

    assert [(each.field, each.wanted, each.got) for each in drift] == [("retention.ms", "120000", "60000")]
    assert done == ["drifting: retention.ms 60000 -> 120000"]
    assert topic_drift(admin, [_topic(retention_ms=120_000)]) == []


@pytest.mark.integration
def test_another_number_of_partitions_is_refused(shared_broker: RealBroker) -> None:
    admin: AdminClient = admin_client(shared_broker.config.bootstrap)
    apply_topics(admin, [plain_topic("two", partitions=2)])

    with pytest.raises(ContractViolation, match="partitions is 2, wanted 3"):
        apply_topics(admin, [plain_topic("two", partitions=3)])


@pytest.mark.integration
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(bytes(LETTER_MAX_BYTES), id="by the client, whatever it would compress to"),
        pytest.param(random.Random(7).randbytes(1_500_000), id="by the broker, as more than the topic takes"),
    ],
)
def test_a_record_too_large_is_refused_for_good(shared_broker: RealBroker, value: bytes) -> None:
    apply_topics(admin_client(shared_broker.config.bootstrap), [plain_topic("large", partitions=1)])
    publisher = KafkaPublisher(bootstrap=shared_broker.config.bootstrap)

    with pytest.raises(PermanentFailure, match="b'big'"):
        publisher.publish([Record("large", b"big", value)])

    publisher.close()


@pytest.mark.integration
def test_a_killed_broker_loses_nothing_acknowledged_and_the_job_goes_on(own_broker: RealBroker) -> None:
    """kill -9 of the only broker, with one commit just acknowledged and one transaction open.

    Kafka 4.3.1 and 4.4.0 forget the acknowledged one here: read_committed readers and the group hang for good.
    """
    bootstrap = own_broker.config.bootstrap
    apply_topics(admin_client(bootstrap), [plain_topic("in", partitions=4), plain_topic("out", partitions=4)])
    publisher = KafkaPublisher(bootstrap=bootstrap, delivery_timeout_s=3)
    log = KafkaEventLog(bootstrap=bootstrap, group="g", topics=["in"], instance="0", transaction_timeout_s=3)
    publisher.publish(numbered("in", range(1000)))
    batch = poll_exactly(log, 500)
    acknowledged, lost_batch = batch[:400], batch[400:]
    log.commit(acknowledged, copy(acknowledged, to="out"))
    own_broker.kill()

    with pytest.raises(TransientFailure):
        log.commit(lost_batch, copy(lost_batch, to="out"))
    with pytest.raises(TransientFailure):
        publisher.publish(numbered("in", [5000]))
    own_broker.start()
    everywhere = {TopicPartition("in", number) for number in range(4)}
    all_copied = False
    deadline = time.monotonic() + 60
    while not all_copied:
        assert time.monotonic() < deadline
        try:
            batch = log.poll(1000, 0.2)
            log.commit(batch, copy(batch, to="out"))
        except TransientFailure:
            # Perhaps committed all the same: a count of what was would then never be complete.
            continue
        all_copied = log.at_end() == everywhere

    log.close()
    publisher.close()
    found = [number for number in values(KafkaReader(bootstrap=bootstrap).read("out")) if number != 5000]
    assert found == list(range(1000))


def _topic(*, retention_ms: int) -> Topic:
    return Topic(
        name="drifting",
        partitions=1,
        replication_factor=1,
        min_insync_replicas=1,
        config={"retention.ms": str(retention_ms)},
    )


def test_each_of_several_records_is_settled_on_its_own_and_the_loop_is_woken_once(stack: LogStack) -> None:
    topic = stack.create_topic(partitions=2)
    records = [Record(topic=topic, key=b"%d" % number, value=b"v%d" % number) for number in range(5)]
    records[2] = Record(topic=topic, key=b"2", value=b"v2", partition=7)

    async def publish() -> Mapping[int, HeadwayError]:
        publisher = stack.publisher()
        assert await asyncio.wait_for(publisher.publish_each_async([]), 5) == {}
        return await asyncio.wait_for(publisher.publish_each_async(records), 20)

    failures = asyncio.run(publish())

    assert list(failures) == [2]
    assert isinstance(failures[2], PermanentFailure)
    assert sorted(message.value or b"" for message in stack.reader().read(topic)) == [b"v0", b"v1", b"v3", b"v4"]
