"""Topics and groups on Kafka: apply the declared table, say how the brokers differ from it, count a group's members."""

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public by its manual, not by __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from headway.adapters.kafka_client import REQUEST_TIMEOUT_S, client_settings, unreachable
from headway.errors import ContractViolation, TransientFailure
from headway.replication import check_topics, refuse_unsafe
from headway.topics import Topic, TopicDrift, find_drift


def admin_client(bootstrap: str, *, security: Mapping[str, str] | None = None) -> AdminClient:
    """An admin client for `apply_topics` and `topic_drift`; ``security`` holds librdkafka's SASL and TLS settings."""
    return AdminClient(client_settings(bootstrap, security))


def apply_topics(admin: AdminClient, topics: Sequence[Topic]) -> list[str]:
    """Make the topics as declared; returns what was done, one line each, empty when nothing was to do.

    Creates topics and sets their settings. Returns when the brokers know every new topic.

    Raises:
        ContractViolation: a setting is unsafe (`headway.replication`), or a topic exists with another number of
            partitions or replicas; nothing was changed.
        TransientFailure: the brokers did not answer, or did not finish in time.
    """
    drift = topic_drift(admin, topics)
    absent = {each.topic for each in drift if each.field == "topic"}
    # Brokers that are down just now are no reason to refuse topics that have all their copies already.
    brokers = _broker_count(admin) if absent else max((topic.replication_factor for topic in topics), default=0)
    refuse_unsafe(check_topics(topics, brokers=brokers))
    unfixable = [each for each in drift if each.field in ("partitions", "replication_factor")]
    if unfixable:
        raise ContractViolation(
            f"{'; '.join(f'topic {each.topic}: {each.field} is {each.got}, wanted {each.wanted}' for each in unfixable)}. "
            "This cannot be changed under keyed data. Declare what exists, or move to a new topic; on one machine "
            "with nothing to keep, `headway down` and remove the state folder."
        )
    _create_topics(admin, [topic for topic in topics if topic.name in absent])
    _set_configs(admin, [each for each in drift if each.topic not in absent])
    return [f"{name}: created" for name in sorted(absent)] + [
        f"{each.topic}: {each.field} {each.got} -> {each.wanted}" for each in drift if each.topic not in absent
    ]


def topic_drift(admin: AdminClient, topics: Sequence[Topic]) -> list[TopicDrift]:
    """Every way in which the brokers' topics differ from the declared ones, in the order of ``topics``.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    found = read_topics(admin, [topic.name for topic in topics])
    drift: list[TopicDrift] = []
    for wanted in topics:
        actual = found.get(wanted.name)
        drift += find_drift(
            wanted,
            partitions=None if actual is None else actual.partitions,
            replication_factor=0 if actual is None else actual.replication_factor,
            config={} if actual is None else actual.full_config,
        )
    return drift


def read_topics(admin: AdminClient, names: Sequence[str]) -> dict[str, Topic]:
    """Give those of these topics that exist, as they are: every setting in force, whoever set it.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    try:
        known = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names if name in known]
        futures = admin.describe_configs(resources) if resources else {}
        configs = {
            resource.name: {key: entry.value for key, entry in future.result(REQUEST_TIMEOUT_S).items()}
            for resource, future in futures.items()
        }
    except KafkaException as error:
        raise unreachable("topics could not be read", error) from error
    return {
        name: Topic(
            name=name,
            partitions=len(known[name].partitions),
            replication_factor=min(len(each.replicas) for each in known[name].partitions.values()),
            min_insync_replicas=int(config["min.insync.replicas"]),
            config=config,
        )
        for name, config in configs.items()
    }


def _broker_count(admin: AdminClient) -> int:
    try:
        return len(admin.list_topics(timeout=REQUEST_TIMEOUT_S).brokers)
    except KafkaException as error:
        raise unreachable("brokers could not be counted", error) from error


def group_members(admin: AdminClient, group: str) -> int:
    """Return how many members a consumer group has now; 0 when there is no such group.

    Raises:
        TransientFailure: the brokers did not answer.
    """
    [future] = admin.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S).values()
    try:
        return len(future.result(REQUEST_TIMEOUT_S).members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise unreachable(f"group {group} could not be read", error) from error


def _create_topics(admin: AdminClient, topics: Sequence[Topic]) -> None:
    if not topics:
        return
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=topic.full_config,
        )
        for topic in topics
    ]
    for name, future in admin.create_topics(new, operation_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            # Two services may apply the table at the same moment.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise unreachable(f"topic {name} could not be created", error) from error
    _wait_for_leaders(admin, topics)


def _wait_for_leaders(admin: AdminClient, topics: Sequence[Topic]) -> None:
    """A topic just created is unknown to the brokers' clients for a moment; a first produce would fail."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    names = {topic.name: topic.partitions for topic in topics}
    while True:
        known = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        waiting = [
            name
            for name, partitions in names.items()
            if name not in known
            or len(known[name].partitions) < partitions
            or any(each.leader < 0 for each in known[name].partitions.values())
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise TransientFailure(
                f"topics {waiting}: created, but without a leader after {REQUEST_TIMEOUT_S:.0f} s. Retry."
            )
        time.sleep(0.05)


def _set_configs(admin: AdminClient, drift: Sequence[TopicDrift]) -> None:
    changes: dict[str, list[ConfigEntry]] = {}
    for each in drift:
        entry = ConfigEntry(each.field, each.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(each.topic, []).append(entry)
    if not changes:
        return
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        for name, entries in changes.items()
    ]
    for resource, future in admin.incremental_alter_configs(resources).items():
        try:
            future.result(REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise unreachable(f"settings of topic {resource.name} could not be changed", error) from error
