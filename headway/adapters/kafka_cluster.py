"""A Kafka cluster as `headway.kafka_health` judges it, read from its brokers in one sweep."""

from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public by its manual, not by __all__
    AdminClient,
    ConfigResource,
)

from headway.adapters.kafka_client import REQUEST_TIMEOUT_S, unreachable
from headway.adapters.kafka_topics import read_topics
from headway.adapters.kafka_wire import ask_quorum
from headway.errors import TransientFailure
from headway.kafka_health import Cluster, Partition, Quorum

_TIMEOUT_S = 3.0
_DOWN = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT)  # noqa: SLF001 - the SDK's names for client-side codes
_NOBODY = Quorum(leader=None, epoch=-1, voters=())


def read_cluster(admin: AdminClient, topics: Sequence[str]) -> Cluster:
    """Describe a cluster: its brokers, every partition of ours and of Kafka's own topics, settings, quorum.

    Takes a broker that does not tell its settings for one that is down.

    Raises:
        TransientFailure: no broker answers.
    """
    try:
        known = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise unreachable("the cluster could not be described", error) from error
    wanted = [name for name in known.topics if name in set(topics) or name.startswith("__")]
    configs = _broker_configs(admin, known.brokers)
    return Cluster(
        brokers=tuple(sorted(configs)),
        partitions=tuple(
            Partition(
                topic=name,
                number=number,
                leader=None if part.leader < 0 else part.leader,
                replicas=tuple(part.replicas),
                in_sync=tuple(part.isrs),
            )
            for name in sorted(wanted)
            for number, part in sorted(known.topics[name].partitions.items())
        ),
        topics=read_topics(admin, topics),
        broker_configs=configs,
        quorum=find_quorum(f"{known.brokers[node].host}:{known.brokers[node].port}" for node in sorted(configs)),
    )


def find_quorum(addresses: Iterable[str]) -> Quorum:
    """Give the quorum as any of these brokers can tell it; one without a leader when none of them can."""
    for address in addresses:
        try:
            return ask_quorum(address, timeout_s=_TIMEOUT_S)
        except TransientFailure:
            continue
    return _NOBODY


def _broker_configs(admin: AdminClient, brokers: Iterable[int]) -> dict[int, dict[str, str]]:
    # One call each: librdkafka refuses a request about two brokers. All are under way before the first is awaited.
    asked = [
        admin.describe_configs([ConfigResource(ConfigResource.Type.BROKER, str(node))], request_timeout=_TIMEOUT_S)
        for node in sorted(brokers)
    ]
    found: dict[int, dict[str, str]] = {}
    for futures in asked:
        [(resource, future)] = futures.items()
        try:
            found[int(resource.name)] = {key: entry.value for key, entry in future.result().items()}
        except KafkaException as error:
            if error.args[0].code() not in _DOWN:
                raise unreachable(f"settings of broker {resource.name} could not be read", error) from error
    return found
