"""One event from its bytes to the record that is stored: judged at the top level, stamped, otherwise untouched.

The stamp is spliced in before the last brace, so what a producer sent is what the log holds, byte for byte: no number
changes its size on the way. What bites: names that occur twice. Readers disagree on which one counts, so an event that
has any is refused; the cheap proof that there is none is that encoding the event again gives the same bytes, white space
aside.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from headway.clock import Clock
from headway.errors import InputRejected
from headway.events import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    TICK_TYPE,
    are_envelopes,
    check_depth,
    check_envelope,
    decode_json,
    is_envelope,
)
from headway.ports import Record
from headway.topics import EVENTS_RAW
from serving.collector_limits import MAX_BATCH_EVENTS
from serving.collector_modes import SINGLE, split_json

# Said by the Collector or later stages alone; whatever a producer says there is replaced.
RESERVED = frozenset({"receivedat", "collectorid", "requestid", "eventsize", "enrichmentversion"})
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CONTENT_TYPE = ("content-type", SINGLE.encode())


class TooLarge(Exception):
    """An event beyond the limit: 413, counted, not a letter (S22)."""


class Stamp:
    """What the Collector says about the events of one request."""

    def __init__(self, *, clock: Clock, collector_id: str, request_id: str, traceparent: bytes | None) -> None:
        said = {
            "receivedat": clock.now(),
            "collectorid": collector_id,
            "requestid": request_id,
        }
        self._tail = b"," + orjson.dumps(said, option=orjson.OPT_UTC_Z)[1:]
        self._headers = (_CONTENT_TYPE,) if traceparent is None else (_CONTENT_TYPE, ("traceparent", traceparent))

    def accept(self, raw: bytes) -> tuple[Record, str]:
        """Return the record of one structured JSON event, and the event's id.

        Raises:
            InputRejected: a top-level field is missing or wrong; names field, got, wanted.
            TooLarge: it is longer than `MAX_EVENT_BYTES`.
        """
        _check_size(raw)
        document = decode_json(raw)
        written = orjson.dumps(document)
        if written != raw and written != _without_space(raw):
            _check_unique(raw)
        if not is_envelope(document):
            check_envelope(document)
        return self._record(document, raw)

    def accept_all(self, body: bytes) -> list[tuple[Record, str]] | None:
        """Return the records and ids of a JSON batch, or None when any of its events needs a closer look.

        One look at the whole body instead of three at each event: only for a batch whose JSON is spelled as ours is.
        """
        try:
            documents = orjson.loads(body)
            if not isinstance(documents, list) or len(documents) > MAX_BATCH_EVENTS:
                return None
            raws: Sequence[bytes] = list(map(orjson.dumps, documents))
            written = b"[%b]" % b",".join(raws)
            if written != body:
                if written != _without_space(body):
                    return None
                raws = split_json(body)
            if not are_envelopes(documents):
                return None
            _check_size(max(raws, key=len, default=b""))
            _check_depths(body, documents, raws)
            return [self._record(document, raw) for document, raw in zip(documents, raws, strict=True)]
        except (orjson.JSONDecodeError, orjson.JSONEncodeError, InputRejected, TooLarge):
            return None

    def _record(self, event: dict[str, Any], raw: bytes) -> tuple[Record, str]:
        kind: str = event["type"]
        if kind.startswith("headway."):
            raise InputRejected(f"type: got {kind!r}; headway.* ({TICK_TYPE}) is reserved for Headway itself")
        size, event_id = len(raw), event["id"]
        if not RESERVED.isdisjoint(event):
            raw = _without_reserved(raw)
        record = Record(
            EVENTS_RAW,
            event["subject"].encode(),
            raw.rstrip()[:-1] + b',"eventsize":%d' % size + self._tail,
            (
                ("ce_type", kind.encode()),
                ("ce_id", event_id.encode()),
                ("ce_source", event["source"].encode()),
                *self._headers,
            ),
        )
        return record, event_id


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_EVENT_BYTES:
        raise TooLarge(f"event: {len(raw)} bytes, wanted at most {MAX_EVENT_BYTES}")


def _check_depths(body: bytes, events: Sequence[dict[str, Any]], raws: Sequence[bytes]) -> None:
    # Each event has two brackets at least, so none is deeper than that and what all together have besides.
    besides = body.count(b"{") + body.count(b"[") - 1 - 2 * len(events)
    if besides + 2 > MAX_DEPTH:
        for event, raw in zip(events, raws, strict=True):
            check_depth(raw, event)


def _without_space(raw: bytes) -> bytes:
    return msgspec.json.format(raw, indent=-1)


def _without_reserved(raw: bytes) -> bytes:
    fields = _RAW_FIELDS.decode(raw)
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in RESERVED})


def _check_unique(raw: bytes) -> None:
    # Numbers stay text: what counts here are names, and Python refuses numbers of more than 4,300 digits.
    json.loads(raw, object_pairs_hook=_unique, parse_int=str, parse_float=str)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputRejected(
            f"{twice[:80]}: given more than once; names must be unique, as readers disagree on which counts"
        )
    return found
