"""What only a real broker can say: that unsafe tables are refused, drift is found and mended, and how it is told."""

import time

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public by its manual, not by __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from headway.adapters.kafka_cluster import read_cluster
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.adapters.kafka_wire import ask_metadata, ask_quorum
from headway.errors import ContractViolation, TransientFailure
from headway.kafka_health import Declared, Health, judge
from headway.replication import copies_for
from headway.topics import EVENTS_RAW, Topic, topic_table
from tests.contract.conftest import RealBroker
from tests.free_ports import free_port

pytestmark = pytest.mark.integration

ONE = copies_for(1)


def table(*, replication_factor: int = 1, min_insync_replicas: int = 1) -> tuple[Topic, ...]:
    return topic_table(
        views=[], products=[], replication_factor=replication_factor, min_insync_replicas=min_insync_replicas
    )


def verdict(admin: AdminClient, declared: Declared, *, healthy: bool) -> Health:
    """A changed setting is acknowledged a moment before the brokers act on it, so ask until the verdict is that."""
    deadline = time.monotonic() + 10
    while True:
        health = judge(read_cluster(admin, [topic.name for topic in declared.topics]), declared)
        if health.healthy == healthy or time.monotonic() > deadline:
            return health
        time.sleep(0.05)


def test_more_copies_than_brokers_are_refused_and_nothing_is_created(shared_broker: RealBroker) -> None:
    admin = admin_client(shared_broker.config.bootstrap)

    with pytest.raises(ContractViolation, match=r"events\.raw: replication factor is 3, wanted at most 1"):
        apply_topics(
            admin, [Topic(name="unsafe.events.raw", partitions=1, replication_factor=3, min_insync_replicas=2)]
        )

    assert "unsafe.events.raw" not in admin.list_topics(timeout=10).topics


def test_a_cluster_as_declared_is_healthy_and_a_hand_made_change_is_told_and_mended(own_broker: RealBroker) -> None:
    admin = admin_client(own_broker.config.bootstrap)
    declared = Declared(brokers=1, copies=ONE, topics=table())
    apply_topics(admin, declared.topics)
    before = verdict(admin, declared, healthy=True)
    unsafe = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in (("unclean.leader.election.enable", "true"), ("retention.ms", "1000"))
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, EVENTS_RAW, incremental_configs=unsafe)
    [changed] = admin.incremental_alter_configs([resource]).values()
    changed.result()

    during = verdict(admin, declared, healthy=False)
    done = apply_topics(admin, declared.topics)
    after = verdict(admin, declared, healthy=True)

    assert (before.problems, after.problems) == ((), ())
    assert {finding.rule for finding in during.unsafe} == {"unclean-election", "kept-too-short"}
    assert {(each.topic, each.field) for each in during.drift} == {
        (EVENTS_RAW, "retention.ms"),
        (EVENTS_RAW, "unclean.leader.election.enable"),
    }
    assert sorted(done) == [
        "events.raw: retention.ms 1000 -> 604800000",
        "events.raw: unclean.leader.election.enable true -> false",
    ]


def test_our_own_requests_agree_with_the_sdk(shared_broker: RealBroker) -> None:
    address = shared_broker.config.bootstrap
    admin = admin_client(address)
    topic = Topic(name="asked.by.hand", partitions=3, replication_factor=1, min_insync_replicas=1)
    apply_topics(admin, [topic])

    view = ask_metadata(address, [topic.name, "nobody.knows.this"], timeout_s=5)
    quorum = ask_quorum(address, timeout_s=5)

    cluster = read_cluster(admin, [topic.name])
    theirs = [(part.number, part.leader, part.in_sync) for part in cluster.partitions if part.topic == topic.name]
    assert [
        (part.number, part.leader, part.in_sync) for part in sorted(view.partitions, key=lambda p: p.number)
    ] == theirs
    assert all(part.epoch is not None and part.epoch >= 0 for part in view.partitions)
    assert view.brokers == cluster.brokers == (1,)
    assert (quorum.leader, [voter.node for voter in quorum.voters]) == (1, [1])
    assert "nobody.knows.this" not in admin.list_topics(timeout=10).topics


def test_nobody_there_is_said_at_once_and_as_such() -> None:
    port = free_port()

    with pytest.raises(TransientFailure, match="Is this broker up"):
        ask_quorum(f"127.0.0.1:{port}", timeout_s=1)
