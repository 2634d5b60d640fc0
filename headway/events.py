"""The event envelope: CloudEvents 1.0 on the wire, one frozen value inside.

Only top-level fields are judged here (the Collector's duty); bodies are judged against their contract by the
Validator. An event's identity is (source, id) (SEMANTICS S12).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import orjson

from headway.clock import MINUTE_US, format_us, parse_instant_us
from headway.errors import InputRejected

# A tick says "all events with time <= this one's have been sent" (S2). It travels through the event topics, to every
# partition, with this type; it is never a row, a letter or part of the ledger.
TICK_TYPE = "headway.tick"
TYPE_HEADER = "ce_type"

REQUIRED = ("specversion", "id", "source", "type", "subject", "time", "data")
TEXTS = ("id", "source", "type", "subject", "time")
MAX_EVENT_BYTES = 256 * 1024
MAX_FIELD_CHARS = 1024
# Clocks of producers differ by seconds, a broken one by hours. A row of the future would stand in the online store and
# refuse every real one until its time has come (S4), so this is minutes.
FUTURE_LIMIT_US = 5 * MINUTE_US
# Nobody's event is this deep; the encoder stops at 254 and the decoder at 1,024, so a deeper one could be read, not written.
MAX_DEPTH = 64


_LONGEST_UTC = len("2013-07-01T10:00:00.123456789Z")
_LONGEST_OFFSET = len("2013-07-01T10:00:00.123456789+01:00")
_EDGE_YEARS = (1, 9999)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARS)]


class _Envelope(msgspec.Struct, gc=False):
    """The top level of an event, as far as a decoder can judge it."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    subject: _Text
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    data: Any
    planted: _Text | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted event. ``data`` is the body; in enriched events, the body and its enrichment columns."""

    id: str
    source: str
    type: str
    subject: str
    time_us: int
    data: dict[str, Any]
    receivedat_us: int | None = None
    collectorid: str | None = None
    requestid: str | None = None
    eventsize: int | None = None
    enrichmentversion: str | None = None
    planted: str | None = None


def parse_event(raw: bytes) -> Event:
    """Return the event of one structured-mode JSON CloudEvent.

    Raises:
        InputRejected: not JSON, not an object, or a top-level field is missing or wrong; names field, got, wanted.
    """
    return event_from(decode_json(raw))


def decode_json(raw: bytes) -> Any:  # Any: whatever JSON holds
    """Return what JSON bytes hold, at most `MAX_DEPTH` deep.

    Raises:
        InputRejected: not JSON, not UTF-8, a number no float holds, or too deep.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputRejected(f"event: not JSON ({error}); wanted one CloudEvents 1.0 object") from error
    check_depth(raw, document)
    return document


def check_depth(raw: bytes, document: object) -> None:
    """Return when a decoded document is at most `MAX_DEPTH` deep.

    Raises:
        InputRejected: it is deeper.
    """
    # Counting brackets costs nothing and clears all but the suspicious, strings full of brackets among them.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(document) > MAX_DEPTH:
        raise InputRejected(f"event: nested more than {MAX_DEPTH} deep; flatten it, or send the rest as text")


def event_from(document: object) -> Event:
    """Return the event of one decoded CloudEvent.

    Raises:
        InputRejected: see ``parse_event``.
    """
    checked, time_us = check_envelope(document)
    for field in ("receivedat", "collectorid", "requestid", "enrichmentversion"):
        if checked.get(field) is not None:
            _check_text(field, checked[field])
    size = checked.get("eventsize")
    if size is not None and (type(size) is not int or not 0 <= size < 2**63):
        raise InputRejected(f"eventsize: got {str(size)[:80]!r}, wanted a whole number of bytes")
    received = checked.get("receivedat")
    return Event(
        id=checked["id"],
        source=checked["source"],
        type=checked["type"],
        subject=checked["subject"],
        time_us=time_us,
        data=checked["data"],
        receivedat_us=None if received is None else parse_instant_us(received, field="receivedat"),
        collectorid=checked.get("collectorid"),
        requestid=checked.get("requestid"),
        eventsize=checked.get("eventsize"),
        enrichmentversion=checked.get("enrichmentversion"),
        planted=checked.get("planted"),
    )


def check_envelope(document: object) -> tuple[dict[str, Any], int]:
    """Return the document and its time in microseconds, when every top-level field is as it must be.

    Raises:
        InputRejected: see ``parse_event``.
    """
    if not isinstance(document, dict):
        raise InputRejected(f"event: got {type(document).__name__}, wanted one CloudEvents 1.0 JSON object")
    for field in REQUIRED:
        if field not in document:
            found = ", ".join(sorted(map(str, document)))[:200]
            raise InputRejected(f"{field}: missing (found: {found or 'nothing'}); every event needs it")
    for field in TEXTS:
        _check_text(field, document[field])
    if document["specversion"] != "1.0":
        raise InputRejected(f"specversion: got {repr(document['specversion'])[:80]}, wanted '1.0'")
    if not isinstance(document["data"], dict):
        raise InputRejected(f"data: got {type(document['data']).__name__}, wanted a JSON object")
    if document.get("planted") is not None:
        _check_text("planted", document["planted"])
    return document, parse_instant_us(document["time"], field="time")


def is_envelope(document: object) -> bool:
    """Whether `check_envelope` surely takes this decoded event, at a fifth of its cost. False says nothing."""
    try:
        return _is_plain(document, msgspec.convert(document, _Envelope))
    except msgspec.ValidationError:
        return False


def are_envelopes(documents: Sequence[object]) -> bool:
    """Whether `is_envelope` holds for each: one call of the decoder for all of them."""
    try:
        envelopes = msgspec.convert(documents, list[_Envelope])
    except msgspec.ValidationError:
        return False
    return all(map(_is_plain, documents, envelopes))


def _is_plain(document: Any, envelope: _Envelope) -> bool:  # Any: the decoder has found an object there
    said = document["time"]
    # The decoder reads more spellings than RFC 3339 has: offsets without a colon, fractions of any length.
    if said[-1] in "Zz":
        spelled = len(said) <= _LONGEST_UTC
    else:
        spelled = said[-6] in "+-" and said[-3] == ":" and len(said) <= _LONGEST_OFFSET
    return spelled and envelope.time.year not in _EDGE_YEARS and type(envelope.data) is dict


def _depth(document: object) -> int:
    """Levels of objects and arrays, without recursion; stops counting soon after `MAX_DEPTH`."""
    level, here = 0, [document]
    while here and level <= MAX_DEPTH:
        inner = [each for each in here if isinstance(each, dict | list)]
        level += bool(inner)
        here = [value for each in inner for value in (each.values() if isinstance(each, dict) else each)]
    return level


def _check_text(field: str, got: object) -> None:
    if not isinstance(got, str) or not got or len(got) > MAX_FIELD_CHARS:
        shown = repr(got)[:80]
        raise InputRejected(f"{field}: got {shown}, wanted a text of 1 to {MAX_FIELD_CHARS} characters")


def encode_event(event: Event) -> bytes:
    """Return the structured-mode JSON of an event; absent attributes are left out."""
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": format_us(event.time_us),
        "datacontenttype": "application/json",
        "data": event.data,
    }
    if event.receivedat_us is not None:
        document["receivedat"] = format_us(event.receivedat_us)
    for name in ("collectorid", "requestid", "eventsize", "enrichmentversion", "planted"):
        value = getattr(event, name)
        if value is not None:
            document[name] = value
    return orjson.dumps(document)
