"""What a topic or a broker must not be set to, each refusal with its rule and its reason."""

import dataclasses

import pytest

from headway.errors import ContractViolation
from headway.replication import Copies, Finding, check_broker, check_topics, copies_for, refuse_unsafe
from headway.topics import EVENTS_RAW, STATE_DEDUPE, Topic, topic_table

SAFE = Copies(replication_factor=3, min_insync_replicas=2)
BROKER = {
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
}


def table(copies: Copies = SAFE) -> tuple[Topic, ...]:
    return topic_table(
        views=["delay.v1"],
        products=["flight_delay"],
        replication_factor=copies.replication_factor,
        min_insync_replicas=copies.min_insync_replicas,
    )


def changed(name: str, **settings: str) -> Topic:
    [topic] = [each for each in table() if each.name == name]
    return dataclasses.replace(topic, config={**topic.full_config, **settings})


def rules(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize(("brokers", "copies"), [(1, (1, 1)), (3, (3, 2)), (5, (3, 2))])
def test_the_copies_follow_from_the_number_of_brokers(brokers: int, copies: tuple[int, int]) -> None:
    found = copies_for(brokers)

    assert (found.replication_factor, found.min_insync_replicas) == copies
    assert check_topics(table(found), brokers=brokers) == ()


def test_one_copy_is_called_one_copy() -> None:
    assert copies_for(1).told.startswith("one copy")
    assert copies_for(3).told == "3 copies, 2 before an acknowledgement: 1 broker may be down"


def test_two_brokers_are_refused_with_both_reasons() -> None:
    with pytest.raises(ContractViolation, match=r"got 2, wanted 1 or at least 3.*stops all writes.*loses them"):
        copies_for(2)


def test_declared_copies_win_over_derived_ones() -> None:
    assert copies_for(5, replication_factor=5) == Copies(replication_factor=5, min_insync_replicas=3)
    assert copies_for(2, replication_factor=1) == Copies(replication_factor=1, min_insync_replicas=1)


@pytest.mark.parametrize(
    ("factor", "needed", "brokers", "rule"),
    [
        (3, 2, 2, "more-copies-than-brokers"),
        (3, 3, 3, "no-copy-to-spare"),
        (2, 2, 3, "no-copy-to-spare"),
        (3, 1, 3, "acknowledged-with-one-copy"),
        (2, 1, 3, "acknowledged-with-one-copy"),
    ],
)
def test_unsafe_copies_are_found_on_every_topic(factor: int, needed: int, brokers: int, rule: str) -> None:
    topics = table(Copies(replication_factor=factor, min_insync_replicas=needed))

    findings = check_topics(topics, brokers=brokers)

    assert rules(findings) == {rule}
    assert [finding.subject for finding in findings] == [topic.name for topic in topics]


@pytest.mark.parametrize(
    ("topic", "setting", "value", "rule"),
    [
        (EVENTS_RAW, "unclean.leader.election.enable", "true", "unclean-election"),
        (EVENTS_RAW, "cleanup.policy", "compact", "compacted-history"),
        (EVENTS_RAW, "cleanup.policy", "compact,delete", "compacted-history"),
        (EVENTS_RAW, "retention.ms", "86400000", "kept-too-short"),
        (EVENTS_RAW, "retention.bytes", "1073741824", "kept-by-size"),
        (STATE_DEDUPE, "cleanup.policy", "delete", "state-not-compacted"),
        (STATE_DEDUPE, "cleanup.policy", "compact,delete", "state-not-compacted"),
    ],
)
def test_an_unsafe_setting_of_a_topic_is_found(topic: str, setting: str, value: str, rule: str) -> None:
    [finding] = check_topics([changed(topic, **{setting: value})], brokers=3)

    assert (finding.rule, finding.subject, finding.setting, finding.got) == (rule, topic, setting, value)
    assert finding.reason


def test_events_kept_for_good_are_kept_long_enough() -> None:
    assert check_topics([changed(EVENTS_RAW, **{"retention.ms": "-1", "retention.bytes": "-1"})], brokers=3) == ()


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("auto.create.topics.enable", "true", "auto-creation"),
        ("unclean.leader.election.enable", "true", "unclean-election"),
        ("default.replication.factor", "1", "broker-default"),
        ("min.insync.replicas", "1", "broker-default"),
        ("offsets.topic.replication.factor", "1", "broker-default"),
        ("transaction.state.log.replication.factor", "1", "broker-default"),
        ("transaction.state.log.min.isr", "1", "broker-default"),
    ],
)
def test_an_unsafe_default_of_a_broker_is_found(setting: str, value: str, rule: str) -> None:
    assert check_broker("broker 1", BROKER, copies=SAFE) == ()

    [finding] = check_broker("broker 1", {**BROKER, setting: value}, copies=SAFE)

    assert (finding.rule, finding.subject, finding.setting) == (rule, "broker 1", setting)


def test_a_refusal_names_topic_setting_both_values_and_the_reason() -> None:
    findings = check_topics([changed(EVENTS_RAW, **{"retention.ms": "60000"})], brokers=3)

    with pytest.raises(
        ContractViolation, match=r"events\.raw: retention\.ms is 60000, wanted at least 259200000.*week"
    ):
        refuse_unsafe(findings)
    refuse_unsafe(())
