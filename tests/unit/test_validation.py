from datetime import datetime
from typing import Annotated

import msgspec
import orjson
import pytest

from headway.clock import parse_instant_us
from headway.contracts import Contract, Domain
from headway.events import Event, encode_event, parse_event
from headway.validation import Rejected, Valid, Validator
from tests.streaming_world import DOMAIN, Airports, departed, instant


class Timed(msgspec.Struct, frozen=True):
    at: Annotated[datetime, msgspec.Meta(tz=True)]


VALIDATOR = Validator(DOMAIN)
NOW_MS = parse_instant_us("2026-01-01T00:00:00Z", field="now") // 1000
GOOD = encode_event(departed("a", at="10:00"))


def judge(raw: bytes, *, written_ms: int = NOW_MS) -> Valid:
    return VALIDATOR.judge(raw, written_ms=written_ms)


def changed(**fields: object) -> bytes:
    return orjson.dumps({**orjson.loads(GOOD), **fields})


def test_a_valid_event_keeps_every_attribute_of_its_envelope() -> None:
    event = msgspec.structs.replace(
        departed("a", at="10:00"),
        receivedat_us=instant("10:01"),
        collectorid="c",
        requestid="r",
        eventsize=5,
        planted="p",
    )

    valid = judge(encode_event(event))

    assert parse_event(msgspec.json.encode(valid.envelope)) == event
    assert valid.time_us == event.time_us


def test_an_instant_in_another_zone_is_written_in_utc() -> None:
    valid = judge(changed(time="2013-07-01T12:00:00+02:00", receivedat="2013-07-01T12:00:00.5+02:00"))

    written = orjson.loads(msgspec.json.encode(valid.envelope))
    assert (written["time"], written["receivedat"]) == ("2013-07-01T10:00:00Z", "2013-07-01T10:00:00.500000Z")


@pytest.mark.parametrize(
    ("raw", "reason", "path"),
    [
        (b"", "unparseable", "$"),
        (b"[]", "unparseable", "$"),
        (GOOD[:-1], "unparseable", "$"),
        (b"\xef\xbb\xbf" + GOOD, "unparseable", "$"),
        (GOOD.replace(b'"a"', b'"\\ud800"'), "unparseable", "$"),
        (GOOD[:-1] + b',"x":"\xff"}', "unparseable", "$"),
        (GOOD[:-1] + b',"id":"b"}', "unparseable", "$"),
        (GOOD.replace(b'"dep_delay_min":', b'"dep_delay_min":1,"dep_delay_min":'), "unparseable", "$"),
        (changed(specversion="0.3"), "unparseable", "$.specversion"),
        (changed(time="yesterday"), "unparseable", "$.time"),
        (changed(time="9999-12-31T23:59:59-12:00"), "unparseable", "$.time"),
        (changed(id=""), "unparseable", "$.id"),
        (changed(planted={"a": 1}), "unparseable", "$.planted"),
        (changed(data=None), "unparseable", "$.data"),
        (changed(type="flight.departed.v2"), "unknown-type", "$.type"),
        (changed(data={"origin": "EWR"}), "schema-violation", "$.data.dep_delay_min"),
        (changed(data={"origin": "EWR", "dep_delay_min": "10"}), "schema-violation", "$.data.dep_delay_min"),
        (changed(data={"origin": "EWR", "dep_delay_min": 2**63}), "schema-violation", "$.data.dep_delay_min"),
        (changed(data={"origin": "EWR", "dep_delay_min": 1, "x": 2}), "schema-violation", "$.data.x"),
        (changed(time="2026-01-01T00:05:01Z"), "future-time", "$.time"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(raw: bytes, reason: str, path: str) -> None:
    with pytest.raises(Rejected) as caught:
        judge(raw)

    assert (caught.value.reason, caught.value.path) == (reason, path)


def test_a_time_is_of_the_future_from_five_minutes_after_it_was_received_on() -> None:
    judge(changed(time="2026-01-01T00:05:00Z"))
    judge(changed(time="2026-02-01T00:00:00Z", receivedat="2026-02-01T00:00:00Z"))

    with pytest.raises(Rejected, match="Correct the producer's clock"):
        judge(changed(time="2013-07-01T10:05:01Z", receivedat="2013-07-01T10:00:00Z"))


@pytest.mark.parametrize("depth", [900, 10_000, 100_000])
def test_depth_ends_no_process(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth

    for raw in (deep, changed(data={"origin": 1}).replace(b"1}", deep + b"}"), GOOD[:-1] + b',"x":' + deep + b"}"):
        assert verdict(raw) in ("valid", "unparseable", "schema-violation")


def verdict(raw: bytes) -> str:
    try:
        judge(raw)
    except Rejected as rejected:
        return rejected.reason
    return "valid"


def test_the_same_content_in_another_spelling_is_the_same_content() -> None:
    other = GOOD.replace(b'{"origin":"EWR","dep_delay_min":10}', b'{ "dep_delay_min": 10, "origin": "\\u0045WR"}')
    assert other != GOOD

    assert judge(other).content == judge(GOOD).content
    assert judge(changed(data={"origin": "EWR", "dep_delay_min": 11})).content != judge(GOOD).content
    assert judge(changed(subject="JFK")).content != judge(GOOD).content


def test_an_instant_in_a_body_that_no_column_can_hold_is_refused() -> None:
    domain = Domain(
        name="timed",
        source="/timed",
        contracts=(Contract(event_type="timed.v1", body=Timed, description="", owner="tests"),),
        enrichment={},
        views=(),
        load_reference=Airports,
    )
    event = Event(
        id="a",
        source="/timed",
        type="timed.v1",
        subject="s",
        time_us=instant("10:00"),
        data={"at": "9999-12-31T23:00:00-12:00"},
    )

    with pytest.raises(Rejected, match="year 9999"):
        Validator(domain).judge(encode_event(event), written_ms=NOW_MS)


def test_a_hostile_name_does_not_make_the_letter_long() -> None:
    with pytest.raises(Rejected) as caught:
        judge(changed(data={"origin": "EWR", "dep_delay_min": 1, "x" * 200_000: 1}))

    assert len(str(caught.value)) == 500
    assert len(caught.value.path) <= 500
