"""The event envelope: CloudEvents 1.0 on the wire, one frozen value inside.

Only top-level fields are judged here (the Collector's duty); bodies are judged against their contract by the
Validator. An event's identity is (source, id) (SEMANTICS S12).
"""

from typing import Any

import msgspec
import orjson

from headway.clock import MINUTE_US, format_us, parse_instant_us
from headway.errors import InputRejected

# A tick says "all events with time <= this one's have been sent" (S2). It travels through the event topics, to every
# partition, with this type; it is never a row, a letter or part of the ledger.
TICK_TYPE = "headway.tick"
TYPE_HEADER = "ce_type"

REQUIRED = ("specversion", "id", "source", "type", "subject", "time", "data")
MAX_EVENT_BYTES = 256 * 1024
MAX_FIELD_CHARS = 1024
# Clocks of producers differ by seconds, a broken one by hours. A row of the future would stand in the online store and
# refuse every real one until its time has come (S4), so this is minutes.
FUTURE_LIMIT_US = 5 * MINUTE_US


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
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputRejected(f"event: not JSON ({error}); wanted one CloudEvents 1.0 object") from error
    return event_from(document)


def event_from(document: object) -> Event:
    """Return the event of one decoded CloudEvent.

    Raises:
        InputRejected: see ``parse_event``.
    """
    if not isinstance(document, dict):
        raise InputRejected(f"event: got {type(document).__name__}, wanted one CloudEvents 1.0 JSON object")
    for field in REQUIRED:
        if field not in document:
            raise InputRejected(
                f"{field}: missing (found: {', '.join(sorted(map(str, document))) or 'nothing'}); every event needs it"
            )
    for field in ("id", "source", "type", "subject", "time"):
        _check_text(field, document[field])
    if document["specversion"] != "1.0":
        raise InputRejected(f"specversion: got {document['specversion']!r}, wanted '1.0'")
    if not isinstance(document["data"], dict):
        raise InputRejected(f"data: got {type(document['data']).__name__}, wanted a JSON object")
    for field in ("receivedat", "collectorid", "requestid", "enrichmentversion", "planted"):
        if document.get(field) is not None:
            _check_text(field, document[field])
    size = document.get("eventsize")
    if size is not None and (type(size) is not int or not 0 <= size < 2**63):
        raise InputRejected(f"eventsize: got {str(size)[:80]!r}, wanted a whole number of bytes")
    received = document.get("receivedat")
    return Event(
        id=document["id"],
        source=document["source"],
        type=document["type"],
        subject=document["subject"],
        time_us=parse_instant_us(document["time"], field="time"),
        data=document["data"],
        receivedat_us=None if received is None else parse_instant_us(received, field="receivedat"),
        collectorid=document.get("collectorid"),
        requestid=document.get("requestid"),
        eventsize=document.get("eventsize"),
        enrichmentversion=document.get("enrichmentversion"),
        planted=document.get("planted"),
    )


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
