"""What only a real broker can say: that unsafe tables are refused, drift is found and mended, and how it is told."""

import time
from collections.abc import Mapping

import dagster as dg
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
from headway.settings import Settings
from headway.topics import EVENTS_RAW, Topic, topic_table
from orchestration.definitions import defs
from streaming.provision import declared_cluster
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


def change(admin: AdminClient, topic: str, settings: Mapping[str, str]) -> None:
    """Set what nobody declared, as a hand would."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    [changed] = admin.incremental_alter_configs([resource]).values()
    changed.result()


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
    change(admin, EVENTS_RAW, {"unclean.leader.election.enable": "true", "retention.ms": "1000"})

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


def checked_by_dagster(*, passed: bool) -> dict[str, dg.AssetCheckEvaluation]:
    """What the job `check_replication` says of each topic, once it says of all together what is wanted."""
    deadline = time.monotonic() + 10
    while True:
        with dg.DagsterInstance.ephemeral() as instance:
            ran = defs.resolve_job_def("check_replication").execute_in_process(instance=instance)
        assert ran.success
        found = {each.asset_key.path[-1]: each for each in ran.get_asset_check_evaluations()}
        if all(each.passed for each in found.values()) == passed or time.monotonic() > deadline:
            return found


def test_dagster_checks_every_topic_and_names_what_a_hand_changed(
    shared_broker: RealBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job of the schedule, on the definitions as they are deployed."""
    monkeypatch.setenv("HEADWAY_KAFKA_BOOTSTRAP", shared_broker.config.bootstrap)
    admin, declared = admin_client(shared_broker.config.bootstrap), declared_cluster(Settings())
    apply_topics(admin, declared.topics)
    before = checked_by_dagster(passed=True)
    change(admin, EVENTS_RAW, {"retention.ms": "1000"})

    during = checked_by_dagster(passed=False)
    apply_topics(admin, declared.topics)
    after = checked_by_dagster(passed=True)

    shown = {topic.name for topic in declared.topics if not topic.name.startswith("state.dedupe")}
    assert before.keys() == during.keys() == after.keys() == shown
    assert [name for name, each in during.items() if not each.passed] == [EVENTS_RAW]
    told = str(during[EVENTS_RAW].metadata["problems"].value)
    assert "retention.ms" in told
    assert before[EVENTS_RAW].metadata["brokers_up"].value == 1
    assert all(each.passed for each in (*before.values(), *after.values()))


@pytest.mark.long  # the client's patience, 10 s
def test_dagster_says_that_no_broker_answers_on_every_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("HEADWAY_KAFKA_BOOTSTRAP", f"127.0.0.1:{port}")

    found = checked_by_dagster(passed=False)

    assert not any(each.passed for each in found.values())
    assert "cluster could not be described" in str(found[EVENTS_RAW].metadata["problems"].value)


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
