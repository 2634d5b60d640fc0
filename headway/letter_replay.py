"""Putting letters right: fix, replay, discard, each as records to write in one transaction.

A replayed letter is a new acceptance (S13): the event keeps its (source, id), so a duplicate is still found (S12); it
is received now, by ``letters``, under the letter's id as request id, and a header names the letter. The event and the
letter's fate are one transaction, so a replay that is cut short and repeated puts every event back once.

What cannot be replayed: an event that its contract still refuses (fix it first), and an ``id-conflict`` under the id
that is taken (give it another). A sink letter's event stands in events.enriched already: `headway.letter_offers`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from headway.clock import format_us
from headway.contracts import Domain
from headway.errors import InputRejected
from headway.events import MAX_EVENT_BYTES, TYPE_HEADER, Event, encode_event, parse_event
from headway.letter_fates import Fate, Step
from headway.letters import LETTER_ID_HEADER, Letter, any_letter, letter_place
from headway.ports import Message, Record
from headway.topics import EVENTS_RAW
from headway.validation import Rejected, Validator

# `collectorid` of what came back from a letter.
COLLECTOR = "letters"
# A transaction costs about 20 ms; a kill repeats at most this many letters' work.
BATCH_LETTERS = 500
BATCH_BYTES = 8 * 1024 * 1024

# ``sink`` is what a plan says of a sink letter; what became of it is ``offer``, ``refused-again`` or ``no-offer``.
Verdict = Literal[
    "replay",
    "replayed-before",
    "discarded",
    "needs-fix",
    "needs-new-id",
    "sink",
    "offer",
    "refused-again",
    "no-offer",
]


@dataclass(frozen=True, kw_only=True)
class Filed:
    """A letter with its id and what became of it."""

    id: str
    letter: Letter
    fate: Fate
    written_us: int

    @property
    def body(self) -> bytes:
        """What a replay would put back: the repair, or the original when there is none."""
        return self.letter.original if self.fate.body is None else self.fate.body


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a replay does with one letter: the records to write together, or the reason why it does nothing."""

    id: str
    verdict: Verdict
    why: str = ""
    event: Event | None = None
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Who does something to letters, when and why."""

    by: str
    at_us: int
    note: str = ""

    def step(self, state: Literal["fixed", "replayed", "discarded"], body: bytes | None, event: Event | None) -> Step:
        """Return the step that this person takes."""
        return Step(
            state=state,
            by=self.by,
            at=format_us(self.at_us),
            note=self.note,
            sha256=None if body is None else hashlib.sha256(body).hexdigest(),
            event=None if event is None else (event.source, event.id),
        )


class Judges:
    """What an event must pass before it may be put back: the envelope's rules and its contract, of any domain."""

    def __init__(self, domains: Iterable[Domain]) -> None:
        self._by_type: dict[str, Validator] = {}
        for domain in domains:
            validator = Validator(domain)
            self._by_type |= {contract.event_type: validator for contract in domain.contracts}

    def event(self, raw: bytes, *, at_us: int) -> Event:
        """Return the event that the Collector and the Validator would accept now.

        Raises:
            InputRejected: one of them would not; names field, got, wanted.
        """
        if len(raw) > MAX_EVENT_BYTES:
            raise InputRejected(f"event: got {len(raw)} bytes, wanted at most {MAX_EVENT_BYTES}")
        event = parse_event(raw)
        validator = self._by_type.get(event.type)
        if validator is None:
            raise InputRejected(
                f"type: got {event.type!r}, wanted one of {sorted(self._by_type)}; publish its contract first"
            )
        accepted = msgspec.structs.replace(event, receivedat_us=at_us, enrichmentversion=None)
        try:
            validator.judge(encode_event(accepted), written_ms=at_us // 1000)
        except Rejected as rejection:
            raise InputRejected(str(rejection)) from rejection
        return accepted


def file_letters(messages: Iterable[Message], fates: Mapping[str, Fate]) -> Iterator[Filed]:
    """Yield the letters of letter topics' records, each with its fate."""
    for message in messages:
        name = letter_place(message).id
        fate = fates.get(name) or Fate(letter=name)
        yield Filed(id=name, letter=any_letter(message), fate=fate, written_us=message.timestamp_ms * 1000)


def fix(filed: Filed, body: bytes, judges: Judges, signature: Signature) -> Fate:
    """Return the fate of a letter after its event was repaired; replaying it is another step.

    Raises:
        InputRejected: the repaired event would be refused again, or the letter cannot be repaired.
    """
    if filed.letter.kind == "sink":
        raise InputRejected(f"{filed.id}: {_ACCEPTED}")
    event = judges.event(body, at_us=signature.at_us)
    if filed.letter.reason == "id-conflict" and _identity(event) == _identity_of(filed.letter.original):
        raise InputRejected(f"{filed.id}: {_CONFLICT}")
    return filed.fate.then(signature.step("fixed", body, event), body=body)


def discard(filed: Filed, signature: Signature) -> Fate:
    """Return the fate of a letter that nobody will replay.

    Raises:
        InputRejected: it was replayed or discarded before.
    """
    return filed.fate.then(signature.step("discarded", None, None))


def plan_replay(filed: Filed, judges: Judges, signature: Signature) -> Replay:
    """Return what a replay does with one letter."""
    letter, state = filed.letter, filed.fate.state
    if state == "replayed":
        return Replay(id=filed.id, verdict="replayed-before")
    if state == "discarded":
        return Replay(id=filed.id, verdict="discarded", why="discarded; `fix` it to take that back")
    if letter.kind == "sink":
        return Replay(id=filed.id, verdict="sink")
    if letter.reason == "id-conflict" and filed.fate.body is None:
        return Replay(id=filed.id, verdict="needs-new-id", why=_CONFLICT)
    try:
        event = judges.event(filed.body, at_us=signature.at_us)
    except InputRejected as refusal:
        return Replay(id=filed.id, verdict="needs-fix", why=str(refusal))
    event = msgspec.structs.replace(
        event, collectorid=COLLECTOR, requestid=filed.id, eventsize=event.eventsize or len(filed.body)
    )
    put_back = Record(
        topic=EVENTS_RAW,
        key=event.subject.encode(),
        value=encode_event(event),
        headers=(
            (TYPE_HEADER, event.type.encode()),
            ("ce_id", event.id.encode()),
            ("ce_source", event.source.encode()),
            (LETTER_ID_HEADER, filed.id.encode()),
        ),
    )
    fate = filed.fate.then(signature.step("replayed", filed.body, event))
    return Replay(id=filed.id, verdict="replay", event=event, records=(put_back, fate.to_record()))


def offered(filed: Filed, signature: Signature) -> Fate:
    """Return the fate of a sink letter whose record its store has taken after all."""
    try:
        event = parse_event(filed.letter.original)
    except InputRejected:
        event = None
    return filed.fate.then(signature.step("replayed", filed.letter.original, event))


def grouped(changes: Iterable[tuple[Record, ...]]) -> Iterator[list[tuple[Record, ...]]]:
    """Yield changes in groups to be written in one transaction each; what belongs together is never split."""
    group: list[tuple[Record, ...]] = []
    size = 0
    for change in changes:
        group.append(change)
        size += sum(len(record.value or b"") for record in change)
        if len(group) >= BATCH_LETTERS or size >= BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


_ACCEPTED = (
    "its event is accepted and stands in events.enriched, where nothing is changed any more. Mend the store's schema, "
    "then `headway letters replay` offers the record to that store again"
)
_CONFLICT = (
    "its (source, id) belongs to an event with other content, and first write wins; give the event another id: "
    "`headway letters fix ID --set id=NEW`"
)


def _identity(event: Event) -> tuple[str, str]:
    return event.source, event.id


def _identity_of(raw: bytes) -> tuple[str, str] | None:
    try:
        return _identity(parse_event(raw))
    except InputRejected:
        return None
