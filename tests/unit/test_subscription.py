"""What a product application sees of the scores: each at least once, and acknowledged ones no more."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from headway.adapters.memory import MemoryBroker, MemoryLog
from headway.errors import ContractViolation
from headway.ports import EventLog, PartitionCallback, Record
from headway.predictions import ModelId
from headway.scores import Place, Score, score_record
from headway.subscription import Delivery, Subscription
from headway.topics import scores_topic, topic_table

TOPIC = scores_topic("p")


def score(number: int, partition: int = 0) -> Score:
    return Score(
        receipt=f"r{number}",
        product="p",
        as_of_us=0,
        requested_at_us=0,
        model=ModelId(name="p", version=1, digest="d"),
        reference_version="v",
        request=msgspec.Raw(b"{}"),
        views=(),
        probability=number / 100,
        degraded=False,
        stale=(),
        source="stream",
        subject=f"s{number}",
        input=Place("events.enriched", partition, number),
        at_offset=number,
        ages_s={},
    )


def scored(count: int, partition: int = 0) -> MemoryBroker:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=["p"], replication_factor=1, min_insync_replicas=1))
    for number in range(count):
        broker.append(score_record(score(number, partition)))
    return broker


def open_on(broker: MemoryBroker) -> Callable[[PartitionCallback], EventLog]:
    return lambda let_go: MemoryLog(broker, group="app", topics=[TOPIC], on_revoke=let_go)


def taken(subscription: Subscription, count: int) -> list[Delivery]:
    found = [subscription.poll(0) for _ in range(count)]
    return [delivery for delivery in found if delivery is not None]


def numbers(broker: MemoryBroker) -> list[int]:
    """What another instance of the application would get now."""
    with Subscription(open_on(broker)) as subscription:
        return [delivery.offset for delivery in taken(subscription, 20)]


def test_scores_come_typed_and_in_order() -> None:
    with Subscription(open_on(scored(3))) as subscription:
        found = taken(subscription, 5)

    assert [delivery.score.subject for delivery in found] == ["s0", "s1", "s2"]
    assert found[1].score == score(1)


def test_what_is_acknowledged_does_not_come_again_and_the_rest_does() -> None:
    broker = scored(4)
    with Subscription(open_on(broker)) as subscription:
        for delivery in taken(subscription, 4)[:2]:
            delivery.ack()

    assert numbers(broker) == [2, 3]


def test_a_score_that_is_open_holds_back_those_acknowledged_behind_it() -> None:
    broker = scored(4)
    with Subscription(open_on(broker)) as subscription:
        found = taken(subscription, 4)
        for place in (0, 2, 3):
            found[place].ack()

    assert numbers(broker) == [1, 2, 3]


def test_what_was_in_hand_when_the_application_failed_comes_again() -> None:
    broker = scored(2)

    def show() -> None:
        with Subscription(open_on(broker)) as subscription:
            taken(subscription, 1)[0].ack()
            taken(subscription, 1)
            raise RuntimeError("the screen is dark")

    with pytest.raises(RuntimeError, match="screen"):
        show()

    assert numbers(broker) == [1]


def test_aborted_scores_are_never_seen() -> None:
    broker = scored(1)
    broker.write_transaction([score_record(score(8))], committed=False)
    broker.append(score_record(score(9)))

    assert numbers(broker) == [0, 3]


def test_a_commit_that_is_refused_brings_everything_again() -> None:
    broker = scored(2)
    subscription = Subscription(open_on(broker))
    for delivery in taken(subscription, 2):
        delivery.ack()
    broker.refuse_commits = 1
    subscription.close()

    assert numbers(broker) == [0, 1]


def test_an_acknowledgement_of_what_went_to_another_instance_is_nothing() -> None:
    broker = scored(2, partition=1)
    first = Subscription(open_on(broker))
    late = taken(first, 2)
    second = Subscription(open_on(broker))
    assert [delivery.offset for delivery in taken(second, 2)] == [0, 1]
    assert first.poll(0) is None

    for delivery in late:
        delivery.ack()
    first.close()
    second.close()

    assert numbers(broker) == [0, 1]


def test_an_application_that_never_acknowledges_is_told() -> None:
    subscription = Subscription(open_on(scored(5)), most_open=3)
    assert len(taken(subscription, 3)) == 3

    with pytest.raises(ContractViolation, match=r"3 scores are not acknowledged.*ack\(\)"):
        subscription.poll(0)
    subscription.close()


def test_a_record_that_is_no_score_is_passed_over() -> None:
    broker = scored(1)
    broker.append(Record(TOPIC, b"x", b"scribble", (), 0))
    broker.append(score_record(score(2)))

    assert numbers(broker) == [0, 2]


def test_an_iteration_ends_with_the_subscription() -> None:
    subscription = Subscription(open_on(scored(3)))
    found = []
    for delivery in subscription:
        found.append(delivery.offset)
        delivery.ack()
        if len(found) == 3:
            subscription.close()

    assert found == [0, 1, 2]


def test_scores_can_be_awaited() -> None:
    broker = scored(3)

    async def take() -> list[int]:
        found = []
        subscription = Subscription(open_on(broker))
        async for delivery in subscription:
            found.append(delivery.offset)
            delivery.ack()
            if len(found) == 3:
                subscription.close()
        return found

    assert asyncio.run(take()) == [0, 1, 2]
    assert numbers(broker) == []
