"""What a product application is promised of the scores, in memory and on a real broker under both group protocols."""

import time
from collections.abc import Callable

import msgspec
import pytest

from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.client import subscribe
from headway.ports import EventLog, PartitionCallback, Record
from headway.scores import Place, score_record
from headway.subscription import Delivery, Subscription
from headway.topics import topic_table
from tests.contract.conftest import LogStack, RealBroker
from tests.unit.test_subscription import score

DEADLINE_S = 60.0


def written(stack: LogStack, *, partitions: int, count: int) -> str:
    topic = stack.create_topic(partitions=partitions)
    scores = [
        msgspec.structs.replace(score(number), input=Place("events.enriched", number % partitions, number))
        for number in range(count)
    ]
    records = map(score_record, scores)
    stack.publisher().publish([Record(topic, each.key, each.value, each.headers, each.partition) for each in records])
    return topic


def opened(stack: LogStack, topic: str, instance: str, kept: list[EventLog]) -> Subscription:
    def open_log(let_go: PartitionCallback) -> EventLog:
        kept.append(stack.event_log(group="app", topic=topic, instance=instance, on_revoke=let_go))
        return kept[-1]

    return Subscription(open_log)


def take(subscription: Subscription, found: list[Delivery], enough: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not enough():
        assert time.monotonic() < deadline, [delivery.score.subject for delivery in found]
        delivery = subscription.poll(0.2)
        if delivery is not None:
            found.append(delivery)


def subjects(found: list[Delivery]) -> list[str]:
    return [delivery.score.subject for delivery in found]


def test_what_is_acknowledged_is_behind_the_application_for_good(stack: LogStack) -> None:
    topic = written(stack, partitions=1, count=20)
    first: list[Delivery] = []
    with opened(stack, topic, "0", []) as subscription:
        take(subscription, first, lambda: len(first) == 20)
        for delivery in first[:12]:
            delivery.ack()

    again: list[Delivery] = []
    with opened(stack, topic, "1", []) as subscription:
        take(subscription, again, lambda: len(again) == 8)

    assert subjects(first) == [f"s{number}" for number in range(20)]
    assert subjects(again) == [f"s{number}" for number in range(12, 20)]


def test_a_killed_instance_leaves_to_another_what_it_had_not_acknowledged(stack: LogStack) -> None:
    topic = written(stack, partitions=1, count=10)
    logs: list[EventLog] = []
    found: list[Delivery] = []
    first = opened(stack, topic, "0", logs)
    take(first, found, lambda: len(found) == 10)
    for delivery in found[:4]:
        delivery.ack()
    first.commit()
    stack.kill(logs[0])

    again: list[Delivery] = []
    with opened(stack, topic, "1", logs) as second:
        take(second, again, lambda: len(again) == 6)

    assert subjects(again) == [f"s{number}" for number in range(4, 10)]


def test_instances_of_a_group_share_the_scores(stack: LogStack) -> None:
    topic = written(stack, partitions=4, count=200)
    found: list[Delivery] = []
    with opened(stack, topic, "0", []) as first, opened(stack, topic, "1", []) as second:
        deadline = time.monotonic() + DEADLINE_S
        while len({*subjects(found)}) < 200:
            assert time.monotonic() < deadline, len(found)
            for each in (first, second):
                delivery = each.poll(0.02)
                if delivery is not None:
                    found.append(delivery)
                    delivery.ack()

    logs: list[EventLog] = []
    again: list[Delivery] = []
    with opened(stack, topic, "2", logs) as third:
        take(third, again, lambda: len(logs[0].at_end()) == 4)

    assert again == []


@pytest.mark.integration
def test_the_client_subscribes_to_a_product(shared_broker: RealBroker) -> None:
    bootstrap = shared_broker.config.bootstrap
    table = topic_table(views=[], products=["gates"], replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(bootstrap), table)
    publisher = KafkaPublisher(bootstrap=bootstrap)
    publisher.publish([score_record(msgspec.structs.replace(score(number), product="gates")) for number in range(5)])
    publisher.close()

    found: list[Delivery] = []
    with subscribe("gates", group="screens", bootstrap=bootstrap) as scores:
        take(scores, found, lambda: len(found) == 5)

    assert sorted(subjects(found)) == [f"s{number}" for number in range(5)]
