"""The two event logs every claim of the contract is tried on: in memory, and a real broker."""

import itertools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from headway.adapters.kafka_log import GroupProtocol, KafkaEventLog
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.adapters.memory import MemoryBroker, MemoryLog, MemoryPublisher, MemoryReader
from headway.local.kafka import BrokerConfig, broker_command, broker_ready, format_storage
from headway.ports import (
    BATCH_BYTES,
    CommitCallback,
    CommitStep,
    EventLog,
    LogReader,
    PartitionCallback,
    Publisher,
    TopicPartition,
)
from headway.topics import Topic
from tests.free_ports import free_port
from tests.server_process import ServerProcess

START_TIMEOUT_S = 60.0
# Longer than a busy machine stops a test between two polls. A member that is to be expelled gets `EXPELLED_AFTER_S`.
PATIENT_S = 60.0
# The shortest session that a broker of ours grants, as that is the shortest gap too under the classic protocol.
EXPELLED_AFTER_S = 3.0


def ignore(_: Sequence[TopicPartition]) -> None:
    pass


def pass_step(_: CommitStep) -> None:
    pass


def plain_topic(name: str, *, partitions: int) -> Topic:
    return Topic(name=name, partitions=partitions, replication_factor=1, min_insync_replicas=1)


class LogStack(Protocol):
    """A log to test: whatever is opened here is closed after the test."""

    def create_topic(self, *, partitions: int) -> str: ...
    def event_log(
        self,
        *,
        group: str,
        topic: str,
        instance: str = "0",
        on_assign: PartitionCallback = ignore,
        on_revoke: PartitionCallback = ignore,
        on_lost: PartitionCallback | None = None,
        on_step: CommitCallback = pass_step,
        batch_bytes: int = BATCH_BYTES,
        max_poll_interval_s: float = PATIENT_S,
    ) -> EventLog: ...
    def kill(self, log: EventLog) -> None:
        """Leave a log as a killed process does: with its transaction open and its membership running out."""
        ...

    def publisher(self) -> Publisher: ...
    def reader(self) -> LogReader: ...


@dataclass
class MemoryStack:
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    names: Iterator[int] = field(default_factory=itertools.count)

    def create_topic(self, *, partitions: int) -> str:
        return self.broker.create([plain_topic(f"t{next(self.names)}", partitions=partitions)])[0]

    def event_log(
        self,
        *,
        group: str,
        topic: str,
        instance: str = "0",  # noqa: ARG002 - the memory log needs no transactional id
        on_assign: PartitionCallback = ignore,
        on_revoke: PartitionCallback = ignore,
        on_lost: PartitionCallback | None = None,
        on_step: CommitCallback = pass_step,
        batch_bytes: int = BATCH_BYTES,
        max_poll_interval_s: float = PATIENT_S,  # noqa: ARG002 - in memory nobody is expelled for being late
    ) -> EventLog:
        return MemoryLog(
            self.broker,
            group=group,
            topics=[topic],
            on_assign=on_assign,
            on_revoke=on_revoke,
            on_lost=on_lost,
            on_step=on_step,
            batch_bytes=batch_bytes,
        )

    def kill(self, log: EventLog) -> None:
        assert isinstance(log, MemoryLog)
        log.crash()

    def publisher(self) -> Publisher:
        return MemoryPublisher(self.broker)

    def reader(self) -> LogReader:
        return MemoryReader(self.broker)


@dataclass
class KafkaStack:
    bootstrap: str
    protocol: GroupProtocol
    shared_publisher: KafkaPublisher
    opened: list[EventLog] = field(default_factory=list)

    def create_topic(self, *, partitions: int) -> str:
        name = f"t.{uuid4().hex}"
        apply_topics(admin_client(self.bootstrap), [plain_topic(name, partitions=partitions)])
        return name

    def event_log(
        self,
        *,
        group: str,
        topic: str,
        instance: str = "0",
        on_assign: PartitionCallback = ignore,
        on_revoke: PartitionCallback = ignore,
        on_lost: PartitionCallback | None = None,
        on_step: CommitCallback = pass_step,
        batch_bytes: int = BATCH_BYTES,
        max_poll_interval_s: float = PATIENT_S,
    ) -> EventLog:
        log = KafkaEventLog(
            bootstrap=self.bootstrap,
            group=f"{group}.{topic}",
            topics=[topic],
            instance=instance,
            on_assign=on_assign,
            on_revoke=on_revoke,
            on_lost=on_lost,
            on_step=on_step,
            batch_bytes=batch_bytes,
            protocol=self.protocol,
            max_poll_interval_s=max_poll_interval_s,
        )
        self.opened.append(log)
        return log

    def kill(self, log: EventLog) -> None:
        """Leave the group without ending the transaction, which is what the broker sees once the session is over."""
        assert isinstance(log, KafkaEventLog)
        log._consumer.close()
        self.opened.remove(log)

    def publisher(self) -> Publisher:
        return self.shared_publisher

    def reader(self) -> LogReader:
        return KafkaReader(bootstrap=self.bootstrap)

    def close(self) -> None:
        for each in reversed(self.opened):
            each.close()


@dataclass
class RealBroker(ServerProcess):
    """A broker process that a test may kill and start again."""

    config: BrokerConfig

    def start(self) -> None:
        format_storage(self.config)
        self.process = subprocess.Popen(broker_command(self.config))
        self.wait_until_ready(timeout_s=START_TIMEOUT_S, log=self.config.log_dir)

    def ready(self) -> bool:
        return broker_ready(self.config.bootstrap)


def new_broker(folder: Path) -> RealBroker:
    return RealBroker(
        BrokerConfig(data_dir=folder / "data", log_dir=folder / "logs", port=free_port(), controller_port=free_port())
    )


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    broker = new_broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def shared_publisher(shared_broker: RealBroker) -> Iterator[KafkaPublisher]:
    """A new one takes half a second, or a whole, before its first record is acknowledged."""
    publisher = KafkaPublisher(bootstrap=shared_broker.config.bootstrap)
    yield publisher
    publisher.close()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RealBroker]:
    broker = new_broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("consumer", marks=pytest.mark.integration),
        pytest.param("classic", marks=pytest.mark.integration),
    ]
)
def stack(request: pytest.FixtureRequest) -> Iterator[LogStack]:
    if request.param == "memory":
        yield MemoryStack()
        return
    broker: RealBroker = request.getfixturevalue("shared_broker")
    publisher: KafkaPublisher = request.getfixturevalue("shared_publisher")
    kafka = KafkaStack(broker.config.bootstrap, request.param, publisher)
    yield kafka
    kafka.close()
