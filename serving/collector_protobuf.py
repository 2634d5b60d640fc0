"""CloudEvents in protobuf, turned into the JSON that the rest of the Collector judges and the log keeps.

Refuses ``proto_data``: bodies are JSON here, in ``text_data`` or ``binary_data``. Slower than JSON by an order of
magnitude; it is there for those who have nothing else.
"""

import base64
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from headway.clock import format_us
from headway.errors import InputRejected
from serving.proto.cloudevents_pb2 import CloudEvent, RawEventBatch

_NANOSECONDS = 1_000


def split_batch(body: bytes) -> list[bytes]:
    """Return the bytes of each event of a ``CloudEventBatch``.

    Raises:
        InputRejected: the body is no such message.
    """
    batch = RawEventBatch()
    try:
        batch.ParseFromString(body)
    except DecodeError as error:
        raise InputRejected(f"batch: {error}; wanted an io.cloudevents.v1.CloudEventBatch") from error
    return list(batch.events)


def attributes_and_data(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the attributes of one ``CloudEvent`` message and the bytes of its body, which nobody has judged yet.

    Raises:
        InputRejected: no such message, or its body is protobuf itself.
    """
    event = CloudEvent()
    try:
        event.ParseFromString(raw)
    except DecodeError as error:
        raise InputRejected(f"event: {error}; wanted an io.cloudevents.v1.CloudEvent") from error
    carried = event.WhichOneof("data")
    if carried == "proto_data":
        raise InputRejected(
            f"data: got proto_data of {event.proto_data.type_url!r}, wanted JSON in text_data or binary_data"
        )
    named = {"specversion": event.spec_version, "id": event.id, "source": event.source, "type": event.type}
    attributes = {name: value for name, value in named.items() if value}
    for name, value in event.attributes.items():
        if name in named or name == "data":
            raise InputRejected(f"attributes: {name!r} has a field of its own; send it once")
        attributes[name] = _plain(name, value)
    return attributes, event.text_data.encode() if carried == "text_data" else event.binary_data


def _plain(name: str, value: CloudEvent.CloudEventAttributeValue) -> Any:  # Any: one of CloudEvents' types in JSON
    kind = value.WhichOneof("attr")
    if kind is None:
        raise InputRejected(f"{name}: has no value; leave the attribute out")
    if kind == "ce_timestamp":
        stamp = value.ce_timestamp
        try:
            return format_us(stamp.seconds * 1_000_000 + stamp.nanos // _NANOSECONDS)
        except OverflowError as error:
            raise InputRejected(f"{name}: got {stamp.seconds} s, wanted a year of 1 to 9999 in UTC") from error
    given = getattr(value, kind)
    return base64.b64encode(given).decode() if kind == "ce_bytes" else given


def as_json(attributes: dict[str, Any], data: bytes) -> bytes:
    """Return structured JSON from attributes and a body; the body's bytes are kept as they are.

    Raises:
        InputRejected: the body is empty, or is not one JSON value.
    """
    if not data:
        raise InputRejected("data: missing; every event needs a JSON object")
    try:
        # Alone, because a body may look like JSON only once it stands inside the event.
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputRejected(f"data: not JSON ({error}); wanted a JSON object") from error
    return orjson.dumps(attributes)[:-1] + (b',"data":' if attributes else b'"data":') + data + b"}"
