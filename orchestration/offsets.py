"""End offsets of topics, as the brokers tell them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.errors import TransientFailure

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

# A sensor has better things to do than wait for a broker that is down.
_TIMEOUT_S = 4.0


@dataclass(frozen=True)
class Offsets:
    """First and next offset of each partition of a topic. Gaps are normal, so their difference counts no records."""

    by_partition: Mapping[int, tuple[int, int]]

    def as_json(self) -> dict[str, list[int]]:
        """Return the offsets as JSON holds them."""
        return {str(partition): list(ends) for partition, ends in sorted(self.by_partition.items())}

    def metadata(self) -> dict[str, int]:
        """Return what an observation shows: the next offset of each partition, and their sum to draw over time."""
        shown = {f"partition {number}": end for number, (_, end) in sorted(self.by_partition.items())}
        return {**shown, "next_offsets": sum(shown.values())}


def read_offsets(admin: "AdminClient", topics: Sequence[str]) -> dict[str, Offsets]:
    """Return the offsets of those topics that exist.

    Raises:
        TransientFailure: the brokers do not answer in time.
    """
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # exported without __all__

    try:
        found = admin.list_topics(timeout=_TIMEOUT_S).topics
        places = [
            TopicPartition(topic, partition)
            for topic in topics
            if topic in found
            for partition in found[topic].partitions
        ]
        if not places:
            return {}
        wanted: tuple[Any, Any] = (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        first, last = (
            _settled(admin.list_offsets(dict.fromkeys(places, spec), request_timeout=_TIMEOUT_S)) for spec in wanted
        )
    except KafkaException as error:
        raise TransientFailure(f"event log: offsets: {error.args[0].str()}; is the broker up?") from error
    named = sorted({topic for topic, _ in last})
    return {
        topic: Offsets({number: (first[topic, number], end) for (name, number), end in last.items() if name == topic})
        for topic in named
    }


def _settled(futures: Mapping[Any, "Future[Any]"]) -> dict[tuple[str, int], int]:  # Any: the client ships no types
    return {(place.topic, place.partition): int(future.result().offset) for place, future in futures.items()}
