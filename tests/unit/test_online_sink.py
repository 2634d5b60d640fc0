"""The online writer's sink: what of a batch reaches the store."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import OnlineRow, WriteCounts
from headway.clock import SystemClock
from headway.features.windows import Row
from headway.features.wire import encode_row, row_key
from headway.ports import Message
from headway.topics import features_topic
from streaming.freshness import ViewFreshness
from streaming.sinks.online import OnlineSink
from tests.streaming_world import DELAY, DOMAIN, instant


class Noting(MemoryOnlineStore):
    """A store that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[OnlineRow] = []

    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts:
        """Note and write."""
        self.given += rows
        return super().write(rows)


def row(origin: str, at: str, *, revision: int) -> Message:
    values: dict[str, int | float | None] = dict.fromkeys(DELAY.columns)
    changed = Row(
        view=DELAY.qualified,
        key=(origin,),
        event_time_us=instant(at),
        revision=revision,
        known_at_us=None,
        values=values,
    )
    return Message(features_topic(DELAY.qualified), 0, revision, row_key(changed.key), encode_row(changed), (), 0)


def test_of_a_batch_the_store_is_given_each_entitys_newest_row_by_instant_and_then_revision() -> None:
    store = Noting()
    sink = OnlineSink(DOMAIN, store, ViewFreshness(DOMAIN, registry=CollectorRegistry(), clock=SystemClock()))
    batch = [
        row("EWR", "10:05", revision=1),
        row("EWR", "10:07", revision=2),
        row("JFK", "10:01", revision=3),
        # A late event corrects what lies before the newest row, and then that row itself.
        row("EWR", "10:06", revision=4),
        row("EWR", "10:07", revision=4),
    ]

    sink.offer(batch)
    flushed = sink.flush()

    assert list(flushed.messages) == batch
    assert {(given.keys["origin"], given.event_timestamp_us, given.revision) for given in store.given} == {
        ("EWR", instant("10:07"), 4),
        ("JFK", instant("10:01"), 3),
    }
    assert len(store.given) == 2
