"""Letters in the lake: one row of ``letters`` per letter, for good, with its original bytes."""

from collections.abc import Sequence

import polars as pl

from headway.clock import from_us
from headway.lake import INSTANT, LakeTable
from headway.letters import Letter, letter_place
from headway.ports import Message


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
            # Younger than the first tables: null in rows written before, added to old tables when they are opened.
            "letter_id": pl.String(),
            "kind": pl.String(),
            "fingerprint": pl.String(),
            "path": pl.String(),
            "event_type": pl.String(),
            "contract": pl.String(),
            "attempts": pl.Int64(),
            "stack": pl.String(),
            "previous": pl.String(),
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
            from_us(message.timestamp_ms * 1000),
            message.topic,
            message.partition,
            message.offset,
            letter_place(message).id,
            letter.kind,
            letter.fingerprint,
            letter.path,
            letter.event_type,
            letter.contract,
            letter.attempts,
            letter.stack,
            letter.previous,
        )
        for message, letter in letters
    ]
    return pl.DataFrame(rows, schema=dict(letters_table().columns), orient="row")
