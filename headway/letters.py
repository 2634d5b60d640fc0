"""Dead letters: one rejected event with its original bytes, a typed reason, and the place where it failed.

On Kafka a letter's value is the original bytes, untouched; everything we say about it travels in headers, so a fixed
event can be replayed from the letter alone. In the lake a letter is one row of ``letters``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from headway.errors import ContractViolation
from headway.lake import INSTANT, LakeTable
from headway.ports import Message, Record

Reason = Literal[
    "invalid-envelope",  # the Collector: a top-level field is missing or wrong
    "unparseable",  # the Validator: bytes in events.raw that are no event
    "unknown-type",  # no contract for this event type
    "schema-violation",  # the body breaks its contract
    "enrichment-refused",  # the body names something the reference does not know
    "id-conflict",  # same (source, id) as an earlier event, other content
]
_HEADERS = ("letter_reason", "letter_detail", "letter_stage", "letter_topic", "letter_partition", "letter_offset")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One rejected event.

    Attributes:
        detail: what, got, wanted, in words.
        stage: who rejected it (``collector`` or ``enricher``).
        topic, partition, offset: where the original record stands; None when it never entered a topic.
    """

    reason: Reason
    detail: str
    stage: str
    original: bytes
    key: bytes | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None

    def to_record(self, letters_topic: str) -> Record:
        """Return the record that keeps this letter."""
        facts = (self.reason, self.detail, self.stage, self.topic, self.partition, self.offset)
        headers = tuple((n, str(f).encode()) for n, f in zip(_HEADERS, facts, strict=True) if f is not None)
        return Record(topic=letters_topic, key=self.key, value=self.original, headers=headers)


def letter_of(message: Message) -> Letter:
    """Return the letter kept in a record of a letter topic.

    Raises:
        ContractViolation: the record carries no reason header, so it is not one of our letters.
    """
    headers = {name: value.decode() for name, value in message.headers}
    if "letter_reason" not in headers:
        raise ContractViolation(
            f"{message.topic}[{message.partition}]@{message.offset}: no letter_reason header; not a letter"
        )
    partition, offset = headers.get("letter_partition"), headers.get("letter_offset")
    return Letter(
        reason=headers["letter_reason"],  # type: ignore[arg-type]  # written by to_record from a Reason
        detail=headers.get("letter_detail", ""),
        stage=headers.get("letter_stage", ""),
        original=message.value or b"",
        key=message.key,
        topic=headers.get("letter_topic"),
        partition=None if partition is None else int(partition),
        offset=None if offset is None else int(offset),
    )


def letters_table() -> LakeTable:
    """Return the ``letters`` table: one row per letter, with its original bytes and the letter's own place."""
    return LakeTable(
        name="letters",
        columns={
            "reason": pl.String(),
            "detail": pl.String(),
            "stage": pl.String(),
            "original": pl.Binary(),
            "source_topic": pl.String(),
            "source_partition": pl.Int64(),
            "source_offset": pl.Int64(),
            "written_at": INSTANT,
            "topic": pl.String(),
            "partition": pl.Int64(),
            "offset": pl.Int64(),
        },
        required=("reason", "original", "topic", "partition", "offset"),
    )


def letter_rows(letters: Sequence[tuple[Message, Letter]]) -> pl.DataFrame:
    """Return the rows of ``letters`` for records of the letter topics."""
    rows = [
        (
            letter.reason,
            letter.detail,
            letter.stage,
            letter.original,
            letter.topic,
            letter.partition,
            letter.offset,
            message.timestamp_ms * 1000,
            message.topic,
            message.partition,
            message.offset,
        )
        for message, letter in letters
    ]
    return pl.DataFrame(rows, schema=dict(letters_table().columns), orient="row")
