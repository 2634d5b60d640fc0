"""The Validator: bytes of ``events.raw`` in, an event whose body fits its contract out, or the reason why not.

Pure. The envelope is decoded once with the body left raw, the body once by its contract, straight into the type. What
bites: whatever passes here is written to the lake and to the stores, so every value must fit a column: integers 64
bits, instants the years 2 to 9998 (a zone may push an edge over), texts valid Unicode.
"""

import json
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from headway.clock import MICROSECOND, from_us, to_us
from headway.contracts import Domain
from headway.errors import InputRejected
from headway.events import FUTURE_LIMIT_US, MAX_EVENT_BYTES, MAX_FIELD_CHARS, REQUIRED, parse_event
from headway.letter_causes import failing_path
from headway.letters import Reason

_FUTURE_LIMIT = FUTURE_LIMIT_US * MICROSECOND
# What the Collector's stamps add to an event of the greatest size it takes.
MAX_RAW_BYTES = MAX_EVENT_BYTES + 4096
# A letter's detail is for people; a hostile field name may be as long as the event.
MAX_DETAIL_CHARS = 500

_INT64_MAX = 2**63 - 1
_YEARS = (1, 9999)

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARS)]
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A CloudEvent as the Collector writes it, in the order in which it is written again; ``data`` is left raw."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    subject: _Text
    time: _Instant
    datacontenttype: str | None = None
    data: msgspec.Raw
    receivedat: _Instant | None = None
    collectorid: str | None = None
    requestid: str | None = None
    eventsize: Annotated[int, msgspec.Meta(ge=0, le=_INT64_MAX)] | None = None
    enrichmentversion: str | None = None
    planted: str | None = None


_ATTRIBUTES = Envelope.__struct_fields__


class Rejected(Exception):
    """An event that becomes a letter; ``path`` says where in the event, as a JSON path."""

    def __init__(
        self, reason: Reason, detail: str, *, path: str = "$", contract: str | None = None, attempts: int = 1
    ) -> None:
        super().__init__(detail if len(detail) <= MAX_DETAIL_CHARS else detail[: MAX_DETAIL_CHARS - 3] + "...")
        self.reason = reason
        self.path = path[:MAX_DETAIL_CHARS]
        self.contract = contract
        self.attempts = attempts


class Valid(msgspec.Struct, frozen=True, gc=False):
    """An event that fits its contract.

    Attributes:
        body_json: the body in one spelling: field order, number forms and instants are the contract's.
        identity: 16 bytes that stand for (source, id) (S12).
        content: 8 bytes that differ when the event says something else.
    """

    envelope: Envelope
    body: msgspec.Struct
    body_json: bytes
    time_us: int
    identity: bytes
    content: bytes


class _Judge(NamedTuple):
    """What judges the bodies of one type."""

    decode: Any  # Decoder.decode; its result is the contract's Struct
    fields: int
    exact_count: bool
    unbounded: tuple[str, ...]
    instants: tuple[str, ...]


class Validator:
    """Judges events by the contracts of one domain."""

    def __init__(self, domain: Domain) -> None:
        self._judges = {contract.event_type: _judge(contract.body) for contract in domain.contracts}
        self._decode = msgspec.json.Decoder(Envelope).decode
        self._encode = msgspec.json.Encoder().encode

    def judge(self, raw: bytes, *, written_ms: int) -> Valid:
        """Return the valid event of one record.

        Args:
            raw: the record's value.
            written_ms: the record's own time; stands in for ``receivedat`` when the Collector did not set it. Not
                above 0 means unknown.

        Raises:
            Rejected: with a reason of ``unparseable``, ``unknown-type``, ``schema-violation`` or ``future-time``.
        """
        envelope = self._envelope(raw)
        judge = self._judge_of(envelope.type)
        body = _typed(envelope.type, envelope.data, judge)
        if raw.count(b'":') != _keys_of(envelope) + judge.fields or not judge.exact_count:
            _check_unique(raw)
        time, received = envelope.time, envelope.receivedat
        if time.tzinfo is not UTC or time.year in _YEARS:
            time = envelope.time = _utc(time, "time")
        if received is not None:
            if received.tzinfo is not UTC or received.year in _YEARS:
                received = envelope.receivedat = _utc(received, "receivedat")
        elif written_ms > 0:
            received = from_us(written_ms * 1000)
        if received is not None and time > received and time - received > _FUTURE_LIMIT:
            raise Rejected(
                "future-time",
                f"time: got {time.isoformat()}, received at {received.isoformat()}; wanted at most "
                f"{_FUTURE_LIMIT} ahead. Correct the producer's clock and replay",
                path="$.time",
                contract=envelope.type,
            )
        body_json = self._encode(body)
        time_us = to_us(time)
        said = f"{envelope.type}\x1f{envelope.subject}\x1f{time_us}\x1f".encode() + body_json
        identity = f"{envelope.source}\x1f{envelope.id}".encode()
        return Valid(
            envelope,
            body,
            body_json,
            time_us,
            blake2b(identity, digest_size=16).digest(),
            blake2b(said, digest_size=8).digest(),
        )

    def judge_body(self, event_type: str, data: msgspec.Raw) -> msgspec.Struct:
        """Return the typed body of one event, whatever its envelope; raises `Rejected` as `judge` does."""
        return _typed(event_type, data, self._judge_of(event_type))

    def _judge_of(self, event_type: str) -> _Judge:
        judge = self._judges.get(event_type)
        if judge is None:
            raise Rejected(
                "unknown-type",
                f"type: got {event_type[:100]!r}, wanted one of {sorted(self._judges)}; publish its contract first",
                path="$.type",
            )
        return judge

    def _envelope(self, raw: bytes) -> Envelope:
        if len(raw) > MAX_RAW_BYTES:
            raise Rejected("unparseable", f"event: got {len(raw)} bytes, wanted at most {MAX_EVENT_BYTES}")
        try:
            # The decoder does not look into what it skips, so bytes that are no text are found here.
            return self._decode(raw if raw.isascii() else str(raw, "utf-8"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _unparseable(raw, error) from error


def _typed(event_type: str, data: msgspec.Raw, judge: _Judge) -> msgspec.Struct:
    try:
        body: msgspec.Struct = judge.decode(data)
    except msgspec.ValidationError as error:
        if bytes(data)[:1] != b"{":
            raise Rejected("unparseable", f"data: {error}; wanted a JSON object", path="$.data") from error
        detail = f"{event_type}: {error}"
        path = failing_path(str(error), inside="$.data") or "$.data"
        raise Rejected("schema-violation", detail, path=path, contract=event_type) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("unparseable", f"data: not JSON ({error})", path="$.data", contract=event_type) from error
    for name in judge.unbounded:
        value = getattr(body, name)
        if value is not None and not -_INT64_MAX <= value <= _INT64_MAX:
            detail = f"{event_type}: {name} is beyond 64 bits - at `$.{name}`"
            raise Rejected("schema-violation", detail, path=f"$.data.{name}", contract=event_type)
    for name in judge.instants:
        value = getattr(body, name)
        if value is not None and value.year in _YEARS:
            detail = f"{event_type}: {name} got year {value.year}, wanted 2 to 9998 - at `$.{name}`"
            raise Rejected("schema-violation", detail, path=f"$.data.{name}", contract=event_type)
    return body


def _judge(body: type[msgspec.Struct]) -> _Judge:
    info = msgspec.inspect.type_info(body)
    assert isinstance(info, msgspec.inspect.StructType)
    unbounded, instants = [], []
    for each in info.fields:
        kind = _bare(each.type)
        for member in map(_bare, kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)):
            if isinstance(member, msgspec.inspect.IntType) and (member.ge is None or member.le is None):
                unbounded.append(each.name)
            if isinstance(member, msgspec.inspect.DateTimeType):
                instants.append(each.name)
    return _Judge(
        decode=msgspec.json.Decoder(body).decode,
        fields=len(info.fields),
        exact_count=all(each.required for each in info.fields),
        unbounded=tuple(unbounded),
        instants=tuple(instants),
    )


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return the type below a description or a unit, which would hide it."""
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind


def _keys_of(envelope: Envelope) -> int:
    return len(REQUIRED) + (
        (envelope.datacontenttype is not None)
        + (envelope.receivedat is not None)
        + (envelope.collectorid is not None)
        + (envelope.requestid is not None)
        + (envelope.eventsize is not None)
        + (envelope.enrichmentversion is not None)
        + (envelope.planted is not None)
    )


def _utc(instant: datetime, name: str) -> datetime:
    if instant.year in _YEARS:
        raise Rejected("unparseable", f"{name}: got year {instant.year}, wanted 2 to 9998", path=f"$.{name}")
    return instant.astimezone(UTC)


def _unparseable(raw: bytes, error: Exception) -> Rejected:
    """Return the refusal in the Collector's words, which name field, got and wanted; else in the decoder's."""
    try:
        parse_event(raw)
    except InputRejected as refusal:
        field = str(refusal).partition(":")[0]
        return Rejected("unparseable", str(refusal), path=f"$.{field}" if field in _ATTRIBUTES else "$")
    return Rejected("unparseable", f"event: {error}", path=failing_path(str(error)) or "$")


def _check_unique(raw: bytes) -> None:
    """Raise `Rejected` when a key stands twice in one object: readers differ in which one they take (RFC 8259, 4)."""
    try:
        json.loads(raw, object_pairs_hook=_unique_pairs)
    except _KeyTwiceError as error:
        detail = f"event: key {str(error)[:100]!r} stands twice in one object; wanted each once"
        raise Rejected("unparseable", detail) from error
    except (ValueError, RecursionError) as error:
        raise Rejected("unparseable", f"event: not JSON ({error})") from error


class _KeyTwiceError(Exception):
    """A key that stands twice."""


def _unique_pairs(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _KeyTwiceError(key)
        seen.add(key)
