"""Validator and Enricher: events.raw -> events.enriched, or a letter that says why not.

Order of judgement: readable, known type, body fits its contract, not seen before (S12), enrichment succeeds. Ticks
pass through in their own partition, and every enriched record carries the newest tick before it, so that all later
readers judge lateness alike (ADR 0006).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import orjson
import structlog

from headway.clock import HOUR_US
from headway.contracts import Domain, Reference
from headway.errors import ContractViolation, InputRejected
from headway.events import Event, encode_event, parse_event
from headway.letters import Letter, Reason
from headway.ports import Message, Record
from headway.ticks import TICK_BEFORE_HEADER, is_tick, tick_record, tick_us_of
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, STATE_DEDUPE
from streaming.runtime import Restore

# A client's retry budget is minutes; 48 h of event time also covers a producer that replays a day (S12).
DEDUPE_HORIZON_US = 48 * HOUR_US
_TICK_KEY = b"tick"
_LOG = structlog.get_logger()


@dataclass
class _Partition:
    """What one partition remembers: the newest tick, and (time, content hash) by identity."""

    tick_us: int | None = None
    seen: dict[bytes, tuple[int, str]] = field(default_factory=dict)


class Rejected(Exception):
    """An event that becomes a letter."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class EnrichHandler:
    """The Validator/Enricher of one domain."""

    def __init__(self, domain: Domain, reference: Reference, restore: Restore) -> None:
        self._reference = reference
        self._restore = restore
        self._decoders = {c.event_type: msgspec.json.Decoder(c.body) for c in domain.contracts}
        self._partitions: dict[int, _Partition] = {}
        self.duplicates = 0

    def assigned(self, partitions: Sequence[int]) -> None:
        """Load the identities and tick of each partition from ``state.dedupe``."""
        for partition in partitions:
            state = _Partition()
            for message in self._restore(STATE_DEDUPE, partition):
                _restore_one(state, message)
            self._partitions[partition] = state

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return enriched events, letters, ticks and dedupe state for a batch."""
        outputs: list[Record] = []
        for message in batch:
            state = self._partitions[message.partition]
            outputs.extend(self._tick(state, message) if is_tick(message) else self._event(state, message))
        return outputs

    def _tick(self, state: _Partition, message: Message) -> list[Record]:
        tick_us = tick_us_of(message)
        state.tick_us = tick_us
        expired = [identity for identity, (time_us, _) in state.seen.items() if time_us < tick_us - DEDUPE_HORIZON_US]
        for identity in expired:
            del state.seen[identity]
        forget = [
            Record(topic=STATE_DEDUPE, key=identity, value=None, partition=message.partition) for identity in expired
        ]
        remember = Record(topic=STATE_DEDUPE, key=_TICK_KEY, value=b"%d" % tick_us, partition=message.partition)
        return [tick_record(EVENTS_ENRICHED, tick_us, partition=message.partition), remember, *forget]

    def _event(self, state: _Partition, message: Message) -> list[Record]:
        try:
            event = _parse(message.value or b"")
            body = self._body(event)
            identity, content = _identity(event)
            known = state.seen.get(identity)
            if known is not None and known[1] == content:
                self.duplicates += 1
                return []
            if known is not None:
                return [_letter(message, _conflict(event))]
            enriched = self._enrich(event, body)
        except Rejected as rejection:
            return [_letter(message, rejection)]
        state.seen[identity] = (event.time_us, content)
        headers = [("ce_type", event.type.encode()), ("raw_offset", b"%d" % message.offset)]
        if state.tick_us is not None:
            headers.append((TICK_BEFORE_HEADER, b"%d" % state.tick_us))
        remembered = orjson.dumps([event.time_us, content])
        return [
            Record(
                topic=EVENTS_ENRICHED,
                key=message.key,
                value=encode_event(enriched),
                headers=tuple(headers),
                partition=message.partition,
            ),
            Record(topic=STATE_DEDUPE, key=identity, value=remembered, partition=message.partition),
        ]

    def _body(self, event: Event) -> msgspec.Struct:
        decoder = self._decoders.get(event.type)
        if decoder is None:
            raise Rejected(
                "unknown-type",
                f"type: got {event.type!r}, wanted one of {sorted(self._decoders)}; publish its contract first",
            )
        try:
            return decoder.decode(orjson.dumps(event.data))
        except msgspec.ValidationError as error:
            raise Rejected("schema-violation", f"{event.type}: {error}") from error

    def _enrich(self, event: Event, body: msgspec.Struct) -> Event:
        try:
            columns = self._reference.enrich(body)
        except InputRejected as refusal:
            raise Rejected("enrichment-refused", str(refusal)) from refusal
        data = {**msgspec.to_builtins(body), **columns}
        return msgspec.structs.replace(event, data=data, enrichmentversion=self._reference.version)


def _parse(raw: bytes) -> Event:
    try:
        return parse_event(raw)
    except InputRejected as refusal:
        raise Rejected("unparseable", str(refusal)) from refusal


def _identity(event: Event) -> tuple[bytes, str]:
    content = orjson.dumps([event.type, event.subject, event.time_us, event.data], option=orjson.OPT_SORT_KEYS)
    return f"{event.source}\x1f{event.id}".encode(), hashlib.sha256(content).hexdigest()[:16]


def _conflict(event: Event) -> Rejected:
    detail = f"id: {event.id!r} of {event.source!r} came before with other content; first write wins"
    return Rejected("id-conflict", detail)


def _letter(message: Message, rejection: Rejected) -> Record:
    _LOG.info(
        "letter", reason=rejection.reason, detail=str(rejection), partition=message.partition, offset=message.offset
    )
    letter = Letter(
        reason=rejection.reason,
        detail=str(rejection),
        stage="enricher",
        original=message.value or b"",
        key=message.key,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
    )
    return letter.to_record(EVENTS_ENRICHED_LETTERS)


def _restore_one(state: _Partition, message: Message) -> None:
    if message.key is None:
        raise ContractViolation(f"{STATE_DEDUPE}[{message.partition}]@{message.offset}: no key")
    if message.value is None:
        state.seen.pop(message.key, None)
    elif message.key == _TICK_KEY:
        state.tick_us = int(message.value)
    else:
        time_us, content = orjson.loads(message.value)
        state.seen[message.key] = (time_us, content)
