"""Binary mode and protobuf: what strangers' SDKs send becomes the same JSON, and letters keep what was sent."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.clock import SystemClock
from headway.events import Event, parse_event
from headway.letters import Letter, letter_of
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS, topic_table
from scripts.proto import outdated
from serving.collector import Collector
from serving.collector_modes import PROTOBUF, PROTOBUF_BATCH
from serving.proto.cloudevents_pb2 import CloudEvent, CloudEventBatch

BINARY = {
    "ce-specversion": "1.0",
    "ce-id": "a",
    "ce-source": "/small",
    "ce-type": "flight.departed.v1",
    "ce-subject": "EWR",
    "ce-time": "2013-07-01T10:00:00Z",
    "content-type": "application/json",
}


def post(body: bytes, headers: Mapping[str, str | bytes]) -> tuple[httpx.Response, list[Event], list[Letter]]:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
    app: Any = Collector(MemoryPublisher(broker), SystemClock(), collector_id="c1")

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
            named = [
                (name.encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in headers.items()
            ]
            return await client.post("/v1/events", content=body, headers=named)

    answer = asyncio.run(send())
    reader = MemoryReader(broker)
    events = [parse_event(message.value or b"") for message in reader.read(EVENTS_RAW)]
    return answer, events, [letter_of(message) for message in reader.read(EVENTS_RAW_LETTERS)]


def message(event_id: str = "a") -> CloudEvent:
    event = CloudEvent(id=event_id, source="/small", spec_version="1.0", type="flight.departed.v1")
    event.attributes["subject"].ce_string = "EWR"
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2013, 7, 1, 10, tzinfo=UTC))
    event.attributes["time"].ce_timestamp.CopyFrom(stamp)
    event.text_data = '{"origin":"EWR"}'
    return event


def test_in_binary_mode_attributes_are_headers_and_the_body_is_the_data() -> None:
    answer, [event], _ = post(b'{"origin":"EWR"}', BINARY)

    assert answer.status_code == 202
    assert (event.id, event.subject, event.data) == ("a", "EWR", {"origin": "EWR"})


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("Euro%20%E2%82%AC", "Euro €"), ('"quoted \\"x\\""', 'quoted "x"'), ("50%25", "50%"), ("100%", "100%")],
)
def test_header_values_are_percent_decoded_once(sent: str, meant: str) -> None:
    _, [event], _ = post(b"{}", {**BINARY, "ce-subject": sent})

    assert event.subject == meant


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ce-subject": "%ff"}, "subject: header is not UTF-8"),
        ({"content-type": "text/xml"}, "datacontenttype: got 'text/xml'"),
        ({"ce-id": ""}, "id: got ''"),
        ({"ce-data": "x"}, "data: header 'ce-data'"),
        ({"ce-time": "yesterday"}, "time: got 'yesterday'"),
    ],
)
def test_what_is_wrong_with_a_binary_event_is_named_and_its_letter_keeps_body_and_headers(
    changed: dict[str, str], said: str
) -> None:
    body = b'{ "origin" :"EWR"}'

    answer, events, [letter] = post(body, {**BINARY, **changed})

    assert (answer.status_code, events) == (400, [])
    assert answer.json()["detail"].startswith(said)
    assert letter.original == body
    kept = dict(letter.headers)
    assert {
        "ce_source": b"/small",
        "content-type": {**BINARY, **changed}["content-type"].encode(),
    }.items() <= kept.items()


@pytest.mark.parametrize("body", [b'{"a":1},"id":"smuggled"', b"", b"{", b'{"a":1}{"b":2}', b'{"a":1,"a":2}'])
def test_a_body_cannot_reach_out_of_its_place(body: bytes) -> None:
    answer, events, [letter] = post(body, BINARY)

    assert (answer.status_code, events, letter.original) == (400, [], body)


def test_a_protobuf_event_is_stored_as_the_same_json() -> None:
    event = message()
    event.attributes["count"].ce_integer = 7
    event.attributes["flag"].ce_boolean = True
    event.attributes["blob"].ce_bytes = b"\x00\x01"

    answer, [stored], _ = post(event.SerializeToString(), {"content-type": PROTOBUF})

    assert answer.status_code == 202
    assert (stored.id, stored.subject, stored.data) == ("a", "EWR", {"origin": "EWR"})
    assert stored.time_us == int(datetime(2013, 7, 1, 10, tzinfo=UTC).timestamp() * 1_000_000)


def test_a_protobuf_batch_answers_per_event_and_a_letter_keeps_its_own_bytes() -> None:
    bad = message("b")
    bad.ClearField("id")
    # The attributes are a map, whose order is otherwise another one in every copy.
    batch = CloudEventBatch(events=[message(), bad]).SerializeToString(deterministic=True)

    answer, [stored], [letter] = post(batch, {"content-type": PROTOBUF_BATCH})

    assert answer.status_code == 207
    assert [result["status"] for result in answer.json()["results"]] == [202, 400]
    assert (stored.id, letter.original) == ("a", bad.SerializeToString(deterministic=True))
    assert dict(letter.headers)["content-type"] == PROTOBUF.encode()


def beyond_time() -> CloudEvent:
    event = message()
    event.attributes["time"].ce_timestamp.seconds = 10**15
    return event


def with_protobuf_inside() -> CloudEvent:
    event = message()
    event.proto_data.type_url = "type.example/X"
    return event


def named_twice() -> CloudEvent:
    event = message()
    event.attributes["id"].ce_string = "b"
    return event


def without_value() -> CloudEvent:
    event = message()
    event.attributes["empty"].SetInParent()
    return event


@pytest.mark.parametrize("make", [beyond_time, with_protobuf_inside, named_twice, without_value])
def test_a_protobuf_event_that_is_no_json_event_is_a_letter(make: Any) -> None:
    raw = make().SerializeToString()

    answer, events, [letter] = post(raw, {"content-type": PROTOBUF})

    assert (answer.status_code, events, letter.original) == (400, [], raw)


@pytest.mark.parametrize("kind", [PROTOBUF, PROTOBUF_BATCH])
def test_bytes_that_are_no_protobuf_are_one_letter(kind: str) -> None:
    answer, events, [letter] = post(b"\xff\xff\xff", {"content-type": kind})

    assert (answer.status_code, events, letter.original) == (400, [], b"\xff\xff\xff")


def test_the_generated_code_is_what_the_contract_generates() -> None:
    assert outdated() == []


def test_the_log_keeps_a_conforming_kafka_message() -> None:
    """Structured mode of the CloudEvents Kafka binding: a content type, and the event as the value."""
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
    app: Any = Collector(MemoryPublisher(broker), SystemClock(), collector_id="c1")
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def send() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
            headers = {**BINARY, "traceparent": traceparent, "x-request-id": "r1"}
            await client.post("/v1/events", content=b"{}", headers=headers)

    asyncio.run(send())
    [stored] = MemoryReader(broker).read(EVENTS_RAW)

    assert dict(stored.headers) == {
        "ce_type": b"flight.departed.v1",
        "ce_id": b"a",
        "ce_source": b"/small",
        "content-type": b"application/cloudevents+json",
        "traceparent": traceparent.encode(),
    }
    assert orjson.loads(stored.value or b"")["requestid"] == "r1"
