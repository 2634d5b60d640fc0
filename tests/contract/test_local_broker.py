"""What the one-machine broker's own settings promise."""

import random
import time

import pytest

from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.ports import Record
from tests.contract.conftest import RealBroker, plain_topic

pytestmark = pytest.mark.integration

RECORDS, RECORD_BYTES = 80, 500_000


def test_a_killed_broker_reads_no_more_than_the_open_segment_again(shared_broker: RealBroker) -> None:
    bootstrap = shared_broker.config.bootstrap
    apply_topics(admin_client(bootstrap), [plain_topic("long-history", partitions=1)])
    publisher = KafkaPublisher(bootstrap=bootstrap)
    # Incompressible, else it would fit in one segment.
    noise = random.Random(7)
    values = [noise.randbytes(RECORD_BYTES) for _ in range(RECORDS)]

    publisher.publish([Record(topic="long-history", key=None, value=value, partition=0) for value in values])
    publisher.close()

    checkpoint = shared_broker.config.data_dir / "log" / "recovery-point-offset-checkpoint"
    deadline = time.monotonic() + 120
    while (safe := flushed_to(checkpoint.read_text("utf-8"))) < RECORDS // 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert RECORDS // 2 <= safe < RECORDS, "two segments of three are flushed and will not be read again"


def flushed_to(checkpoint: str) -> int:
    """The offset up to which `long-history` need not be read after a kill; each line is topic, partition, offset."""
    rows = (line.split() for line in checkpoint.splitlines())
    return next((int(row[2]) for row in rows if row[:2] == ["long-history", "0"]), 0)
