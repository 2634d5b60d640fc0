"""A real Valkey, our writer and reader, and Feast's own: the same bytes, and the newest version always wins."""

# ruff: noqa: PD011 - answers have values and are no frames
import asyncio
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.adapters.feast import FeastConfig, LakeTable, feature_store, view_name
from headway.adapters.feast_layout import (
    Value,
    decode_timestamp,
    decode_value,
    encode_timestamp,
    encode_value,
    entity_key,
)
from headway.adapters.feast_registry import apply_views
from headway.adapters.redis_online import (
    GUARD,
    OnlineAnswer,
    OnlineReader,
    OnlineRequest,
    OnlineRow,
    OnlineWriter,
    WriteCounts,
)
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.local.valkey import valkey_command, valkey_ready
from tests.free_ports import free_port

if TYPE_CHECKING:
    from feast import FeatureStore

# Feast and its dependencies warn about their own deprecations; they are not claims of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

NOON_US = 1_371_556_800_123_456
INTS = (0, 1, 127, 128, -1, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.5, -1e-300, 1e300, float("inf"))
WITHOUT_GUARD = "return redis.call('HSET', KEYS[1], ARGV[1], '', unpack(ARGV, 4)) * 0 + 1"


@dataclass(frozen=True, kw_only=True)
class View:
    name: str
    version: int
    keys: tuple[str, ...]
    columns: Mapping[str, Literal["int64", "float64"]]
    owner: str = "tests"
    description: str = "A view under test."
    digest: str = "0123456789abcdef"


ORIGIN = View(name="origin_delay", version=1, keys=("origin",), columns={"count_1h": "int64", "mean_1h": "float64"})
CARRIER = View(name="carrier_delay", version=2, keys=("origin", "carrier"), columns={"count_1h": "int64"})


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    free = free_port()
    server = subprocess.Popen(valkey_command(tmp_path_factory.mktemp("valkey"), free), stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(free)
        yield free
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture(scope="module")
def store(port: int, tmp_path_factory: pytest.TempPathFactory) -> "FeatureStore":
    folder = tmp_path_factory.mktemp("feast")
    built = feature_store(
        FeastConfig(project="headway", repo_dir=folder, redis_url=f"redis://127.0.0.1:{port}/0", offline="lake")
    )
    unread = LakeTable(path=str(folder / "unread"), version=None)
    views = (ORIGIN, CARRIER)
    apply_views(built, views, {view_name(v): unread for v in views}, {"all": [view_name(v) for v in views]})
    return built


@pytest.fixture
def url(port: int) -> Iterator[str]:
    import redis

    address = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(address)
    client.flushdb()
    yield address
    client.close()


@pytest.fixture
def writer(url: str) -> Iterator[OnlineWriter]:
    opened = OnlineWriter(url, "headway")
    yield opened
    opened.close()


class WriterWithoutGuard(OnlineWriter):
    """The mutant: the same bytes, the same atomic command, no comparison."""

    def _run(self, script: str, calls: Sequence[tuple[bytes | str, ...]]) -> list[int]:
        assert script == GUARD
        return super()._run(WITHOUT_GUARD, calls)


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 10
    while not valkey_ready(port):
        assert time.monotonic() < deadline, "valkey did not answer within 10 s"
        time.sleep(0.01)


def row(
    origin: str = "EWR", *, at_us: int = NOON_US, revision: int = 1, count: Value = 3, mean: Value = 4.5
) -> OnlineRow:
    return OnlineRow(
        view="origin_delay_v1",
        keys={"origin": origin},
        event_timestamp_us=at_us,
        revision=revision,
        values={"count_1h": count, "mean_1h": mean},
    )


def request(origin: str = "EWR") -> OnlineRequest:
    return OnlineRequest(view="origin_delay_v1", keys={"origin": origin}, features=("count_1h", "mean_1h"))


def read(url: str, *requests: OnlineRequest) -> list[OnlineAnswer]:
    async def once() -> list[OnlineAnswer]:
        reader = OnlineReader(url, "headway")
        try:
            return await reader.read(requests)
        finally:
            await reader.close()

    return asyncio.run(once())


def read_through_feast(
    store: "FeatureStore", view: View, entities: Sequence[Mapping[str, str]]
) -> list[tuple[tuple[Value, ...], int | None]]:
    """Per entity the values and the timestamp in microseconds, None where Feast knows no row."""
    asked = [f"{view_name(view)}:{feature}" for feature in view.columns]
    answer = store.get_online_features(asked, entity_rows=[dict(e) for e in entities], full_feature_names=True)
    names = list(answer.proto.metadata.feature_names.val)
    columns = [answer.proto.results[names.index(ref.replace(":", "__"))] for ref in asked]
    found: list[tuple[tuple[Value, ...], int | None]] = []
    for i in range(len(entities)):
        values = tuple(_plain(column.values[i]) for column in columns)
        found.append((values, columns[0].event_timestamps[i].ToMicroseconds() or None))
    return found


def _plain(value: Any) -> Value:  # Feast's protobuf classes are untyped
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)


def test_every_value_reads_the_same_through_feast_and_through_our_reader(
    url: str, store: "FeatureStore", writer: OnlineWriter
) -> None:
    rows = [row(f"I{i}", count=value, mean=None) for i, value in enumerate(INTS)]
    rows += [row(f"F{i}", count=None, mean=value, at_us=NOON_US + i) for i, value in enumerate(FLOATS)]
    writer.write(rows)
    entities = [{"origin": r.keys["origin"]} for r in rows] + [{"origin": "MISSING"}]

    ours = read(url, *(request(e["origin"]) for e in entities))

    feasts = read_through_feast(store, ORIGIN, entities)
    assert [repr((a.values, a.event_timestamp_us)) for a in ours] == [repr(f) for f in feasts]
    assert [a.values for a in ours] == [tuple(r.values.values()) for r in rows] + [(None, None)]
    assert ours[-1].event_timestamp_us is None


def test_our_row_is_byte_for_byte_what_feast_writes(url: str, store: "FeatureStore", writer: OnlineWriter) -> None:
    import pandas as pd
    import redis

    client = redis.Redis.from_url(url)
    at = datetime.fromtimestamp(NOON_US // 1_000_000, UTC).replace(microsecond=NOON_US % 1_000_000)
    frame = pd.DataFrame({"origin": ["JFK"], "carrier": ["UA"], "count_1h": [3], "event_timestamp": [at]})
    frame["created_timestamp"] = at
    store.write_to_online_store("carrier_delay_v2", frame)
    key = entity_key("headway", {"carrier": "UA", "origin": "JFK"})
    feasts: dict[bytes, bytes] = client.execute_command("HGETALL", key)  # type: ignore[no-untyped-call] # redis-py
    client.delete(key)

    keys, values = {"origin": "JFK", "carrier": "UA"}, {"count_1h": 3}
    writer.write([OnlineRow(view="carrier_delay_v2", keys=keys, event_timestamp_us=NOON_US, revision=1, values=values)])

    ours: dict[bytes, bytes] = client.execute_command("HGETALL", key)  # type: ignore[no-untyped-call] # redis-py
    assert ours.pop(b"_hw:carrier_delay_v2") == f"{NOON_US}:1".encode()
    assert ours == feasts
    assert len(feasts) == 2


def test_a_null_replaces_a_value(url: str, store: "FeatureStore", writer: OnlineWriter) -> None:
    writer.write([row(revision=1, mean=4.5)])
    writer.write([row(revision=2, mean=None)])

    assert read(url, request())[0].values == (3, None)
    assert read_through_feast(store, ORIGIN, [{"origin": "EWR"}]) == [((3, None), NOON_US)]


@pytest.mark.parametrize(
    ("second", "wins"),
    [
        pytest.param(row(revision=6, count=9), True, id="equal time, higher revision"),
        pytest.param(row(revision=4, count=9), False, id="equal time, lower revision"),
        pytest.param(row(revision=5, count=9), False, id="the same version again"),
        pytest.param(row(at_us=NOON_US - 1, revision=99, count=9), False, id="older, higher revision"),
        pytest.param(row(at_us=NOON_US + 1, revision=6, count=9), True, id="one microsecond newer"),
    ],
)
def test_the_newest_version_wins(
    url: str, store: "FeatureStore", writer: OnlineWriter, second: OnlineRow, *, wins: bool
) -> None:
    writer.write([row(revision=5, count=3)])

    counts = writer.write([second])

    assert counts == WriteCounts(applied=int(wins), superseded=int(not wins))
    assert read(url, request())[0].values[0] == (9 if wins else 3)
    assert read_through_feast(store, ORIGIN, [{"origin": "EWR"}])[0][0][0] == (9 if wins else 3)


def test_feasts_own_writer_loses_an_update_at_an_equal_timestamp(url: str, store: "FeatureStore") -> None:
    """The reason for our writer: the day this fails, ADR 0005 can be reopened."""
    import pandas as pd

    at = datetime(2013, 6, 18, 12, tzinfo=UTC)
    for revision, count in ((1, 3), (2, 9)):
        created = datetime.fromtimestamp(revision, UTC)
        frame = {"origin": ["EWR"], "count_1h": [count], "mean_1h": [1.0], "event_timestamp": [at]}
        store.write_to_online_store("origin_delay_v1", pd.DataFrame({**frame, "created_timestamp": [created]}))

    assert read_through_feast(store, ORIGIN, [{"origin": "EWR"}])[0][0][0] == 3


def shuffled_rows(keys: int, versions: int, seed: int) -> list[OnlineRow]:
    """Two revisions of every (key, time), in any order; the value names its version."""
    rows = [
        row(f"K{key}", at_us=NOON_US + version // 2, revision=version, count=version, mean=None)
        for key in range(keys)
        for version in range(versions)
    ]
    random.Random(seed).shuffle(rows)
    return rows


def keys_left_at_an_old_version(url: str, writer_class: type[OnlineWriter]) -> int:
    """How many of 200 keys two threads leave behind their newest version, each writing half of 8,000 shuffled rows."""
    rows = shuffled_rows(keys=200, versions=40, seed=20)
    start = threading.Barrier(2)

    def apply(half: Sequence[OnlineRow]) -> None:
        writer = writer_class(url, "headway")
        start.wait(timeout=10)
        for first in range(0, len(half), 37):
            writer.write(half[first : first + 37])
        writer.close()

    threads = [threading.Thread(target=apply, args=(rows[half::2],)) for half in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    answers = read(url, *(request(f"K{key}") for key in range(200)))
    return sum((a.values[0], a.event_timestamp_us) != (39, NOON_US + 19) for a in answers)


def test_two_concurrent_writers_leave_every_key_at_its_newest_version(url: str) -> None:
    assert keys_left_at_an_old_version(url, OnlineWriter) == 0


def test_the_same_claim_fails_without_the_guard(url: str) -> None:
    assert keys_left_at_an_old_version(url, WriterWithoutGuard) > 100


def test_writing_everything_again_changes_nothing(url: str, writer: OnlineWriter) -> None:
    rows = shuffled_rows(keys=20, versions=10, seed=21)
    writer.write(rows)

    assert writer.write(rows) == WriteCounts(applied=0, superseded=200)


def test_counts_add_up_to_the_rows_given(url: str, writer: OnlineWriter) -> None:
    rows = [row(f"K{i}") for i in range(2_500)] + [row("K0", revision=2)]

    assert writer.write(rows) == WriteCounts(applied=2_500, superseded=1)
    assert writer.write([]) == WriteCounts(applied=0, superseded=0)


def test_the_writer_survives_a_server_that_forgot_its_scripts(url: str, writer: OnlineWriter) -> None:
    import redis

    writer.write([row(revision=1)])
    redis.Redis.from_url(url).script_flush()

    assert writer.write([row(revision=2)]).applied == 1


def test_a_view_has_no_watermark_until_every_partition_has_reported(url: str, writer: OnlineWriter) -> None:
    writer.write_watermarks("origin_delay_v1", {0: 5_000}, partition_count=2)
    silent = read(url, request())[0].watermark_ms
    writer.write_watermarks("origin_delay_v1", {1: 4_000}, partition_count=2)

    assert silent is None
    assert read(url, request())[0].watermark_ms == 4_000


def test_a_watermark_never_moves_back(url: str, writer: OnlineWriter) -> None:
    writer.write_watermarks("origin_delay_v1", {0: 9_000, 1: 7_000}, partition_count=2)
    writer.write_watermarks("origin_delay_v1", {0: 1_000, 1: 10_000}, partition_count=2)

    assert read(url, request())[0].watermark_ms == 9_000


def test_answers_come_in_the_order_of_requests_over_several_views(url: str, writer: OnlineWriter) -> None:
    keys = {"origin": "JFK", "carrier": "UA"}
    carrier = OnlineRow(
        view="carrier_delay_v2", keys=keys, event_timestamp_us=NOON_US + 7, revision=1, values={"count_1h": 8}
    )
    writer.write([row("EWR", count=1), carrier])
    writer.write_watermarks("carrier_delay_v2", {0: 6_000}, partition_count=1)

    asked = OnlineRequest(view="carrier_delay_v2", keys={"carrier": "UA", "origin": "JFK"}, features=("count_1h",))

    assert read(url, asked, request("LGA"), request("EWR")) == [
        OnlineAnswer((8,), NOON_US + 7, 6_000),
        OnlineAnswer((None, None), None, None),
        OnlineAnswer((1, 4.5), NOON_US, None),
    ]


def test_projects_on_one_server_do_not_see_each_other(url: str) -> None:
    other = OnlineWriter(url, "other")
    other.write([row()])
    other.write_watermarks("origin_delay_v1", {0: 5_000}, partition_count=1)
    other.close()

    assert read(url, request()) == [OnlineAnswer((None, None), None, None)]


def test_a_cancelled_read_does_not_shift_the_answers_of_others(url: str, writer: OnlineWriter) -> None:
    """Replies belong to callers by position: the bug would serve one entity's features for another."""
    writer.write([row(f"K{i}", count=i, mean=None) for i in range(60)])

    async def many() -> list[OnlineAnswer | BaseException]:
        reader = OnlineReader(url, "headway")
        tasks = [asyncio.ensure_future(reader.read([request(f"K{i}")])) for i in range(60)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        again = await reader.read([request("K7")])
        await reader.close()
        return [d if isinstance(d, BaseException) else d[0] for d in done] + again

    answers = asyncio.run(many())

    assert [isinstance(a, asyncio.CancelledError) for a in answers[:60]] == [i % 3 == 0 for i in range(60)]
    kept = [(i, a) for i, a in enumerate(answers[:60]) if isinstance(a, OnlineAnswer)]
    assert all(a.values[0] == i for i, a in kept)
    assert answers[60] == OnlineAnswer((7, None), NOON_US, None)


def test_a_reader_heals_after_its_connection_was_cut(url: str, writer: OnlineWriter) -> None:
    import redis

    writer.write([row()])

    async def twice() -> list[OnlineAnswer]:
        reader = OnlineReader(url, "headway")
        before = await reader.read([request()])
        redis.Redis.from_url(url).client_kill_filter(_type="normal", skipme=True)
        after = await reader.read([request()])
        await reader.close()
        return before + after

    assert [a.values for a in asyncio.run(twice())] == [(3, 4.5), (3, 4.5)]


def test_the_reader_works_on_uvloop_too(url: str, writer: OnlineWriter) -> None:
    """Its transports are not asyncio.Transport; a check for that broke every read."""
    uvloop = pytest.importorskip("uvloop")
    writer.write([row()])

    async def once() -> list[OnlineAnswer]:
        reader = OnlineReader(url, "headway")
        answers = await reader.read([request()])
        await reader.close()
        return answers

    assert uvloop.run(once())[0].values == (3, 4.5)


def test_a_silent_store_is_a_transient_failure_within_the_budget() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()

        with pytest.raises(TransientFailure, match="no answer"):
            read(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", request())


def test_a_wrong_password_is_a_permanent_failure(url: str) -> None:
    with pytest.raises(PermanentFailure, match="WRONGPASS"):
        read(url.replace("//", "//someone:wrong@"), request())


@pytest.mark.parametrize("value", [True, 2**63, "3"])
def test_a_value_of_another_type_is_refused(value: Any) -> None:
    with pytest.raises(ContractViolation, match="feature value"):
        encode_value(value)


def test_a_store_that_is_away_is_a_transient_failure() -> None:
    with pytest.raises(TransientFailure, match="read failed"):
        read("redis://127.0.0.1:1/0", request())
    with pytest.raises(TransientFailure, match="not reachable"):
        OnlineWriter("redis://127.0.0.1:1/0", "headway").write([row()])


def test_rows_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    free = free_port()
    address = f"redis://127.0.0.1:{free}/0"
    for write in (True, False):
        server = subprocess.Popen(valkey_command(tmp_path, free), stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(free)
            if write:
                OnlineWriter(address, "headway").write([row()])
            else:
                assert read(address, request())[0].values == (3, 4.5)
        finally:
            server.terminate()
            server.wait(timeout=10)
        assert not valkey_ready(free)


@settings(deadline=None)  # the first example imports Feast
@given(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))
def test_values_are_encoded_as_feasts_protobuf_does(value: Value) -> None:
    from feast.protos.feast.types.Value_pb2 import Value as FeastValue

    feasts = FeastValue()
    if isinstance(value, float):
        feasts.double_val = value
    elif value is not None:
        feasts.int64_val = value

    assert encode_value(value) == feasts.SerializeToString()
    assert repr(decode_value(encode_value(value))) == repr(value)


@settings(deadline=None)  # the first example imports Feast
@given(st.integers(0, 2**53 - 1))
def test_timestamps_are_encoded_as_protobuf_does(at_us: int) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp  # ships no types

    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)

    assert encode_timestamp(at_us) == stamp.SerializeToString()
    assert decode_timestamp(encode_timestamp(at_us)) == at_us


@settings(deadline=None)  # the first example imports Feast
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), min_size=1, max_size=3))
def test_entity_keys_are_serialised_as_feast_does(keys: dict[str, str]) -> None:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value as FeastValue

    feasts = EntityKey(join_keys=list(keys), entity_values=[FeastValue(string_val=v) for v in keys.values()])

    assert entity_key("headway", keys) == _redis_key("headway", feasts, entity_key_serialization_version=3)
