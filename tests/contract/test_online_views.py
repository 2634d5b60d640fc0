"""What the online store keeps beside rows: the mark of a bootstrap, and the forgetting of an entity; in memory and real."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest

from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import (
    OnlineAnswer,
    OnlineReader,
    OnlineRequest,
    OnlineRow,
    OnlineWriter,
    WriteCounts,
)
from headway.adapters.redis_views import OnlineViews
from headway.errors import ContractViolation, TransientFailure
from headway.features.readiness import NEVER_SEEN, ViewState
from tests.valkey_world import running_valkey

# redis-py warns about its own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore")

NOON_US = 1_371_556_800_123_456
ARRIVAL, DEPARTURE = "aircraft_arrival_v1", "aircraft_departure_v1"
TAIL = {"tail": "N14228"}
EMPTY = OnlineAnswer((None, None), None, None)


class Writer(Protocol):
    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts: ...
    def write_watermarks(self, view: str, watermarks_ms: Mapping[int, int], partition_count: int) -> None: ...


class Views(Protocol):
    def mark_bootstrapped(self, view: str, *, digest: str, until_us: int) -> None: ...
    def states(self, views: Sequence[str]) -> dict[str, ViewState]: ...
    def forget(self, view: str, keys: Mapping[str, str], features: Sequence[str]) -> int: ...


@dataclass
class Store:
    writer: Writer
    views: Views
    reader: Any  # a function that gives what `read` is asked of
    url: str | None

    def read(self, view: str, keys: Mapping[str, str] = TAIL) -> OnlineAnswer:
        async def once() -> OnlineAnswer:
            reader = self.reader()
            try:
                answers = await reader.read([OnlineRequest(view=view, keys=keys, features=("last", "count"))])
            finally:
                if self.url is not None:
                    await reader.close()
            found: OnlineAnswer = answers[0]
            return found

        return asyncio.run(once())


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.integration)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        memory = MemoryOnlineStore()
        yield Store(memory, memory, lambda: memory, None)
        return
    import redis

    url = request.getfixturevalue("valkey")
    client = redis.Redis.from_url(url)
    client.flushdb()
    client.close()
    writer, views = OnlineWriter(url, "headway"), OnlineViews(url, "headway")
    yield Store(writer, views, lambda: OnlineReader(url, "headway"), url)
    writer.close()
    views.close()


def row(view: str, *, at_us: int = NOON_US, revision: int = 1, keys: Mapping[str, str] = TAIL) -> OnlineRow:
    values = {"last": 12, "count": 3}
    return OnlineRow(view=view, keys=keys, event_timestamp_us=at_us, revision=revision, values=values)


def test_a_forgotten_entity_reads_as_one_that_never_was(store: Store) -> None:
    store.writer.write([row(ARRIVAL)])

    assert store.views.forget(ARRIVAL, TAIL, ("last", "count")) == 4
    assert store.read(ARRIVAL) == EMPTY
    assert store.views.forget(ARRIVAL, TAIL, ("last", "count")) == 0


def test_forgetting_touches_no_other_view_and_no_other_entity(store: Store) -> None:
    """Views of one entity share a hash, and entities of one view the names of fields."""
    other = {"tail": "N39463"}
    store.writer.write([row(ARRIVAL), row(DEPARTURE), row(ARRIVAL, keys=other)])

    store.views.forget(ARRIVAL, TAIL, ("last", "count"))

    assert store.read(ARRIVAL) == EMPTY
    assert store.read(DEPARTURE).values == (12, 3)
    assert store.read(ARRIVAL, other).values == (12, 3)


def test_the_guards_version_is_forgotten_with_the_row(store: Store) -> None:
    """A version that stayed would refuse every row of the entity that is older, for good."""
    store.writer.write([row(ARRIVAL, at_us=NOON_US, revision=9)])
    store.views.forget(ARRIVAL, TAIL, ("last", "count"))

    again = store.writer.write([row(ARRIVAL, at_us=NOON_US - 1, revision=0)])

    assert again == WriteCounts(applied=1, superseded=0)
    assert store.read(ARRIVAL).event_timestamp_us == NOON_US - 1


def test_forgetting_leaves_the_views_watermark_and_mark(store: Store) -> None:
    store.writer.write([row(ARRIVAL)])
    store.writer.write_watermarks(ARRIVAL, {0: 5_000}, partition_count=1)
    store.views.mark_bootstrapped(ARRIVAL, digest="0123456789abcdef", until_us=4_000_000)

    store.views.forget(ARRIVAL, TAIL, ("last", "count"))

    expected = ViewState(watermark_us=5_000_000, bootstrapped_us=4_000_000, digest="0123456789abcdef")
    assert store.views.states([ARRIVAL]) == {ARRIVAL: expected}


def test_a_view_is_known_by_mark_and_watermark_each_for_itself(store: Store) -> None:
    store.writer.write_watermarks(DEPARTURE, {0: 5_000}, partition_count=2)
    before = store.views.states([ARRIVAL, DEPARTURE])
    store.writer.write_watermarks(DEPARTURE, {1: 6_000}, partition_count=2)
    store.views.mark_bootstrapped(ARRIVAL, digest="0123456789abcdef", until_us=7)

    assert before == {ARRIVAL: NEVER_SEEN, DEPARTURE: NEVER_SEEN}
    assert store.views.states([ARRIVAL, DEPARTURE]) == {
        ARRIVAL: ViewState(watermark_us=None, bootstrapped_us=7, digest="0123456789abcdef"),
        DEPARTURE: ViewState(watermark_us=5_000_000, bootstrapped_us=None, digest=None),
    }


def test_a_mark_does_not_disturb_watermarks(store: Store) -> None:
    """Both lie in one hash, and the script that moves watermarks reads its fields."""
    store.views.mark_bootstrapped(ARRIVAL, digest="0123456789abcdef", until_us=7)
    store.writer.write_watermarks(ARRIVAL, {0: 9_000, 1: 7_000}, partition_count=2)
    store.writer.write_watermarks(ARRIVAL, {0: 1_000, 1: 8_000}, partition_count=2)

    assert store.read(ARRIVAL).watermark_ms == 8_000


def test_a_row_is_applied_when_instant_and_revision_are_newer_and_else_is_not(store: Store) -> None:
    """The store in memory stands for the real one in other tests: it must refuse what that refuses."""
    newer = [row(ARRIVAL, revision=2), row(ARRIVAL, revision=1), row(ARRIVAL, at_us=NOON_US - 1, revision=9)]

    assert store.writer.write(newer) == WriteCounts(applied=1, superseded=2)
    assert store.writer.write([row(ARRIVAL, revision=2)]) == WriteCounts(applied=0, superseded=1)
    assert store.writer.write([row(ARRIVAL, at_us=NOON_US + 1, revision=0)]) == WriteCounts(applied=1, superseded=0)


def test_a_feature_that_is_left_out_keeps_its_value(store: Store) -> None:
    store.writer.write([row(ARRIVAL)])
    store.writer.write([replace(row(ARRIVAL, revision=2), values={"count": 4})])

    assert store.read(ARRIVAL).values == (12, 4)


@pytest.mark.parametrize(("count", "watermark_ms"), [(1, 5_000), (2, 5_000), (3, None)])
def test_a_views_watermark_is_the_least_of_as_many_partitions_as_it_has(
    store: Store, count: int, watermark_ms: int | None
) -> None:
    store.writer.write_watermarks(ARRIVAL, {0: 5_000, 1: 6_000}, partition_count=2)
    store.writer.write_watermarks(ARRIVAL, {0: 4_000}, partition_count=count)

    assert store.read(ARRIVAL).watermark_ms == watermark_ms


@pytest.mark.integration
def test_nothing_of_an_entity_stays_once_no_view_holds_it(valkey: str) -> None:
    """Its name is the key: an empty hash would still say who was there."""
    import redis

    client = redis.Redis.from_url(valkey)
    client.flushdb()
    writer, views = OnlineWriter(valkey, "headway"), OnlineViews(valkey, "headway")
    writer.write([row(ARRIVAL), row(DEPARTURE)])
    views.forget(ARRIVAL, TAIL, ("last", "count"))
    between = client.dbsize()
    views.forget(DEPARTURE, TAIL, ("last", "count"))

    assert (between, client.dbsize()) == (1, 0)
    writer.close()
    views.close()
    client.close()


@pytest.mark.integration
def test_a_mark_nobody_can_read_is_refused(valkey: str) -> None:
    import redis

    from headway.adapters.redis_marks import watermark_key

    client = redis.Redis.from_url(valkey)
    client.hset(watermark_key("headway", ARRIVAL), "bootstrap", "yesterday")
    views = OnlineViews(valkey, "headway")

    with pytest.raises(ContractViolation, match="bootstrap it again"):
        views.states([ARRIVAL])
    views.close()
    client.close()


def test_a_store_that_is_away_is_a_transient_failure() -> None:
    views = OnlineViews("redis://127.0.0.1:1/0", "headway")

    with pytest.raises(TransientFailure, match="not reachable"):
        views.states([ARRIVAL])
    with pytest.raises(TransientFailure, match="not reachable"):
        views.forget(ARRIVAL, TAIL, ("last",))
