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


class EnrichHandler:
    """The Validator/Enricher of one domain."""

    def __init__(self, domain: Domain, enrichment: Enrichment, restore: Restore) -> None:
        self._enrichment = enrichment
        self._restore = restore
        self._validator = Validator(domain)
        self._encode = msgspec.json.Encoder().encode
        self._types = {c.event_type: ("ce_type", c.event_type.encode()) for c in domain.contracts}
        self._columns: dict[int, tuple[Enriched, bytes]] = {}
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
        judged = [None if is_tick(message) else self._judge(message) for message in batch]
        valid = [each for each in judged if isinstance(each, Valid)]
        answers = iter(self._enrichment.enrich([EnrichmentItem(v.envelope.type, v.body) for v in valid]))
        now_s = monotonic_s()
        outputs: list[Record] = []
        first_offsets: dict[int, int] = {}
        for message, verdict in zip(batch, judged, strict=True):
            state = self._partitions[message.partition]
            first_offsets.setdefault(message.partition, message.offset)
            if verdict is None:
                outputs.extend(_tick(state, message))
            elif isinstance(verdict, Rejected):
                outputs.append(_letter(message, verdict))
            else:
                record = self._event(state, message, verdict, next(answers), now_s)
                if record is not None:
                    outputs.append(record)
        for partition, offset in first_offsets.items():
            for key, value in self._partitions[partition].identities.packs(offset):
                outputs.append(Record(STATE_DEDUPE, key, value, partition=partition))
        return outputs

    def _judge(self, message: Message) -> Valid | Rejected:
        try:
            return self._validator.judge(message.value or b"", written_ms=message.timestamp_ms)
        except Rejected as rejection:
            return rejection

    def _event(
        self, state: _Partition, message: Message, event: Valid, answer: EnrichmentAnswer, now_s: float
    ) -> Record | None:
        known = state.identities.content(event.identity)
        if known is not None and known == event.content:
            self.duplicates += 1
            return None
        if known is not None:
            return _letter(message, _conflict(event))
        if type(answer) is not Enriched:
            return _letter(message, _unenriched(event, answer), attempts=getattr(answer, "attempts", 1))
        state.identities.remember(event.identity, event.content, time_us=event.time_us, tick_us=state.tick_us)
        headers = [self._types[event.envelope.type], ("raw_offset", b"%d" % message.offset)]
        if state.tick_us is not None:
            headers.append((TICK_BEFORE_HEADER, b"%d" % state.tick_us))
        age_s = int(answer.age_s(now_s))
        if age_s:
            headers.append((ENRICHMENT_AGE_HEADER, b"%d" % age_s))
        value = self._enriched_json(event, answer)
        return Record(EVENTS_ENRICHED, message.key, value, tuple(headers), message.partition)

    def _enriched_json(self, event: Valid, answer: Enriched) -> bytes:
        envelope = event.envelope
        envelope.datacontenttype = _JSON
        envelope.enrichmentversion = answer.version
        envelope.data = msgspec.Raw(_joined(event.body_json, self._columns_json(answer)))
        return self._encode(envelope)

    def _columns_json(self, answer: Enriched) -> bytes:
        """Return the columns as JSON; an answer is used for thousands of events, and encoded once."""
        kept = self._columns.get(id(answer))
        if kept is None or kept[0] is not answer:
            if len(self._columns) >= _KEPT_ANSWERS:
                self._columns.clear()
            kept = self._columns[id(answer)] = (answer, self._encode(answer.columns))
        return kept[1]


# More than an hour's distinct inputs; above it the memory starts again from nothing.
_KEPT_ANSWERS = 20_000


def _joined(body: bytes, columns: bytes) -> bytes:
    if columns == b"{}":
        return body
    return columns if body == b"{}" else body[:-1] + b"," + columns[1:]


def _tick(state: _Partition, message: Message) -> list[Record]:
    tick_us = tick_us_of(message)
    state.tick_us = tick_us
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
    detail = "" if isinstance(answer, Enriched) else answer.detail
    return Rejected("enrichment-failed", detail, path="$.data", contract=event.envelope.type)


def _letter(message: Message, rejection: Rejected, *, attempts: int = 1) -> Record:
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
        attempts=attempts,
    )
    return letter.to_record(EVENTS_ENRICHED_LETTERS)


def _restored(partition: int, kept: Sequence[Message]) -> _Partition:
    state = _Partition()
    ticks = [int(message.value or b"") for message in kept if message.key == _TICK_KEY]
    state.tick_us = ticks[-1] if ticks else None
    for message in kept:
        if message.key is None:
            raise ContractViolation(f"{STATE_DEDUPE}[{partition}]@{message.offset}: no key")
        if message.key != _TICK_KEY:
            state.identities.restore(message.key, message.value or b"", tick_us=state.tick_us)
    return state
