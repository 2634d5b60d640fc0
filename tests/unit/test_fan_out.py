"""Stage 1 of the feature job: what an event becomes, and in which order a batch of several partitions goes on."""

from collections.abc import Sequence

from headway.events import Event, encode_event
from headway.features.wire import decode_input, decode_row
from headway.ports import Message, Record
from headway.ticks import TICK_BEFORE_HEADER, is_watermark, tick_record
from headway.topics import EVENTS_ENRICHED, FEATURES_INPUT, PARTITIONS, features_topic
from streaming.handlers.aggregate import AggregateHandler
from streaming.handlers.fan_out import FanOutHandler
from tests.streaming_world import DELAY, DOMAIN, World, departed, instant


def sent(event: Event, *, partition: int, tick: str | None = None) -> Message:
    headers = () if tick is None else ((TICK_BEFORE_HEADER, b"%d" % instant(tick)),)
    return Message(EVENTS_ENRICHED, partition, 0, event.subject.encode(), encode_event(event), headers, 0)


def ticked(at: str, *, partition: int) -> Message:
    record = tick_record(EVENTS_ENRICHED, instant(at), partition=partition)
    return Message(EVENTS_ENRICHED, partition, 0, None, record.value, record.headers, 0)


def told(outputs: Sequence[Record]) -> list[str]:
    """Ids of events, and a bar for each tick that goes to the first partition."""
    return [
        decode_input(record.value or b"").event_id if record.key is not None else "|"
        for record in outputs
        if record.key is not None or record.partition == 0
    ]


def test_a_batch_goes_on_by_time_across_its_partitions_and_in_order_within_each() -> None:
    handler = FanOutHandler(DOMAIN.views)
    first = [
        sent(departed("a", at="10:00"), partition=0),
        ticked("10:15", partition=0),
        sent(departed("late", at="10:05"), partition=0, tick="10:15"),
        sent(departed("c", at="10:40"), partition=0, tick="10:15"),
    ]
    second = [
        sent(departed("b", at="10:10"), partition=1),
        ticked("10:15", partition=1),
        sent(departed("d", at="10:50"), partition=1, tick="10:15"),
    ]

    assert told(handler.handle([*first, *second])) == ["a", "b", "|", "late", "|", "c", "d"]


def test_every_tick_goes_to_every_partition_of_stage_2() -> None:
    outputs = FanOutHandler(DOMAIN.views).handle([ticked("10:15", partition=2)])

    assert [record.partition for record in outputs] == list(range(PARTITIONS))


def test_what_came_partition_by_partition_costs_no_row_more_than_what_came_in_order() -> None:
    """A job that is behind polls hours of one partition, then of the next: each row was written again for each event."""
    batch = [
        sent(departed(f"{partition}-{minute:02}", at=f"10:{minute:02}"), partition=partition)
        for partition in range(PARTITIONS)
        for minute in range(partition, 60, PARTITIONS)
    ]
    world = World()
    for record in FanOutHandler(DOMAIN.views).handle(batch):
        world.broker.append(record)

    world.run_job(AggregateHandler(DOMAIN.views, world.reader.read_compacted), "aggregate", FEATURES_INPUT)

    messages = world.messages(features_topic(DELAY.qualified))
    rows = [decode_row(message.value or b"") for message in messages if not is_watermark(message)]
    assert [row.values["count_1h"] for row in rows] == list(range(1, 61))
