"""What waits for consumer groups on Kafka: ends and committed offsets, summed over the partitions they read.

Estimates: offsets of transactional topics have gaps, and a group at rest stands before the markers of the last
transaction. Joins no group and reads no message.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public by its manual, not by __all__
    AdminClient,
    OffsetSpec,
)

from headway.adapters.kafka_client import unreachable
from headway.ports import TopicPartition

# Shorter than a round of the scaler: figures that come later than the next round are of no use.
_TIMEOUT_S = 4.0


@dataclass(frozen=True, kw_only=True)
class GroupBacklog:
    """Sums over the partitions a group reads: the next offset of each, and how far the group is.

    ``places`` counts them; ``partitions`` is the most that any one topic has, so the most instances that have work.
    """

    written: int
    done: int
    places: int
    partitions: int


def read_backlogs(admin: AdminClient, groups: Mapping[str, Sequence[str]]) -> dict[str, GroupBacklog]:
    """Return the backlog of each group, given with its topics; topics that do not exist hold nothing.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    try:
        known = admin.list_topics(timeout=_TIMEOUT_S).topics
        places = {
            group: [
                TopicPartition(name, number) for name in names if name in known for number in known[name].partitions
            ]
            for group, names in groups.items()
        }
        everywhere = {place for each in places.values() for place in each}
        first = _offsets(admin, everywhere, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        last = _offsets(admin, everywhere, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        asked = {group: _ask_committed(admin, group, each) for group, each in places.items() if each}
        committed = {group: _settled(future.result()) for group, future in asked.items()}
    except KafkaException as error:
        raise unreachable("backlog could not be read", error) from error
    return {
        group: GroupBacklog(
            written=sum(last[place] for place in each),
            # What retention took cannot be done any more; a group that never committed starts at the first.
            done=sum(max(first[place], committed[group].get(place, 0)) for place in each),
            places=len(each),
            partitions=max(Counter(topic for topic, _ in each).values(), default=0),
        )
        for group, each in places.items()
    }


def committed_offsets(admin: AdminClient, group: str, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Return the next offset of a group in each partition of topics; 0 where it never committed.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    try:
        known = admin.list_topics(timeout=_TIMEOUT_S).topics
        places = [TopicPartition(name, number) for name in topics if name in known for number in known[name].partitions]
        found = _settled(_ask_committed(admin, group, places).result()) if places else {}
    except KafkaException as error:
        raise unreachable(f"offsets of {group} could not be read", error) from error
    return {place: found.get(place, 0) for place in places}


def _ask_committed(admin: AdminClient, group: str, places: Sequence[TopicPartition]) -> "Future[Any]":
    wanted = ConsumerGroupTopicPartitions(group, [KafkaTopicPartition(*place) for place in places])
    [future] = admin.list_consumer_group_offsets([wanted], request_timeout=_TIMEOUT_S).values()
    return future


def _settled(found: Any) -> dict[TopicPartition, int]:  # Any: the client ships no types
    return {TopicPartition(each.topic, each.partition): max(0, each.offset) for each in found.topic_partitions}


def _offsets(admin: AdminClient, places: Iterable[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
    wanted = {KafkaTopicPartition(*place): spec for place in places}
    if not wanted:
        return {}
    futures = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT_S)
    return {TopicPartition(place.topic, place.partition): future.result().offset for place, future in futures.items()}
