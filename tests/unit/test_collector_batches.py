"""The quick looks at an event and at a whole batch: they may decide nothing otherwise than the look at each field."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import FrozenClock
from headway.errors import InputRejected
from headway.events import MAX_DEPTH, are_envelopes, check_envelope, encode_event, is_envelope
from serving.collector_envelope import Stamp
from tests.streaming_world import departed

GOOD: dict[str, Any] = orjson.loads(encode_event(departed("a", at="10:00")))
TEXTS = st.sampled_from(["", "x", "x" * 1024, "x" * 1025, "é" * 1024])
# Every spelling near an instant: some are none to anybody, some only to us.
TIMES = [
    "".join(parts)
    for parts in itertools.product(
        ("2013-07-31", "2013-02-30", "0001-01-01", "9999-12-31", "0000-01-01"),
        ("T", "t", " ", ""),
        ("10:59:59", "23:59:60", "24:00:00", "10:59"),
        ("", ".", ".5", ".123456789", ".1234567890"),
        ("Z", "z", "+01:00", "-01:00", "+0100", "+01", "+01:60", "-24:00", ""),
    )
]
# Any: whatever JSON holds.
ODD: dict[str, st.SearchStrategy[Any]] = {
    "specversion": st.sampled_from(["1.0", "0.3", 1.0, None]),
    **{name: TEXTS | st.sampled_from([None, 7, ["x"]]) for name in ("id", "source", "type", "subject", "planted")},
    "time": st.sampled_from([1372672800, None, "", *TIMES]),
    "data": st.sampled_from([{}, {"a": {"b": 1}}, [], None, "{}"]),
}
LEFT_OUT = object()
CHANGES = st.one_of(*(st.tuples(st.just(name), values | st.just(LEFT_OUT)) for name, values in ODD.items()))


def stamp() -> Stamp:
    clock = FrozenClock(datetime(2013, 7, 1, 11, tzinfo=UTC))
    return Stamp(clock=clock, collector_id="c1", request_id="r1", traceparent=None)


def spaced(document: object) -> bytes:
    """As Python's own encoder spells it, but for texts beyond ASCII."""
    return json.dumps(document, ensure_ascii=False).encode()


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth > 1 else {}


def taken(document: object) -> bool:
    try:
        check_envelope(document)
    except InputRejected:
        return False
    return True


@given(CHANGES)
def test_what_the_quick_look_takes_the_look_at_each_field_takes_too(change: tuple[str, Any]) -> None:
    name, value = change
    document = {**GOOD, name: value}
    if value is LEFT_OUT:
        del document[name]

    assert are_envelopes([GOOD, document]) == is_envelope(document)
    assert not is_envelope(document) or taken(document)


def test_the_quick_look_reads_no_time_that_is_none() -> None:
    events = [{**GOOD, "time": time} for time in TIMES]

    quickly = {event["time"] for event in events if is_envelope(event)}

    assert quickly <= {event["time"] for event in events if taken(event)}
    assert {"2013-07-31T10:59:59Z", "2013-07-31 10:59:59.123456789z", "2013-07-31t10:59:59.5-01:00"} <= quickly


@pytest.mark.parametrize("spell", [orjson.dumps, spaced])
def test_a_batch_gives_the_records_that_its_events_give_alone(spell: Callable[[object], bytes]) -> None:
    events = [
        GOOD,
        {**GOOD, "time": "2013-07-01T10:00:00.123456789+01:00", "comexampleany": "kept"},
        {**GOOD, "collectorid": "me", "eventsize": -1},
        {**GOOD, "data": nested(MAX_DEPTH - 1)},
        {**GOOD, "planted": None, "subject": "é"},
    ]

    together = stamp().accept_all(spell(events))

    assert together == [stamp().accept(spell(event)) for event in events]
    assert [(record.value or b"").startswith(spell(GOOD)[:-1]) for record, _ in together[:1]] == [True]


def test_white_space_hides_no_name_that_stands_twice() -> None:
    twice = spaced(GOOD)[:-1] + b', "id": "b"}'

    assert stamp().accept_all(b"[" + twice + b"]") is None
    with pytest.raises(InputRejected, match="more than once"):
        stamp().accept(twice)


def test_one_event_too_deep_sends_the_batch_to_the_look_at_each() -> None:
    flat = [GOOD] * 100

    assert stamp().accept_all(orjson.dumps(flat)) is not None
    assert stamp().accept_all(orjson.dumps([*flat, {**GOOD, "data": nested(MAX_DEPTH)}])) is None
