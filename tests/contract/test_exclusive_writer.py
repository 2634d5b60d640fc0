"""What a writer that is alone of its name promises, in memory and on a real broker."""

from collections.abc import Iterator
from typing import Protocol
from uuid import uuid4

import pytest

from headway.adapters.kafka_exclusive import KafkaExclusiveWriter
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.adapters.memory import MemoryBroker, MemoryExclusiveWriter, MemoryReader
from headway.errors import HeadwayError, PermanentFailure
from headway.ports import ExclusiveWriter, LogReader, Record
from headway.topics import Topic

TOPIC = f"t.{uuid4().hex}"
ONE_TOPIC = Topic(name=TOPIC, partitions=2, replication_factor=1, min_insync_replicas=1)


class Desk(Protocol):
    """A log with one topic, and writers of one name."""

    reader: LogReader

    def writer(self) -> ExclusiveWriter: ...


class MemoryDesk:
    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._broker.create([ONE_TOPIC])
        self.reader: LogReader = MemoryReader(self._broker)

    def writer(self) -> ExclusiveWriter:
        return MemoryExclusiveWriter(self._broker, name="desk")

    def close(self) -> None:
        pass


class KafkaDesk:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._name = f"desk.{uuid4().hex}"
        self._opened: list[ExclusiveWriter] = []
        apply_topics(admin_client(bootstrap), [ONE_TOPIC])
        self.reader: LogReader = KafkaReader(bootstrap=bootstrap)

    def writer(self) -> ExclusiveWriter:
        self._opened.append(KafkaExclusiveWriter(bootstrap=self._bootstrap, name=self._name))
        return self._opened[-1]

    def close(self) -> None:
        for writer in self._opened:
            writer.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    opened = (
        MemoryDesk()
        if request.param == "memory"
        else KafkaDesk(request.getfixturevalue("shared_broker").config.bootstrap)
    )
    yield opened
    opened.close()


def record(value: str, *, partition: int | None = None) -> Record:
    return Record(topic=TOPIC, key=value.encode(), value=value.encode(), partition=partition)


def kept(desk: Desk, values: set[bytes]) -> list[bytes]:
    """The topic is shared by the tests of a run; each looks at its own values only."""
    return sorted(message.value or b"" for message in desk.reader.read(TOPIC) if message.value in values)


def test_what_is_written_is_read_and_a_writer_may_write_often(desk: Desk) -> None:
    writer = desk.writer()
    writer.claim()

    writer.write([record("a1", partition=0), record("a2", partition=1)])
    writer.write([record("a3")])

    assert kept(desk, {b"a1", b"a2", b"a3"}) == [b"a1", b"a2", b"a3"]


def test_one_refused_record_leaves_none_of_its_transaction(desk: Desk) -> None:
    writer = desk.writer()
    writer.claim()

    with pytest.raises(HeadwayError):
        writer.write([record("b1"), record("b2", partition=99)])
    writer.claim()
    writer.write([record("b3")])

    assert kept(desk, {b"b1", b"b2", b"b3"}) == [b"b3"]


def test_whoever_claims_the_name_next_fences_the_one_before(desk: Desk) -> None:
    first, second = desk.writer(), desk.writer()
    first.claim()
    first.write([record("c1")])
    second.claim()

    with pytest.raises(PermanentFailure, match="another process has claimed this name"):
        first.write([record("c2")])
    second.write([record("c3")])

    assert kept(desk, {b"c1", b"c2", b"c3"}) == [b"c1", b"c3"]


def test_a_writer_writes_nothing_before_it_claims(desk: Desk) -> None:
    with pytest.raises(PermanentFailure, match="claimed"):
        desk.writer().write([record("d1")])

    assert kept(desk, {b"d1"}) == []
