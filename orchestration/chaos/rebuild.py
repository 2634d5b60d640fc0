"""The feature job's work thrown away and done again: state, changelogs and the online store, from what stage 1 wrote."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.clock import monotonic_s
from headway.contracts import Domain
from headway.errors import TransientFailure
from headway.local import lifecycle
from headway.settings import Settings
from headway.topics import features_topic, state_topic
from orchestration.chaos.faults import is_kind
from orchestration.chaos.stack import processes_of
from streaming.jobs import AGGREGATE, CHANGELOG_WRITERS, group_name
from streaming.provision import declared_cluster

_DIRECTED_WITHIN_S = 60.0
# A group is empty once its last member's session is over.
_DONE_WITHIN_S = 60.0
_POLL_S = 0.2


def pause(settings: Settings, kinds: Sequence[str]) -> list[str]:
    """Have every process of these kinds stopped and kept stopped; return their names."""
    running = processes_of(settings)
    names = [name for name in running if any(is_kind(name, kind) for kind in kinds)]
    for name in names:
        lifecycle.direct(settings, "pause", name, within_s=_DIRECTED_WITHIN_S)
    return names


def resume(settings: Settings, names: Sequence[str]) -> None:
    """Have paused processes go on."""
    for name in names:
        lifecycle.direct(settings, "resume", name, within_s=_DIRECTED_WITHIN_S)


def begin_anew(settings: Settings, domain: Domain) -> None:
    """Delete what stage 2 and the writers of its changelog made, all of it, and have them begin at the beginning.

    Raises:
        TransientFailure: the brokers did not do it within a minute.
    """
    made = [topic(view.qualified) for view in domain.views for topic in (state_topic, features_topic)]
    paused = pause(settings, [AGGREGATE, *CHANGELOG_WRITERS])
    admin = admin_client(settings.kafka_bootstrap)
    _until_done(lambda: _delete_topics(admin, made), f"topics {made} were deleted")
    _until_done(lambda: _forget_groups(admin, domain), "the groups of the feature job were forgotten")
    apply_topics(admin, declared_cluster(settings).topics)
    erase_online(settings)
    resume(settings, [name for name in paused if not is_kind(name, "lake-loader")])


def read_online_anew(settings: Settings, domain: Domain) -> None:
    """Empty the online store, and have its writer read the whole changelog again.

    Raises:
        TransientFailure: the brokers did not do it within a minute.
    """
    paused = pause(settings, ["online-writer"])
    admin = admin_client(settings.kafka_bootstrap)
    _until_done(lambda: _forget(admin, [group_name(domain, "online-writer")]), "the writer's group was forgotten")
    erase_online(settings)
    resume(settings, paused)


def erase_online(settings: Settings) -> None:
    """Delete everything in the online store."""
    with redis.Redis.from_url(f"redis://{settings.online_store}") as store:
        store.flushall()


def _delete_topics(admin: AdminClient, names: Sequence[str]) -> bool:
    known = admin.list_topics(timeout=5.0).topics
    left = [name for name in names if name in known]
    if not left:
        return True
    for future in admin.delete_topics(left, operation_timeout=10.0).values():
        _settle(future, unless=KafkaError.UNKNOWN_TOPIC_OR_PART)
    return False


def _forget_groups(admin: AdminClient, domain: Domain) -> bool:
    return _forget(admin, [group_name(domain, job) for job in (AGGREGATE, *CHANGELOG_WRITERS)])


def _forget(admin: AdminClient, groups: Sequence[str]) -> bool:
    for future in admin.delete_consumer_groups(list(groups), request_timeout=10.0).values():
        _settle(future, unless=KafkaError.GROUP_ID_NOT_FOUND)
    return True


def _settle(future: "Future[Any]", *, unless: int) -> None:  # Any: the client ships no types
    try:
        future.result(10.0)
    except KafkaException as error:
        if error.args[0].code() != unless:
            raise


def _until_done(do: Callable[[], bool], what: str) -> None:
    deadline_s = monotonic_s() + _DONE_WITHIN_S
    while True:
        try:
            if do():
                return
        except KafkaException as error:
            if monotonic_s() > deadline_s:
                raise TransientFailure(f"not so within {_DONE_WITHIN_S:.0f} s: {what} ({error})") from error
        if monotonic_s() > deadline_s:
            raise TransientFailure(f"not so within {_DONE_WITHIN_S:.0f} s: {what}")
        time.sleep(_POLL_S)
