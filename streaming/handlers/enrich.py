"""Validator and Enricher: events.raw -> events.enriched, or a letter that says why not.

Order of judgement: readable, known type, body fits its contract, not of the future, not seen before (S12), enrichment
succeeds. Ticks pass through in their own partition, and every enriched record carries the newest tick before it, so
that all later readers judge lateness alike (ADR 0006). All that a batch needs from the Enrichment API is asked before
anything is remembered, so before the transaction begins (S14): when the API is down, nothing has happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from headway.clock import monotonic_s
from headway.contracts import Domain
from headway.errors import ContractViolation
from headway.identities import Identities
from headway.letters import letter_about
from headway.ports import Enriched, Enrichment, EnrichmentAnswer, EnrichmentItem, EnrichmentRefused, Message, Record
from headway.ticks import TICK_BEFORE_HEADER, is_tick, tick_record, tick_us_of
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, STATE_DEDUPE
from headway.validation import Rejected, Valid, Validator
from streaming.runtime import Restore

# Says how many whole seconds ago the enrichment columns were fetched; absent below one.
ENRICHMENT_AGE_HEADER = "enrichment_age_s"
_TICK_KEY = b"tick"
_JSON = "application/json"
_LOG = structlog.get_logger()


@dataclass
class _Partition:
    """What one partition remembers: the newest tick, and the identities of the last 48 h."""

    tick_us: int | None = None
    identities: Identities = field(default_factory=Identities)
    # What every record says of the tick before it; nothing before the first.
    tick_headers: tuple[tuple[str, bytes], ...] = ()

    def take_tick(self, tick_us: int) -> None:
        """Have this tick as the newest."""
        self.tick_us = tick_us
        self.tick_headers = ((TICK_BEFORE_HEADER, b"%d" % tick_us),)


class _Draft(msgspec.Struct, frozen=True, gc=False):
    """A valid event written out, before it is asked whether it is a repeat; a letter where it was not enriched."""

    identity: bytes
    content: bytes
    time_us: int
    type_header: tuple[str, bytes]
    age_headers: tuple[tuple[str, bytes], ...]
    value: bytes | Rejected


class EnrichHandler:
    """The Validator/Enricher of one domain."""

    def __init__(self, domain: Domain, enrichment: Enrichment, restore: Restore) -> None:
        self._enrichment = enrichment
        self._restore = restore
        self._validator = Validator(domain)
        self._encode = msgspec.json.Encoder().encode
        self._types = {c.event_type: ("ce_type", c.event_type.encode()) for c in domain.contracts}
        self._partitions: dict[int, _Partition] = {}
        self.duplicates = 0

    def assigned(self, partitions: Sequence[int]) -> None:
        """Load the identities and tick of each partition from ``state.dedupe``."""
        for partition in partitions:
            self._partitions[partition] = _restored(partition, list(self._restore(STATE_DEDUPE, partition)))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return enriched events, letters, ticks and dedupe state for a batch.

        Raises:
            DependencyDown: the Enrichment API answers nothing; no state has changed, and the batch may be tried again.
        """
        step = self._enrichment.items_at_once
        drafts = [draft for at in range(0, len(batch), step) for draft in self._drafts(batch[at : at + step])]
        outputs: list[Record] = []
        first_offsets: dict[int, int] = {}
        for message, draft in zip(batch, drafts, strict=True):
            partition = message.partition
            state = self._partitions[partition]
            if partition not in first_offsets:
                first_offsets[partition] = message.offset
            if draft is None:
                outputs.extend(_tick(state, message))
            elif isinstance(draft, Rejected):
                outputs.append(_letter(message, draft))
            else:
                record = self._record(state, message, draft)
                if record is not None:
                    outputs.append(record)
        for partition, offset in first_offsets.items():
            for key, value in self._partitions[partition].identities.packs(offset):
                outputs.append(Record(STATE_DEDUPE, key, value, partition=partition))
        return outputs

    def _drafts(self, part: Sequence[Message]) -> list[_Draft | Rejected | None]:
        """Judge and enrich; None for a tick. What an event was decoded into is let go here, while it is in the cache."""
        judged = [self._judge(message) for message in part]
        valid = [each for each in judged if isinstance(each, Valid)]
        answers = iter(self._enrichment.enrich([EnrichmentItem(each.envelope.type, each.body) for each in valid]))
        now_s = monotonic_s()
        return [self._draft(each, next(answers), now_s) if isinstance(each, Valid) else each for each in judged]

    def _judge(self, message: Message) -> Valid | Rejected | None:
        if message.key is None and is_tick(message):
            return None
        try:
            return self._validator.judge(message.value or b"", written_ms=message.timestamp_ms)
        except Rejected as rejection:
            return rejection

    def _draft(self, event: Valid, answer: EnrichmentAnswer, now_s: float) -> _Draft:
        envelope = event.envelope
        age_headers: tuple[tuple[str, bytes], ...] = ()
        value: bytes | Rejected
        if type(answer) is Enriched:
            if now_s - answer.fetched_s >= 1:
                age_headers = ((ENRICHMENT_AGE_HEADER, b"%d" % answer.age_s(now_s)),)
            envelope.datacontenttype = _JSON
            envelope.enrichmentversion = answer.version
            envelope.data = msgspec.Raw(_joined(event.body_json, self._encode(answer.columns)))
            value = self._encode(envelope)
        else:
            value = _unenriched(event, answer)
        return _Draft(event.identity, event.content, event.time_us, self._types[envelope.type], age_headers, value)

    def _record(self, state: _Partition, message: Message, draft: _Draft) -> Record | None:
        known = state.identities.content(draft.identity)
        if known is not None:
            if known != draft.content:
                return _letter(message, _conflict(self._validator.judge(message.value or b"", written_ms=0)))
            self.duplicates += 1
            return None
        value = draft.value
        if isinstance(value, Rejected):
            return _letter(message, value)
        state.identities.remember(draft.identity, draft.content, time_us=draft.time_us, tick_us=state.tick_us)
        place = ("raw_offset", b"%d" % message.offset)
        headers = (draft.type_header, place, *state.tick_headers, *draft.age_headers)
        return Record(EVENTS_ENRICHED, message.key, value, headers, message.partition)


def _joined(body: bytes, columns: bytes) -> bytes:
    if columns == b"{}":
        return body
    return columns if body == b"{}" else body[:-1] + b"," + columns[1:]


def _tick(state: _Partition, message: Message) -> list[Record]:
    tick_us = tick_us_of(message)
    state.take_tick(tick_us)
    forget = [Record(STATE_DEDUPE, key, None, partition=message.partition) for key in state.identities.forget(tick_us)]
    remember = Record(STATE_DEDUPE, _TICK_KEY, b"%d" % tick_us, partition=message.partition)
    return [tick_record(EVENTS_ENRICHED, tick_us, partition=message.partition), remember, *forget]


def _conflict(event: Valid) -> Rejected:
    envelope = event.envelope
    detail = f"id: {envelope.id!r} of {envelope.source!r} came before with other content; first write wins"
    return Rejected("id-conflict", detail, path="$.id", contract=envelope.type)


def _unenriched(event: Valid, answer: EnrichmentAnswer) -> Rejected:
    if isinstance(answer, EnrichmentRefused):
        path = f"$.data.{answer.field}" if answer.field else "$.data"
        return Rejected("enrichment-refused", answer.detail, path=path, contract=event.envelope.type)
    detail, attempts = ("", 1) if isinstance(answer, Enriched) else (answer.detail, answer.attempts)
    return Rejected("enrichment-failed", detail, path="$.data", contract=event.envelope.type, attempts=attempts)


def _letter(message: Message, rejection: Rejected) -> Record:
    _LOG.info(
        "letter", reason=rejection.reason, detail=str(rejection), partition=message.partition, offset=message.offset
    )
    letter = letter_about(
        message,
        reason=rejection.reason,
        detail=str(rejection),
        stage="enricher",
        path=rejection.path,
        contract=rejection.contract,
        attempts=rejection.attempts,
    )
    return letter.to_record(EVENTS_ENRICHED_LETTERS)


def _restored(partition: int, kept: Sequence[Message]) -> _Partition:
    state = _Partition()
    ticks = [int(message.value or b"") for message in kept if message.key == _TICK_KEY]
    if ticks:
        state.take_tick(ticks[-1])
    for message in kept:
        if message.key is None:
            raise ContractViolation(f"{STATE_DEDUPE}[{partition}]@{message.offset}: no key")
        if message.key != _TICK_KEY:
            state.identities.restore(message.key, message.value or b"", tick_us=state.tick_us)
    return state
