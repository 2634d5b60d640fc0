"""The topic table, drift, and where keys go."""

from hypothesis import given
from hypothesis import strategies as st

from headway.topics import (
    EVENTS_ENRICHED,
    EVENTS_RAW,
    FEATURES_INPUT,
    STATE_DEDUPE,
    Topic,
    TopicDrift,
    find_drift,
    partition_of,
    scores_state_topic,
    state_topic,
    topic_table,
)


def table(*, views: tuple[str, ...] = ("delay.v1",), products: tuple[str, ...] = ("flight_delay",)) -> dict[str, Topic]:
    topics = topic_table(views=views, products=products, replication_factor=3, min_insync_replicas=2)
    return {topic.name: topic for topic in topics}


def test_the_table_names_every_topic_once_and_in_order() -> None:
    assert list(table(views=("delay.v1", "delay.v1"))) == [
        "collector.probe",
        "events.enriched",
        "events.enriched.dlq",
        "events.raw",
        "events.raw.dlq",
        "features.delay.v1",
        "features.input",
        "letters.causes",
        "letters.fate",
        "predictions.flight_delay",
        "scores.flight_delay",
        "state.dedupe",
        "state.delay.v1",
        "state.scores.flight_delay",
    ]


def test_state_has_as_many_partitions_as_the_input_it_is_made_from() -> None:
    topics = table()

    assert topics[STATE_DEDUPE].partitions == topics[EVENTS_RAW].partitions == topics[EVENTS_ENRICHED].partitions
    assert topics[scores_state_topic("flight_delay")].partitions == topics[EVENTS_ENRICHED].partitions
    assert topics[state_topic("delay.v1")].partitions == topics[FEATURES_INPUT].partitions


def test_state_and_what_people_decided_is_compacted_and_everything_else_says_how_long_it_is_kept() -> None:
    for topic in table().values():
        compacted = topic.config["cleanup.policy"] == "compact"
        assert compacted == topic.name.startswith(("state.", "letters."))
        assert compacted != ("retention.ms" in topic.config)


def test_every_topic_carries_the_declared_replicas() -> None:
    for topic in table().values():
        assert topic.replication_factor == 3
        assert topic.full_config["min.insync.replicas"] == "2"


def test_a_topic_as_declared_has_no_drift() -> None:
    wanted = table()[EVENTS_RAW]

    assert find_drift(wanted, partitions=4, replication_factor=3, config=wanted.full_config) == ()


def test_a_missing_topic_is_one_drift() -> None:
    wanted = table()[EVENTS_RAW]

    assert find_drift(wanted, partitions=None, replication_factor=0, config={}) == (
        TopicDrift(topic="events.raw", field="topic", wanted="present", got="absent"),
    )


def test_drift_names_field_wanted_and_got() -> None:
    wanted = table()[EVENTS_RAW]
    config = {**wanted.full_config, "min.insync.replicas": "1"}

    drift = find_drift(wanted, partitions=8, replication_factor=1, config=config)

    assert [(each.field, each.wanted, each.got) for each in drift] == [
        ("partitions", "4", "8"),
        ("replication_factor", "3", "1"),
        ("min.insync.replicas", "2", "1"),
    ]


def test_keys_go_where_kafkas_own_tests_say() -> None:
    """Vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2; another hash would split keys from Java."""
    signed = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"": 275646681}
    modulus = 2**31 - 1

    for key, value in signed.items():
        assert partition_of(key, modulus) == (value & 0x7FFFFFFF) % modulus


@given(st.binary(), st.integers(min_value=1, max_value=1000))
def test_a_partition_always_exists(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
