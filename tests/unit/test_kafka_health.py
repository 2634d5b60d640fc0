"""The verdict on a cluster: each thing that can be wrong is named once, and nothing that is right is."""

import dataclasses
import re
from collections.abc import Mapping

import yaml

from headway.kafka_health import Cluster, Declared, Health, Partition, Quorum, Voter, judge, leaders_of
from headway.replication import copies_for
from headway.settings import project_root
from headway.topics import EVENTS_RAW, topic_table
from streaming.kafka_watch import KafkaMetrics, describe

COPIES = copies_for(3)
TOPICS = topic_table(views=[], products=[], replication_factor=3, min_insync_replicas=2)
DECLARED = Declared(brokers=3, copies=COPIES, topics=TOPICS)
QUORUM = Quorum(leader=1, epoch=7, voters=tuple(Voter(node=node, end=100, silent_s=0.2) for node in (1, 2, 3)))


def partition(name: str, number: int) -> Partition:
    replicas = tuple((number + place) % 3 + 1 for place in range(3))
    return Partition(topic=name, number=number, leader=replicas[0], replicas=replicas, in_sync=replicas)


WELL = Cluster(
    brokers=(1, 2, 3),
    partitions=tuple(partition(topic.name, number) for topic in TOPICS for number in range(4)),
    topics={topic.name: dataclasses.replace(topic, config=topic.full_config) for topic in TOPICS},
    broker_configs={node: {"auto.create.topics.enable": "false"} for node in (1, 2, 3)},
    quorum=QUORUM,
)


def with_partition(**changes: object) -> Health:
    first = WELL.partitions[0]
    return judge(
        dataclasses.replace(
            WELL,
            partitions=(dataclasses.replace(first, **changes), *WELL.partitions[1:]),  # type: ignore[arg-type]
        ),
        DECLARED,
    )


def kinds(health: Health) -> list[str]:
    return [problem.kind for problem in health.problems]


def values(health: Health) -> Mapping[str, float]:
    return {sample.name: sample.value for family in describe(health) for sample in family.samples if not sample.labels}


def test_a_cluster_as_declared_has_no_problem() -> None:
    health = judge(WELL, DECLARED)

    assert health.healthy
    assert health.problems == ()
    assert sum(leaders_of(WELL.partitions, WELL.brokers).values()) == len(WELL.partitions)


def test_a_partition_without_a_leader_is_offline() -> None:
    health = with_partition(leader=None)

    assert (kinds(health), health.problems[0].topic) == (["offline"], WELL.partitions[0].topic)
    assert values(health)["headway_kafka_partitions_offline"] == 1


def test_a_missing_copy_is_told_by_number() -> None:
    health = with_partition(in_sync=(1, 2))

    assert kinds(health) == ["under-replicated"]
    assert "2 of 3 copies in sync, without 3" in health.problems[0].told


def test_a_partition_that_refuses_writes_is_told_once_as_that() -> None:
    health = with_partition(in_sync=(1,))

    assert kinds(health) == ["under-min-in-sync"]
    assert values(health)["headway_kafka_partitions_under_min_in_sync"] == 1
    assert values(health)["headway_kafka_partitions_under_replicated"] == 1


def test_a_leader_that_is_not_the_preferred_one_is_told_and_no_problem() -> None:
    health = with_partition(leader=2)

    assert (health.healthy, len(health.skewed)) == (True, 1)


def test_a_broker_that_is_down_is_a_problem_of_the_whole_cluster() -> None:
    health = judge(dataclasses.replace(WELL, brokers=(1, 3)), DECLARED)

    assert [(each.kind, each.topic) for each in health.problems] == [("brokers", "")]
    assert "2 are up (1, 3), declared are 3" in health.problems[0].told


def test_a_quorum_without_leader_and_a_silent_controller_are_problems() -> None:
    leaderless = Quorum(leader=None, epoch=-1, voters=())
    silent = dataclasses.replace(QUORUM, voters=(*QUORUM.voters[:2], Voter(node=3, end=90, silent_s=60.0)))

    assert kinds(judge(dataclasses.replace(WELL, quorum=leaderless), DECLARED)) == ["quorum"]
    assert kinds(judge(dataclasses.replace(WELL, quorum=silent), DECLARED)) == ["quorum"]
    assert judge(dataclasses.replace(WELL, quorum=None), DECLARED).healthy


def test_drift_and_what_is_unsafe_in_it_are_both_told() -> None:
    changed = dataclasses.replace(WELL.topics[EVENTS_RAW], min_insync_replicas=1)

    health = judge(dataclasses.replace(WELL, topics={**WELL.topics, EVENTS_RAW: changed}), DECLARED)

    assert kinds(health) == ["drift", "unsafe"]
    assert {each.topic for each in health.problems} == {EVENTS_RAW}


def test_an_absent_topic_is_drift() -> None:
    topics = {name: topic for name, topic in WELL.topics.items() if name != EVENTS_RAW}

    health = judge(dataclasses.replace(WELL, topics=topics), DECLARED)

    assert [each.told for each in health.problems] == ["events.raw: topic is absent, not present"]


def test_an_unsafe_default_of_a_broker_is_told_with_its_broker() -> None:
    configs = {**WELL.broker_configs, 2: {"auto.create.topics.enable": "true"}}

    health = judge(dataclasses.replace(WELL, broker_configs=configs), DECLARED)

    assert kinds(health) == ["unsafe"]
    assert health.problems[0].told.startswith("broker 2: auto.create.topics.enable")


def test_while_no_broker_answers_no_figure_is_shown() -> None:
    """A stale figure is a wrong one: an alert on it would stay silent through the outage."""
    metrics = KafkaMetrics()

    assert [(family.name, family.samples[0].value) for family in metrics.collect()] == [("headway_kafka_up", 0.0)]
    metrics.health = judge(WELL, DECLARED)
    assert {family.name for family in metrics.collect()} > {"headway_kafka_up", "headway_kafka_brokers"}


def test_every_alert_is_about_a_metric_there_is() -> None:
    rules = yaml.safe_load((project_root() / "deploy" / "alerts" / "kafka.yml").read_text())["groups"][0]["rules"]
    metrics = KafkaMetrics()
    metrics.health = judge(WELL, DECLARED)
    there = {family.name for family in metrics.collect()}

    assert {name for rule in rules for name in re.findall(r"headway_kafka_\w+", rule["expr"])} <= there
    assert all(rule["annotations"].keys() >= {"summary", "runbook_url"} for rule in rules)
