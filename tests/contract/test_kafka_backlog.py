"""What the scaler reads of a real broker: backlogs of groups, and who gets what of a job with several topics."""

import time
from uuid import uuid4

import pytest

from headway.adapters.kafka_backlog import GroupBacklog, committed_offsets, read_backlogs
from headway.adapters.kafka_log import KafkaEventLog
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.errors import TransientFailure
from headway.ports import Record, TopicPartition, next_offsets
from tests.contract.conftest import RealBroker, plain_topic
from tests.free_ports import free_port

pytestmark = pytest.mark.integration


def new_topics(broker: RealBroker, count: int) -> list[str]:
    names = [f"backlog.{uuid4().hex}" for _ in range(count)]
    apply_topics(admin_client(broker.config.bootstrap), [plain_topic(name, partitions=4) for name in names])
    return names


def test_a_backlog_is_what_a_group_has_not_committed_over_all_its_topics(shared_broker: RealBroker) -> None:
    bootstrap = shared_broker.config.bootstrap
    topics = new_topics(shared_broker, 2)
    publisher = KafkaPublisher(bootstrap=bootstrap)
    publisher.publish([Record(topic, b"%d" % n, b"") for topic in topics for n in range(50)])
    publisher.close()
    group = f"g.{uuid4().hex}"
    log = KafkaEventLog(bootstrap=bootstrap, group=group, topics=topics, instance="0")
    batch = log.poll(30, 10.0)
    while not batch:
        batch = log.poll(30, 10.0)
    log.commit(batch, [])
    log.close()

    asked = {group: topics, "never-committed": topics[:1], "nothing": ["no.such.topic"]}
    admin, deadline = admin_client(bootstrap), time.monotonic() + 10
    # A transaction's commit is answered before its offsets are there for others to read.
    while not (found := read_backlogs(admin, asked))[group].done:
        assert time.monotonic() < deadline

    assert found == {
        group: GroupBacklog(written=100, done=len(batch), places=8, partitions=4),
        "never-committed": GroupBacklog(written=50, done=0, places=4, partitions=4),
        "nothing": GroupBacklog(written=0, done=0, places=0, partitions=0),
    }
    places = [TopicPartition(topic, number) for topic in topics for number in range(4)]
    assert committed_offsets(admin, group, topics) == {place: next_offsets(batch).get(place, 0) for place in places}
    assert committed_offsets(admin, "never-committed", topics[:1]) == dict.fromkeys(places[:4], 0)
    assert committed_offsets(admin, "nothing", ["no.such.topic"]) == {}


def test_brokers_that_do_not_answer_are_a_passing_failure() -> None:
    port = free_port()

    with pytest.raises(TransientFailure, match="backlog could not be read"):
        read_backlogs(admin_client(f"127.0.0.1:{port}"), {"g": ["t"]})
    with pytest.raises(TransientFailure, match="offsets of g could not be read"):
        committed_offsets(admin_client(f"127.0.0.1:{port}"), "g", ["t"])


def test_partition_p_of_every_topic_goes_to_one_member_and_a_fifth_gets_none(shared_broker: RealBroker) -> None:
    """Under the broker's default assignor all five would own some of the twelve."""
    topics, group = new_topics(shared_broker, 3), f"g.{uuid4().hex}"
    logs = [
        KafkaEventLog(bootstrap=shared_broker.config.bootstrap, group=group, topics=topics, instance=str(number))
        for number in range(5)
    ]

    def shares() -> list[set[int]]:
        return sorted(({partition for _, partition in log.assignment()} for log in logs), key=sorted)

    deadline = time.monotonic() + 60
    try:
        while (shares(), sum(len(log.assignment()) for log in logs)) != ([set(), {0}, {1}, {2}, {3}], 12):
            assert time.monotonic() < deadline, shares()
            for log in logs:
                log.poll(1, 0.05)
        assert logs[0].is_member()
        while not all(log.is_member() for log in logs):
            assert time.monotonic() < deadline, [log.is_member() for log in logs]
            for log in logs:
                log.poll(1, 0.05)
    finally:
        for log in logs:
            log.close()
