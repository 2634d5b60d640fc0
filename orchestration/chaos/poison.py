"""Poison: what must never stop the Enricher, get lost in it, or pass it; one kind per way of being wrong (R6).

Every kind is made from a good event of domain flights, so that thousands of one kind differ, and says which letter it
must become. The hostile ones are good events of aircraft that `orchestration.chaos.hostile`, once planted, reacts to.
"""

import gzip
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
import orjson

from headway.events import Event, encode_event
from headway.letters import Reason
from headway.ports import Record
from headway.topics import EVENTS_RAW
from orchestration.chaos.hostile import TAILS

TYPE = "flight.departed.v1"
_HIGH_US = 4_102_444_800_000_000


class Poison(NamedTuple):
    """One bad record. ``value`` None is a tombstone; its letter keeps empty bytes."""

    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None

    @property
    def original(self) -> bytes:
        """The bytes its letter must hold."""
        return self.value or b""

    def record(self, *, partition: int) -> Record:
        """Return what to write to events.raw."""
        return Record(EVENTS_RAW, self.key, self.value, self.headers, partition)


class Kind(NamedTuple):
    """One way of being wrong.

    Attributes:
        make: gives the poison that this good event of type ``flight.departed.v1`` becomes.
        reason, path: of the letter; a record given up for what our code did on it has no path.
        after_good: the good event itself must have been accepted before.
        recoverable: whether the good event can be read out of the poison, so that fixing it and replaying make sense.
    """

    name: str
    reason: Reason
    path: str | None
    make: Callable[[Event], Poison]
    after_good: bool = False
    recoverable: bool = False


def kinds() -> tuple[Kind, ...]:
    """Return every kind that is judged; none needs anything planted."""
    return (*_no_json(), *_odd_json(), *_envelopes(), *_bodies(), *_unknown_values(), *_records())


def hostile_kinds() -> tuple[Kind, ...]:
    """Return the kinds on which our own code raises, hangs, takes memory or dies, once that is planted."""
    return tuple(
        Kind(
            f"hostile-{tail.lower()}",
            "handler-failed" if point is None else "crashed",
            None,
            partial(_changed, tail=tail),
            recoverable=True,
        )
        for tail, point in TAILS.items()
    )


def _kind(name: str, make: Callable[[bytes], bytes | None], reason: Reason = "unparseable", path: str = "$") -> Kind:
    return Kind(name, reason, path, lambda event: Poison(make(encode_event(event)), key=event.subject.encode()))


def _no_json() -> list[Kind]:
    return [
        _kind("not-json", lambda good: b"departed: " + good[:20]),
        _kind("empty", lambda _: b""),
        _kind("tombstone", lambda _: None),
        _kind("blank", lambda _: b" \n\t "),
        _kind("nul-bytes", lambda _: bytes(100)),
        _kind("truncated", lambda good: good[: len(good) // 2]),
        _kind("two-documents", lambda good: good + good),
        _kind("byte-order-mark", lambda good: b"\xef\xbb\xbf" + good),
        _kind("utf-16", lambda good: good.decode().encode("utf-16")),
        _kind("latin-1", lambda good: good.replace(b'"origin":"', b'"origin":"\xc9', 1)),
        _kind("schema-registry-magic", lambda good: b"\x00\x00\x00\x00\x07" + good),
        _kind("avro", lambda good: b"Obj\x01" + good),
        _kind("protobuf", lambda good: b"\x0a\x24" + good[:40]),
        _kind("gzip", lambda good: gzip.compress(good, mtime=0)),
        _kind("gzip-claimed", lambda good: b"\x1f\x8b\x08\x00" + good),
        _kind("zstd-bomb", lambda good: b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff" + good[:30]),
        _kind("csv", lambda _: b"carrier,flight,tail\nUA,1545,N14228\n"),
        _kind("xml", lambda _: b"<event><type>flight.departed.v1</type></event>"),
    ]


def _odd_json() -> list[Kind]:
    deep = b"[" * 10_000 + b"]" * 10_000
    return [
        _kind("array", lambda good: b"[" + good + b"]"),
        _kind("text", lambda good: orjson.dumps(good.decode())),
        _kind("number", lambda _: b"5"),
        _kind("lone-surrogate", lambda good: good.replace(b'"id":"', b'"id":"\\ud800', 1)),
        _kind("control-character", lambda good: good.replace(b'"id":"', b'"id":"\x01', 1)),
        _kind("nan", lambda good: _with_delay(good, b"NaN")),
        _kind("infinity", lambda good: _with_delay(good, b"Infinity")),
        _kind("depth-10000-body", lambda good: _with_delay(good, deep)),
        _kind("depth-10000-attribute", lambda good: good[:-1] + b',"nested":' + deep + b"}"),
        _kind("key-twice", lambda good: good[:-1] + b',"subject":"another"}'),
        _kind("key-twice-in-body", lambda good: good.replace(b'"carrier":', b'"carrier":"AA","carrier":')),
        _kind("too-large", lambda good: good[:-1] + b',"padding":"' + b"x" * 900_000 + b'"}'),
        _kind("1e400", lambda good: _with_delay(good, b"1e400"), "schema-violation", "$.data.dep_delay_min"),
        _kind("2-to-63", lambda good: _with_delay(good, b"9223372036854775808"), *_DELAY),
        _kind("5000-digits", lambda good: _with_delay(good, b"9" * 5000), *_DELAY),
    ]


_DELAY: tuple[Reason, str] = ("schema-violation", "$.data.dep_delay_min")


def _envelopes() -> list[Kind]:
    missing = [
        _envelope(f"no-{name}", "unparseable", f"$.{name}", {name: None})
        for name in ("specversion", "id", "source", "type", "subject", "time", "data")
    ]
    return [
        *missing,
        _envelope("specversion-0.3", "unparseable", "$.specversion", {"specversion": "0.3"}),
        _envelope("empty-id", "unparseable", "$.id", {"id": ""}),
        _envelope("long-subject", "unparseable", "$.subject", {"subject": "x" * 2000}),
        _envelope("unix-time", "unparseable", "$.time", {"time": 1_372_672_800}),
        _envelope("local-time", "unparseable", "$.time", {"time": "2013-07-01T10:00:00"}),
        _envelope("negative-year", "unparseable", "$.time", {"time": "-0044-03-15T10:00:00Z"}),
        _envelope("year-9999", "unparseable", "$.time", {"time": "9999-12-31T23:59:59-12:00"}),
        _envelope("year-2099", "future-time", "$.time", {"time": "2099-01-01T00:00:00Z"}),
        _envelope("data-base64", "unparseable", "$.data", {"data": "eyJhIjoxfQ=="}),
        _envelope("data-array", "unparseable", "$.data", {"data": [1, 2]}),
        _envelope("planted-object", "unparseable", "$.planted", {"planted": {"a": 1}}),
        _envelope("negative-size", "unparseable", "$.eventsize", {"eventsize": -1}),
        _envelope("unknown-type", "unknown-type", "$.type", {"type": "flight.vanished.v1"}),
        _envelope("future-schema", "unknown-type", "$.type", {"type": "flight.departed.v2"}),
        _envelope("reserved-type", "unknown-type", "$.type", {"type": "headway.tick"}),
    ]


def _bodies() -> list[Kind]:
    wrong = {
        **dict.fromkeys(("carrier", "tail", "origin", "dest", "sched_dep"), 5),
        "flight": "1545",
        "sched_arr": "later",
        "distance_mi": 1400.5,
        "dep_delay_min": "ten",
    }
    by_field = [_body(f"wrong-type-{name}", f"$.data.{name}", {name: value}) for name, value in wrong.items()]
    return [
        *by_field,
        _body("lower-case-carrier", "$.data.carrier", {"carrier": "ua"}),
        _body("sql", "$.data.carrier", {"carrier": "'; DROP TABLE events; --"}),
        _body("html", "$.data.dest", {"dest": "<script>alert(1)</script>"}),
        _body("csv-formula", "$.data.tail", {"tail": '=cmd|"/c calc"!A1'}),
        _body("long-text", "$.data.origin", {"origin": "x" * 200_000}),
        _body("extra-field", "$.data.seat", {"seat": "12A"}),
        _body("null-field", "$.data.distance_mi", {"distance_mi": None}),
        _body("delay-of-years", "$.data.dep_delay_min", {"dep_delay_min": 10_000_000}),
        _body("backwards", "$.data.sched_arr", {"sched_arr": "2013-01-01T00:00:00Z"}),
        Kind(
            "missing-field",
            "schema-violation",
            "$.data.dep_delay_min",
            lambda event: _poison(event, msgspec.structs.replace(event, data=_without(event.data, "dep_delay_min"))),
        ),
    ]


def _unknown_values() -> list[Kind]:
    conflict = Kind("id-conflict", "id-conflict", "$.id", lambda event: _changed(event, dep_delay_min=4999), True)
    return [
        _body("unknown-airport", "$.data.dest", {"dest": "QQQ"}, "enrichment-refused"),
        _body("unknown-carrier", "$.data.carrier", {"carrier": "QQ"}, "enrichment-refused"),
        conflict,
    ]


def _records() -> list[Kind]:
    """Records whose harm is in key and headers; what makes a letter of them is told by their bodies."""
    bad = {"distance_mi": -1}
    bomb = tuple((f"header-{number}", b"x") for number in range(1000))
    odd = {
        "header-bomb": bomb,
        "long-header": (("long", b"x" * 200_000),),
        "header-not-text": (("ce_type", b"\xff\xfe"), ("letter_id", b"\xff")),
        "forged-letter": (("letter_reason", b"unparseable"), ("letter_attempts", b"many")),
    }
    path = "$.data.distance_mi"
    with_headers = [
        Kind(name, "schema-violation", path, partial(_with_headers, headers=headers, changes=bad))
        for name, headers in odd.items()
    ]
    tick = (("ce_type", b"headway.tick"),)
    return [
        *with_headers,
        Kind("no-key", "schema-violation", "$.data.distance_mi", lambda e: _changed(e, **bad)._replace(key=None)),
        Kind("forged-tick", "unparseable", "$", lambda e: Poison(b"noon " + e.id.encode(), tick)),
        Kind("tick-of-the-future", "unparseable", "$", lambda e: Poison(b"%d" % (_HIGH_US + e.time_us % 10**9), tick)),
    ]


def _with_headers(event: Event, *, headers: tuple[tuple[str, bytes], ...], changes: Mapping[str, object]) -> Poison:
    return _changed(event, **changes)._replace(headers=headers)


def _envelope(name: str, reason: Reason, path: str, changes: Mapping[str, object]) -> Kind:
    def make(event: Event) -> Poison:
        document = orjson.loads(encode_event(event)) | changes
        kept = {key: value for key, value in document.items() if value is not None}
        return Poison(orjson.dumps(kept), key=event.subject.encode())

    return Kind(name, reason, path, make)


def _body(name: str, path: str, changes: Mapping[str, object], reason: Reason = "schema-violation") -> Kind:
    return Kind(name, reason, path, lambda event: _changed(event, **changes), recoverable=True)


def _changed(event: Event, **changes: object) -> Poison:
    return _poison(event, msgspec.structs.replace(event, data={**event.data, **changes}))


def _poison(event: Event, bad: Event) -> Poison:
    return Poison(encode_event(bad), key=event.subject.encode())


def _without(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def _with_delay(good: bytes, value: bytes) -> bytes:
    head, _, rest = good.partition(b'"dep_delay_min":')
    end = rest.index(b"}")
    return head + b'"dep_delay_min":' + value + rest[end:]
