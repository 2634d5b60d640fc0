"""Whether a Kafka cluster is as declared and well: leaders, copies in step, the quorum, drift, unsafe settings. Pure.

An adapter describes the cluster (`headway.adapters.kafka_cluster`), `judge` says what is wrong with it, and every
surface shows the same verdict: `headway kafka status`, the metrics, the asset checks. What bites: a cluster can serve
every request and still be one failure from losing acknowledged events; that state is a problem here, not a remark.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headway.replication import Copies, Finding, check_broker, check_topics
from headway.topics import Topic, TopicDrift, find_drift

# A follower asks at least twice a second; the pause of a busy machine is no loss of a controller.
SILENT_AT_MOST_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition as it is led and copied; ``epoch`` grows with every election, and is None where nobody tells it."""

    topic: str
    number: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    epoch: int | None = None

    def __str__(self) -> str:
        """Kafka's own way to name one."""
        return f"{self.topic}-{self.number}"

    @property
    def under_replicated(self) -> bool:
        """Whether a copy is missing or behind."""
        return len(self.in_sync) < len(self.replicas)

    @property
    def skewed(self) -> bool:
        """Whether another than the preferred copy leads, as after a restart."""
        return self.leader is not None and self.leader != self.replicas[0]


@dataclass(frozen=True, kw_only=True)
class Voter:
    """One controller of the quorum; ``silent_s`` is since its last fetch, None when it never asked this leader."""

    node: int
    end: int
    silent_s: float | None


@dataclass(frozen=True, kw_only=True)
class Quorum:
    """The controllers: who leads (None: nobody, so nothing can be elected), in which epoch, and who follows."""

    leader: int | None
    epoch: int
    voters: tuple[Voter, ...]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as found. ``quorum`` is None where it cannot be asked for; ``brokers`` are those that are up."""

    brokers: tuple[int, ...]
    partitions: tuple[Partition, ...]
    topics: Mapping[str, Topic]
    broker_configs: Mapping[int, Mapping[str, str]]
    quorum: Quorum | None


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A cluster as it should be."""

    brokers: int
    copies: Copies
    topics: tuple[Topic, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong; ``topic`` is empty when it concerns the whole cluster."""

    kind: str
    topic: str
    told: str


@dataclass(frozen=True, kw_only=True)
class Health:
    """The verdict. ``skewed`` is told and not held against the cluster: it serves as well, only less evenly."""

    declared: Declared
    cluster: Cluster
    offline: tuple[Partition, ...]
    under_min_in_sync: tuple[Partition, ...]
    under_replicated: tuple[Partition, ...]
    skewed: tuple[Partition, ...]
    drift: tuple[TopicDrift, ...]
    unsafe: tuple[Finding, ...]
    problems: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Whether all is as declared and nothing is missing."""
        return not self.problems

    def of(self, topic: str) -> tuple[Problem, ...]:
        """Give the problems of one topic."""
        return tuple(problem for problem in self.problems if problem.topic == topic)


def judge(cluster: Cluster, declared: Declared) -> Health:
    """Compare a cluster with what is declared."""
    needed = {name: topic.min_insync_replicas for name, topic in cluster.topics.items()}
    unsafe = [
        *check_topics(cluster.topics.values(), brokers=declared.brokers),
        *(
            finding
            for node, config in sorted(cluster.broker_configs.items())
            for finding in check_broker(f"broker {node}", config, copies=declared.copies)
        ),
    ]
    drift = tuple(each for topic in declared.topics for each in _drift(topic, cluster.topics.get(topic.name)))
    parts = cluster.partitions
    offline = tuple(part for part in parts if part.leader is None)
    under_min = tuple(
        part
        for part in parts
        # Internal topics do not tell theirs here; a leader and a majority is what the brokers ask of them.
        if len(part.in_sync) < needed.get(part.topic, len(part.replicas) // 2 + 1)
    )
    behind = tuple(part for part in parts if part.under_replicated)
    problems = [
        *_broker_problems(cluster, declared),
        *_quorum_problems(cluster.quorum),
        *(Problem(kind="offline", topic=part.topic, told=f"{part}: has no leader") for part in offline),
        *(
            Problem(kind="under-min-in-sync", topic=part.topic, told=_told_in_sync(part, "refuses acks=all"))
            for part in under_min
        ),
        *(
            Problem(kind="under-replicated", topic=part.topic, told=_told_in_sync(part, "a copy is missing"))
            for part in behind
            if part not in under_min
        ),
        *(
            Problem(kind="drift", topic=each.topic, told=f"{each.topic}: {each.field} is {each.got}, not {each.wanted}")
            for each in drift
        ),
        *(Problem(kind="unsafe", topic=_topic_of(each, cluster.topics), told=str(each)) for each in unsafe),
    ]
    return Health(
        declared=declared,
        cluster=cluster,
        offline=offline,
        under_min_in_sync=under_min,
        under_replicated=behind,
        skewed=tuple(part for part in parts if part.skewed),
        drift=drift,
        unsafe=tuple(unsafe),
        problems=tuple(problems),
    )


def leaders_of(partitions: Iterable[Partition], brokers: Sequence[int]) -> dict[int, int]:
    """Count the partitions each broker leads; a broker that leads none is there with 0."""
    counts = dict.fromkeys(brokers, 0)
    for part in partitions:
        if part.leader is not None:
            counts[part.leader] = counts.get(part.leader, 0) + 1
    return counts


def _broker_problems(cluster: Cluster, declared: Declared) -> Iterator[Problem]:
    up = len(cluster.brokers)
    if up != declared.brokers:
        told = (
            f"brokers: {up} are up ({', '.join(map(str, cluster.brokers)) or 'none'}), declared are {declared.brokers}"
        )
        yield Problem(kind="brokers", topic="", told=told)


def _quorum_problems(quorum: Quorum | None) -> Iterator[Problem]:
    if quorum is None:
        return
    if quorum.leader is None:
        told = "quorum: no controller leads, so no leader can be elected and no topic changed"
        yield Problem(kind="quorum", topic="", told=told)
    for voter in quorum.voters:
        if voter.node != quorum.leader and (voter.silent_s is None or voter.silent_s > SILENT_AT_MOST_S):
            since = (
                "has not followed this leader yet" if voter.silent_s is None else f"silent for {voter.silent_s:.0f} s"
            )
            yield Problem(kind="quorum", topic="", told=f"quorum: controller {voter.node} {since}")


def _drift(wanted: Topic, actual: Topic | None) -> tuple[TopicDrift, ...]:
    if actual is None:
        return find_drift(wanted, partitions=None, replication_factor=0, config={})
    return find_drift(
        wanted,
        partitions=actual.partitions,
        replication_factor=actual.replication_factor,
        config=actual.full_config,
    )


def _told_in_sync(part: Partition, consequence: str) -> str:
    missing = sorted(set(part.replicas) - set(part.in_sync))
    return (
        f"{part}: {len(part.in_sync)} of {len(part.replicas)} copies in sync, without {', '.join(map(str, missing))}; "
        f"{consequence}"
    )


def _topic_of(finding: Finding, topics: Mapping[str, Topic]) -> str:
    return finding.subject if finding.subject in topics else ""
