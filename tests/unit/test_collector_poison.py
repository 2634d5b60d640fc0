"""What hostile or broken input gets, as a table and as a property: always one of the answers of docs/collector.md."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.clock import SystemClock
from headway.events import MAX_DEPTH, MAX_EVENT_BYTES, encode_event, parse_event
from headway.letters import letter_of
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS, topic_table
from serving.collector import Collector
from serving.collector_limits import Limits
from serving.collector_modes import BATCH, SINGLE
from tests.streaming_world import departed

GOOD = encode_event(departed("a", at="10:00"))


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def with_field(name: str, raw: bytes) -> bytes:
    """The good event with one top-level field's JSON replaced by these bytes, or added."""
    document = orjson.loads(GOOD)
    fields = {key: orjson.dumps(value) for key, value in document.items()} | {name: raw}
    return b"{" + b",".join(orjson.dumps(key) + b":" + value for key, value in fields.items()) + b"}"


INVALID: Mapping[str, bytes] = {
    "not JSON": b"hello",
    "empty": b"",
    "truncated": GOOD[:-20],
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "not UTF-8": GOOD.replace(b"EWR", b"E\xffR"),
    "a surrogate alone": with_field("subject", b'"\\ud800"'),
    "a surrogate alone in the body": with_field("data", b'{"a":"\\udfff"}'),
    "NaN": with_field("data", b'{"a":NaN}'),
    "Infinity": with_field("data", b'{"a":-Infinity}'),
    "beyond every float": with_field("data", b'{"a":1e400}'),
    "a number of 5,000 digits": with_field("data", b'{"a":' + b"1" * 5000 + b"}"),
    "10,000 levels": with_field("data", nested(10_000)),
    "levels the decoder takes and the encoder does not": with_field("data", nested(500)),
    "one level too many": with_field("data", nested(MAX_DEPTH)),
    "10,000 lists": b"[" * 10_000,
    "a list": b"[1]",
    "null": b"null",
    "an id twice": GOOD[:-1] + b',"id":"b"}',
    "a name twice in the body": with_field("data", b'{"a":1,"a":2}'),
    "a name twice, once escaped": GOOD[:-1] + b',"\\u0069d":"b"}',
    "the stamp twice": GOOD[:-1] + b',"eventsize":1,"eventsize":2}',
    "no id": GOOD.replace(b'"id"', b'"identity"'),
    "an empty id": with_field("id", b'""'),
    "an id that is a number": with_field("id", b"7"),
    "a long id": with_field("id", b'"' + b"x" * 1025 + b'"'),
    "a time without zone": with_field("time", b'"2013-07-01T10:00:00"'),
    "a time as number": with_field("time", b"1372672800"),
    "February 30": with_field("time", b'"2013-02-30T10:00:00Z"'),
    "year 0": with_field("time", b'"0000-01-01T00:00:00Z"'),
    "before year 1 in UTC": with_field("time", b'"0001-01-01T00:00:00+01:00"'),
    "year 9999": with_field("time", b'"9999-12-31T23:59:59Z"'),
    "after year 9999 in UTC": with_field("time", b'"9999-12-31T23:59:59-01:00"'),
    "a body that is text": with_field("data", b'"hello"'),
    "another version": with_field("specversion", b'"0.3"'),
    "a version of 2 MB digits": with_field("specversion", b"1" * 5000),
    "a plant that is no text": GOOD[:-1] + b',"planted":7}',
    "a tick": GOOD.replace(b"flight.departed.v1", b"headway.tick"),
}
ODD: Mapping[str, bytes] = {
    "2^63": with_field("data", b'{"a":9223372036854775808}'),
    "2^64 and more": with_field("data", b'{"a":184467440737095516160}'),
    "300 digits": with_field("data", b'{"a":' + b"1" * 300 + b"}"),
    "deep, but not too deep": with_field("data", nested(MAX_DEPTH - 1)),
    "brackets in a text": with_field("data", b'{"a":"' + b"[" * 1000 + b'"}'),
    "before 1970": with_field("time", b'"1903-12-17T10:35:00-05:00"'),
    "white space": b"\r\n " + GOOD.replace(b",", b" ,\t") + b"\n",
    "escapes": with_field("subject", b'"\\u00e9\\n\\u0000"'),
    "SQL, markup and formulas": with_field("subject", b"\"'; DROP TABLE x; -- <script> =cmd|' /C calc'!A0\""),
    "a stamp of its own": GOOD[:-1] + b',"collectorid":"me","eventsize":-1,"receivedat":"never"}',
    "further attributes": GOOD[:-1] + b',"comexampleany":"kept"}',
}


class World:
    def __init__(self, limits: Limits | None = None) -> None:
        self.broker = MemoryBroker()
        self.broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
        self.app: Any = Collector(MemoryPublisher(self.broker), SystemClock(), collector_id="c1", limits=limits)

    def post(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://c") as client:
                return await client.post("/v1/events", content=body, headers=dict(headers))

        return asyncio.run(send())

    def held(self) -> tuple[list[bytes], list[bytes]]:
        reader = MemoryReader(self.broker)
        letters = [letter_of(message).original for message in reader.read(EVENTS_RAW_LETTERS)]
        return [message.value or b"" for message in reader.read(EVENTS_RAW)], letters

    def check(self, answer: httpx.Response, body: bytes) -> None:
        """Exactly one of: 202 and a record; 400 and a letter with these bytes; another refusal and nothing."""
        records, letters = self.held()
        match answer.status_code:
            case 202:
                assert (len(records), letters) == (1, [])
                assert parse_event(records[0]).eventsize == len(body)
            case 400:
                assert (records, letters) == ([], [body])
                assert re.match(r"^[\w ]+: ", answer.json()["detail"])
            case status:
                assert status in (408, 413, 415, 429, 503)
                assert (records, letters) == ([], [])
        if answer.status_code != 202:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"].startswith("urn:headway:problem:")


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_envelope_is_a_letter_and_a_400(name: str) -> None:
    world = World()

    answer = world.post(INVALID[name], {"content-type": SINGLE})

    assert answer.status_code == 400
    world.check(answer, INVALID[name])


@pytest.mark.parametrize("name", ODD)
def test_an_odd_but_valid_event_is_stored_as_it_was_sent(name: str) -> None:
    world = World()
    body = ODD[name]

    answer = world.post(body, {"content-type": SINGLE})

    assert answer.status_code == 202
    world.check(answer, body)
    [record] = world.held()[0]
    assert parse_event(record).collectorid == "c1"
    if name != "a stamp of its own":
        assert record.startswith(body.rstrip()[:-1])


@pytest.mark.parametrize("name", INVALID)
def test_in_a_batch_it_is_a_letter_of_its_own_unless_it_breaks_the_batch(name: str) -> None:
    """What JSON itself cannot take apart makes the whole body one letter; then none of its events is stored."""
    world = World()
    body = b"[" + GOOD + b"," + INVALID[name] + b"]"

    answer = world.post(body, {"content-type": BATCH})
    records, letters = world.held()

    if answer.status_code == 207:
        assert [result["status"] for result in answer.json()["results"]] == [202, 400]
        assert (len(records), letters) == (1, [INVALID[name]])
    else:
        assert (answer.status_code, records, letters) == (400, [], [body])


def test_an_event_too_large_is_refused_and_leaves_nothing_alone_and_in_a_batch() -> None:
    large = with_field("data", b'{"a":"' + b"x" * MAX_EVENT_BYTES + b'"}')
    alone, batched = World(), World()

    alone.check(answer := alone.post(large, {"content-type": SINGLE}), large)
    mixed = batched.post(b"[" + large + b"," + GOOD + b"]", {"content-type": BATCH})

    assert answer.status_code == 413
    assert [result["status"] for result in mixed.json()["results"]] == [413, 202]
    assert [len(held) for held in batched.held()] == [1, 0]


def test_over_its_bounds_the_collector_answers_503_and_stores_nothing() -> None:
    world = World(Limits(requests=0))

    answer = world.post(GOOD, {"content-type": SINGLE})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    world.check(answer, GOOD)
    metrics = world.app.metrics.page().body.decode()
    assert 'headway_collector_refused_total{kind="overloaded"} 1.0' in metrics


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({"content-type": SINGLE, "content-encoding": "gzip"}, 415),
        ({"content-type": SINGLE + "; charset=utf-16"}, 415),
        ({"content-type": "application/cloudevents+avro"}, 415),
        ({"content-type": SINGLE + "; charset=UTF-8"}, 202),
    ],
)
def test_a_form_that_is_not_ours_is_refused_before_the_body_is_read(headers: dict[str, str], status: int) -> None:
    world = World()

    answer = world.post(GOOD, headers)

    assert answer.status_code == status
    world.check(answer, GOOD)


@settings(max_examples=300, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=8,
        ).map(lambda value: repr(value).replace("'", '"').encode(errors="surrogatepass")),
        st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3)).map(
            lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :]
        ),
    )
)
def test_any_bytes_get_exactly_one_answer_and_leave_what_it_says(body: bytes) -> None:
    world = World()

    world.check(world.post(body, {"content-type": SINGLE}), body)
