"""Stage 2 as the views of one partition share it; what a view's rows are is in test_windows."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from headway.clock import MINUTE_US
from headway.errors import ContractViolation
from headway.features.definitions import Aggregate, FeatureView
from headway.features.windows import ViewTask
from headway.features.wire import FeatureInput, encode_input
from headway.ports import Message, Record
from headway.ticks import tick_record
from headway.topics import FEATURES_INPUT, PARTITIONS, features_topic, state_topic
from streaming.handlers.aggregate import AggregateHandler
from tests.strategies import START_US, minutes, view_of

KEPT = view_of(Aggregate(function="count", window=minutes(10)), lateness_min=20)
BEGUN = replace(KEPT, name="begun")
_PARTITION = 1


def tick(minute: int, *, source: int, offset: int) -> Message:
    record = tick_record(FEATURES_INPUT, START_US + minute * MINUTE_US, partition=_PARTITION, source_partition=source)
    return Message(FEATURES_INPUT, _PARTITION, offset, None, record.value, record.headers, 0)


def event(view: FeatureView, minute: int, *, offset: int) -> Message:
    item = FeatureInput(
        view=view.qualified,
        key=("JFK",),
        event_id=f"e{offset}",
        time_us=START_US + minute * MINUTE_US,
        values={"delay": 1, "gust": None},
        tick_before_us=None,
    )
    return Message(FEATURES_INPUT, _PARTITION, offset, b"JFK", encode_input(item), (), 0)


def handler_of(*views: FeatureView) -> AggregateHandler:
    """A handler that has the bootstrap's state of KEPT and none of BEGUN."""
    state = ViewTask.bootstrap(KEPT, range(PARTITIONS), [], until_us=START_US + 20 * MINUTE_US).dirty_state()
    topic = state_topic(KEPT.qualified)
    kept = [Message(topic, _PARTITION, offset, key, value, (), 0) for offset, (key, value) in enumerate(state)]
    handler = AggregateHandler(views, lambda asked, _: kept if asked == topic else [])
    handler.assigned([_PARTITION])
    return handler


def of_view(view: FeatureView, outputs: Sequence[Record]) -> list[Record]:
    return [r for r in outputs if r.topic in {features_topic(view.qualified), state_topic(view.qualified)}]


def test_views_that_have_not_heard_the_same_ticks_say_what_each_would_alone() -> None:
    """One is bootstrapped up to minute 20, the other is new: the same tick moves one's watermark and not the other's."""
    ticks = [(minute, source) for minute in (5, 15, 30, 45) for source in range(PARTITIONS)]
    batches = [
        [event(KEPT, 24, offset=0), event(BEGUN, 3, offset=1)],
        *([tick(minute, source=source, offset=offset)] for offset, (minute, source) in enumerate(ticks, start=2)),
    ]
    together, kept, begun = handler_of(KEPT, BEGUN), handler_of(KEPT), handler_of(BEGUN)

    for batch in batches:
        outputs = together.handle(batch)
        alone = [m for m in batch if m.key is None]
        assert of_view(KEPT, outputs) == kept.handle([batch[0]])
        assert of_view(BEGUN, outputs) == begun.handle(alone or [batch[1]])


def test_a_batch_of_ticks_writes_the_task_of_each_view_once() -> None:
    handler = handler_of(KEPT, BEGUN)

    outputs = handler.handle([tick(25, source=source, offset=source) for source in range(2)])

    assert [(record.topic, record.key) for record in outputs] == [
        (state_topic(KEPT.qualified), b'["task"]'),
        (state_topic(BEGUN.qualified), b'["task"]'),
    ]


def test_a_tick_that_tells_nothing_new_writes_nothing() -> None:
    handler = handler_of(KEPT, BEGUN)
    handler.handle([tick(25, source=0, offset=0)])

    assert handler.handle([tick(25, source=0, offset=1)]) == []


def test_a_tick_of_a_partition_that_is_not_known_is_refused() -> None:
    with pytest.raises(ContractViolation, match=f"source partition {PARTITIONS}, wanted one of"):
        handler_of(KEPT).handle([tick(25, source=PARTITIONS, offset=0)])
