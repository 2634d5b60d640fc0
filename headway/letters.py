"""Dead letters: one rejected event with its original bytes, a typed reason, and the place where it failed.

On Kafka a letter's value is the original bytes, untouched; everything we say about it travels in headers named
``letter_*``, and the original's own headers stay beside them, so a fixed event can be replayed from the letter alone. In
the lake a letter is one row of ``letters``. Its id is the place of its own record, which no retry can change.

There are three kinds in two topics (S22). *Raw*: refused at the door, in ``events.raw.dlq``, never was in events.raw.
*Enriched*: accepted and then rejected by the Enricher, in ``events.enriched.dlq``; part of the ledger. *Sink*: enriched,
and then refused by one store or one later job; also in ``events.enriched.dlq``, told apart by the topic it came from, and no part of
``raw = enriched + letters``, as its event stands in events.enriched.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from headway.errors import ContractViolation, InputRejected
from headway.events import TYPE_HEADER
from headway.letter_causes import fingerprint
from headway.ports import Message, Record
from headway.topics import EVENTS_ENRICHED_LETTERS, EVENTS_RAW, EVENTS_RAW_LETTERS

Reason = Literal[
    "invalid-envelope",  # the Collector: a top-level field is missing or wrong
    "unparseable",  # the Validator: bytes in events.raw that are no event
    "unknown-type",  # no contract for this event type
    "schema-violation",  # the body breaks its contract
    "future-time",  # the event's time lies further ahead than clocks differ
    "id-conflict",  # same (source, id) as an earlier event, other content
    "enrichment-refused",  # the body names something the reference does not know
    "enrichment-failed",  # the Enrichment API did not answer within its budget
    "handler-failed",  # our code raised on this event
    "crashed",  # our process died on this event, again and again
    "mapping",  # a store's schema does not take the event
]
Kind = Literal["raw", "enriched", "sink"]
REASONS: tuple[Reason, ...] = get_args(Reason)
LETTER_TOPICS = (EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS)
# On a record of events.raw: the letter it was replayed from.
LETTER_ID_HEADER = "letter_id"
_PREFIX = "letter_"


class LetterPlace(NamedTuple):
    """Where a letter's own record stands."""

    topic: str
    partition: int
    offset: int

    @property
    def id(self) -> str:
        """The letter's name, for people and stores."""
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One rejected event.

    Attributes:
        detail: what, got, wanted, in words.
        stage: who rejected it (``collector``, ``enricher``, ``search-loader``).
        topic, partition, offset: where the original record stands; None when it never entered a topic.
        path: where in the event it failed, as a JSON path; None when the failure has no place in it.
        contract: the contract or schema it was judged by, with its version or digest.
        attempts: how often the stage tried before it gave up.
        stack: `headway.letter_causes.stack_digest` of the error, where one was raised.
        previous: id of the letter whose replay this is, when the event has been a letter before.
        headers: the original record's own.
    """

    reason: Reason
    detail: str
    stage: str
    original: bytes
    key: bytes | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    path: str | None = None
    event_type: str | None = None
    contract: str | None = None
    attempts: int = 1
    stack: str | None = None
    previous: str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def kind(self) -> Kind:
        """Which of the three kinds it is; only ``enriched`` counts in the ledger's ``raw = enriched + letters``."""
        if self.topic is None:
            return "raw"
        return "enriched" if self.topic == EVENTS_RAW else "sink"

    @property
    def fingerprint(self) -> str:
        """The name of its cause: the same for every letter of one case."""
        return fingerprint(
            reason=self.reason, event_type=self.event_type, path=self.path, detail=self.detail, stack=self.stack
        )

    @property
    def raw_place(self) -> tuple[int, int] | None:
        """(partition, offset) in events.raw of the record behind it, a sink letter's included; None for raw letters."""
        if self.partition is None or self.offset is None:
            return None
        if self.topic == EVENTS_RAW:
            return self.partition, self.offset
        raw_offset = dict(self.headers).get("raw_offset")
        return None if raw_offset is None else (self.partition, int(raw_offset))

    def to_record(self, letters_topic: str) -> Record:
        """Return the record that keeps this letter."""
        facts = {
            "reason": self.reason,
            "detail": self.detail,
            "stage": self.stage,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "path": self.path,
            "type": self.event_type,
            "contract": self.contract,
            "attempts": self.attempts,
            "stack": self.stack,
            "previous": self.previous,
        }
        told = tuple((_PREFIX + name, str(fact).encode()) for name, fact in facts.items() if fact is not None)
        return Record(topic=letters_topic, key=self.key, value=self.original, headers=(*told, *self.headers))


def letter_about(
    message: Message,
    *,
    reason: Reason,
    detail: str,
    stage: str,
    path: str | None = None,
    contract: str | None = None,
    attempts: int = 1,
    stack: str | None = None,
) -> Letter:
    """Return the letter for a record that a stage cannot take: its bytes, key, headers, place and history kept."""
    headers = dict(message.headers)
    event_type, previous = headers.get(TYPE_HEADER), headers.get(LETTER_ID_HEADER)
    return Letter(
        reason=reason,
        detail=detail,
        stage=stage,
        original=message.value or b"",
        key=message.key,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        path=path,
        event_type=None if event_type is None else _readable(event_type),
        contract=contract,
        attempts=attempts,
        stack=stack,
        previous=None if previous is None else _readable(previous),
        headers=tuple(each for each in message.headers if not each[0].startswith(_PREFIX)),
    )


def _readable(header: bytes) -> str:
    """Return a stranger's header as text, whatever its bytes are; short, since a letter has to be written."""
    return header[:200].decode(errors="replace")


def letter_of(message: Message) -> Letter:
    """Return the letter kept in a record of a letter topic; one written before a header existed has its default.

    Raises:
        ContractViolation: the record carries no reason header, so it is not one of our letters.
    """
    told = {name.removeprefix(_PREFIX): v.decode() for name, v in message.headers if name.startswith(_PREFIX)}
    if "reason" not in told:
        raise ContractViolation(
            f"{message.topic}[{message.partition}]@{message.offset}: no letter_reason header; not a letter"
        )
    partition, offset = told.get("partition"), told.get("offset")
    return Letter(
        reason=told["reason"],  # type: ignore[arg-type]  # written by to_record from a Reason
        detail=told.get("detail", ""),
        stage=told.get("stage", ""),
        original=message.value or b"",
        key=message.key,
        topic=told.get("topic"),
        partition=None if partition is None else int(partition),
        offset=None if offset is None else int(offset),
        path=told.get("path"),
        event_type=told.get("type"),
        contract=told.get("contract"),
        attempts=int(told.get("attempts", "1")),
        stack=told.get("stack"),
        previous=told.get("previous"),
        headers=tuple(each for each in message.headers if not each[0].startswith(_PREFIX)),
    )


def any_letter(message: Message) -> Letter:
    """Return the letter in a record of a letter topic, or one that says that the record is none.

    The topics are ours, but a topic has no door: what a stranger wrote there is shown, and hides no letter beside it.
    """
    try:
        return letter_of(message)
    except (ContractViolation, ValueError) as error:
        return Letter(
            reason="unparseable",
            detail=f"{error}; written to the letter topic past Headway",
            stage="unknown",
            original=message.value or b"",
            key=message.key,
        )


def letter_place(message: Message) -> LetterPlace:
    """Return where a letter's record stands; its ``id`` is the letter's."""
    return LetterPlace(message.topic, message.partition, message.offset)


def parse_letter_id(text: str) -> LetterPlace:
    """Return the place that a letter's id names.

    Raises:
        InputRejected: it is no letter's id.
    """
    topic, *numbers = text.rsplit("-", maxsplit=2)
    if topic not in LETTER_TOPICS or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise InputRejected(
            f"letter id: got {text!r}, wanted TOPIC-PARTITION-OFFSET with one of {list(LETTER_TOPICS)}, "
            "as `headway letters list` shows it"
        )
    return LetterPlace(topic, int(numbers[0]), int(numbers[1]))
