"""Every topic Headway uses: name, partitions, retention, in one table. Pure; applied by `headway.adapters.kafka_topics`.

Partition counts may not change once a keyed topic holds data: keys would move, and with them order and state.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

EVENTS_RAW = "events.raw"
EVENTS_RAW_LETTERS = "events.raw.dlq"
EVENTS_ENRICHED = "events.enriched"
EVENTS_ENRICHED_LETTERS = "events.enriched.dlq"
FEATURES_INPUT = "features.input"
STATE_PREFIX = "state."
STATE_DEDUPE = f"{STATE_PREFIX}dedupe"
LETTERS_FATE = "letters.fate"
LETTERS_CAUSES = "letters.causes"
# Written to by collectors that have nothing else to write, to know whether the log takes records; read by nobody.
COLLECTOR_PROBE = "collector.probe"

# The unit of parallelism of every job: four instances at most, and four watermarks to wait for.
PARTITIONS = 4

_HOUR_MS = 60 * 60 * 1000
_DAY_MS = 24 * _HOUR_MS

# The lake keeps events for good; the log must outlive an outage of every reader, over a long weekend and more.
_EVENTS_RETENTION_MS = 7 * _DAY_MS
# A letter holds a record of the greatest size a broker takes by default (1 MiB), and what is said about it.
LETTER_MAX_BYTES = 2 * 1024 * 1024
# People repair letters, and people take holidays.
_LETTERS_RETENTION_MS = 30 * _DAY_MS
# Derived from events.enriched, so it can be written again; three days outlive a weekend.
_REPARTITION_RETENTION_MS = 3 * _DAY_MS


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic as it should be. ``config`` holds Kafka's own topic settings, without the two that are fields."""

    name: str
    partitions: int
    replication_factor: int
    min_insync_replicas: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_config(self) -> dict[str, str]:
        """Every topic setting to apply, the two that every topic has included."""
        return {
            # The brokers' default too, but a topic may be given another, and then a lost leader is lost data.
            "unclean.leader.election.enable": "false",
            **self.config,
            "min.insync.replicas": str(self.min_insync_replicas),
        }


@dataclass(frozen=True, kw_only=True)
class TopicDrift:
    """One way in which a topic is not as declared.

    ``field`` is ``topic``, ``partitions``, ``replication_factor`` or a setting's name.
    """

    topic: str
    field: str
    wanted: str
    got: str


def features_topic(view: str) -> str:
    """Changelog of one feature view, ``view`` with its version (``delay.v1``)."""
    return f"features.{view}"


def state_topic(view: str) -> str:
    """Compacted aggregation state of one feature view."""
    return f"{STATE_PREFIX}{view}"


def predictions_topic(product: str) -> str:
    """Prediction log of one product."""
    return f"predictions.{product}"


def scores_topic(product: str) -> str:
    """Stream scores of one product."""
    return f"scores.{product}"


def scores_state_topic(product: str) -> str:
    """Compacted state of a product's stream scores: questions that wait, and which version scores which offsets."""
    return f"{STATE_PREFIX}scores.{product}"


def topic_table(
    *, views: Iterable[str], products: Iterable[str], replication_factor: int, min_insync_replicas: int
) -> tuple[Topic, ...]:
    """All topics for these feature views (``name.vN``) and products, in name order.

    Locally both replica figures are 1; a cluster wants 3 and 2.
    """

    def topic(name: str, config: Mapping[str, str]) -> Topic:
        return Topic(
            name=name,
            partitions=PARTITIONS,
            replication_factor=replication_factor,
            min_insync_replicas=min_insync_replicas,
            config=config,
        )

    events = _kept_for(_EVENTS_RETENTION_MS)
    letters = {**_kept_for(_LETTERS_RETENTION_MS), "max.message.bytes": str(LETTER_MAX_BYTES)}
    table = [
        topic(EVENTS_RAW, events),
        topic(EVENTS_RAW_LETTERS, letters),
        topic(EVENTS_ENRICHED, events),
        topic(EVENTS_ENRICHED_LETTERS, letters),
        topic(COLLECTOR_PROBE, _kept_for(_HOUR_MS)),
        topic(FEATURES_INPUT, _kept_for(_REPARTITION_RETENTION_MS)),
        # State sits in the same partition number as the input it was made from, so an instance restores
        # exactly what it owns: events.raw for dedupe, features.input for views, events.enriched for scores.
        topic(STATE_DEDUPE, _compacted()),
        # One record per letter somebody dealt with, and per cause ever seen: small, and kept for good.
        topic(LETTERS_FATE, _compacted()),
        topic(LETTERS_CAUSES, _compacted()),
    ]
    for view in sorted(set(views)):
        table += [topic(features_topic(view), events), topic(state_topic(view), _compacted())]
    for product in sorted(set(products)):
        table += [topic(predictions_topic(product), events), topic(scores_topic(product), events)]
        table.append(topic(scores_state_topic(product), _compacted()))
    return tuple(sorted(table, key=lambda each: each.name))


def find_drift(
    wanted: Topic, *, partitions: int | None, replication_factor: int, config: Mapping[str, str]
) -> tuple[TopicDrift, ...]:
    """How an existing topic differs from the declared one; ``partitions`` None means there is no such topic."""
    if partitions is None:
        return (TopicDrift(topic=wanted.name, field="topic", wanted="present", got="absent"),)
    compared = [
        ("partitions", str(wanted.partitions), str(partitions)),
        ("replication_factor", str(wanted.replication_factor), str(replication_factor)),
        *((key, value, config.get(key, "unset")) for key, value in sorted(wanted.full_config.items())),
    ]
    return tuple(
        TopicDrift(topic=wanted.name, field=field, wanted=want, got=got) for field, want, got in compared if want != got
    )


def partition_of(key: bytes, partitions: int) -> int:
    """Partition that a key belongs to: murmur2, as Kafka's Java clients and Spark choose it.

    Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey.
    """
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _kept_for(retention_ms: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


def _compacted() -> dict[str, str]:
    return {
        "cleanup.policy": "compact",
        # Only closed segments are compacted, and a restart reads all that is not: small segments, early cleaning.
        "segment.bytes": str(16 * 1024 * 1024),
        "segment.ms": str(_HOUR_MS),
        "min.cleanable.dirty.ratio": "0.1",
        # Tombstones must outlast the longest restore, or a reader that started before would keep the dead key.
        "delete.retention.ms": str(_HOUR_MS),
    }


def _murmur2(data: bytes) -> int:
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15
