"""What goes to Redis for some rows, and how replies find their way back; the server here is a dictionary."""

import asyncio
from collections.abc import Mapping
from typing import Any

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from headway.adapters.feast_layout import encode_timestamp, encode_value, entity_key, hash_fields
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_marks import guard_field, watermark_key
from headway.adapters.redis_online import OnlineRow
from headway.adapters.redis_plan import ReadPlan
from headway.features.online import OnlineRows, OnlineView
from tests.feature_world import KEYS, SERVICE

PROJECT = "headway"
VIEWS = (
    OnlineView(view="delay_v1", keys=("origin",), features=("count", "mean")),
    OnlineView(view="carrier_v2", keys=("origin", "carrier"), features=("count",)),
    OnlineView(view="weather_v1", keys=("origin",), features=("wind", "at", "gust")),
    OnlineView(view="aircraft_v1", keys=("tail",), features=("last",)),
)
# Few of each, so that rows share entities and names run into each other.
_NAME = st.sampled_from(["", "a", "ab", "b", "ü"])
_ROWS = st.lists(
    st.fixed_dictionaries({"origin": _NAME | st.none(), "carrier": _NAME | st.none(), "tail": _NAME | st.none()}),
    max_size=6,
)
_VALUE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


class Server:
    """Answers HMGET from hashes, as Redis does."""

    def __init__(self) -> None:
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.asked: list[bytes] = []

    def write(self, row: OnlineRow) -> None:
        *fields, at = hash_fields(row.view, tuple(row.values))
        stored = self.hashes.setdefault(entity_key(PROJECT, row.keys), {})
        stored |= {f: encode_value(v) for f, v in zip(fields, row.values.values(), strict=True)}
        stored[at] = encode_timestamp(row.event_timestamp_us)
        stored[guard_field(row.view).encode()] = b"%d:%d" % (row.event_timestamp_us, row.revision)

    def answer(self, commands: bytes) -> list[Any]:
        reader = hiredis.Reader()
        reader.feed(commands)
        replies = []
        while (command := reader.gets()) is not False:
            verb, key, *fields = command
            assert verb == b"HMGET"
            self.asked.append(key)
            replies.append([self.hashes.get(key, {}).get(field) for field in fields])
        return replies


def read(server: Server, rows: list[Mapping[str, str | None]], views: tuple[OnlineView, ...] = VIEWS) -> OnlineRows:
    plan = ReadPlan(PROJECT, views)
    commands, asked, count = plan.commands(rows)
    replies = server.answer(commands)
    assert len(replies) == count
    return plan.rows(asked, replies)


@st.composite
def stored_rows(draw: st.DrawFn) -> list[OnlineRow]:
    rows = []
    for view in VIEWS:
        for number in range(draw(st.integers(0, 3))):
            keys = {name: draw(_NAME) for name in view.keys}
            values = {name: draw(_VALUE) for name in view.features}
            at_us = draw(st.integers(1, 2**50))
            rows.append(OnlineRow(view=view.view, keys=keys, event_timestamp_us=at_us, revision=number, values=values))
    return rows


@given(stored=stored_rows(), rows=_ROWS)
def test_every_row_gets_the_values_of_its_own_entities(
    stored: list[OnlineRow], rows: list[Mapping[str, str | None]]
) -> None:
    """Replies belong to commands by position alone: the bug would serve one entity's features for another."""
    memory, server = MemoryOnlineStore(PROJECT), Server()
    newest: dict[tuple[str, bytes], OnlineRow] = {}
    for row in sorted(stored, key=lambda row: (row.event_timestamp_us, row.revision)):
        newest[row.view, entity_key(PROJECT, row.keys)] = row
    memory.write(stored)
    for row in newest.values():
        server.write(row)

    found = read(server, rows)

    async def expected() -> OnlineRows:
        return await memory.over(VIEWS)(rows)

    assert repr(found) == repr(asyncio.run(expected()))


def test_a_row_names_the_revision_that_its_receipt_will_show() -> None:
    server = Server()
    row = OnlineRow(view="delay_v1", keys={"origin": "EWR"}, event_timestamp_us=5, revision=42, values={"count": 3})
    server.write(row)

    [[stored, *_]] = read(server, [{"origin": "EWR", "carrier": None, "tail": None}]).rows

    assert stored is not None
    assert (stored.event_timestamp_us, stored.revision) == (5, 42)


def test_views_of_one_entity_are_one_command_and_an_entity_is_asked_for_once() -> None:
    server = Server()

    read(server, [KEYS, {**KEYS, "tail": "N39463"}, KEYS], SERVICE.online)

    marks = [key for key in server.asked if key.startswith(b"hw:watermark:")]
    assert len(marks) == len(SERVICE.served)
    # Origin, airline at the origin, destination, two aircraft: nine of seven views of three rows, had each been asked for.
    assert len(server.asked) - len(marks) == 5
    assert server.asked[: len(marks)] == marks, "watermarks come first"


def test_an_entity_that_is_null_is_not_asked_for() -> None:
    server = Server()

    found = read(server, [{"origin": None, "carrier": "UA", "tail": "N1"}])

    assert [row is None for row in found.rows[0]] == [True, True, True, False]
    assert len(server.asked) == len(VIEWS) + 1


def test_watermark_and_mark_of_each_view_come_with_the_rows() -> None:
    server = Server()
    server.hashes[watermark_key(PROJECT, "weather_v1").encode()] = {b"view": b"5000", b"bootstrap": b"abc:7"}

    states = read(server, []).states

    assert [(s.watermark_us, s.digest, s.bootstrapped_us) for s in states] == [
        (None, None, None),
        (None, None, None),
        (5_000_000, "abc", 7),
        (None, None, None),
    ]
