"""What must have become of poison: one letter each, for the right reason, with the original bytes. Pure but for the reading."""

import polars as pl

from headway.ledger import Books
from headway.letters import letter_of
from headway.ports import LogReader
from headway.topics import EVENTS_ENRICHED_LETTERS
from orchestration.chaos.hostile import JOB
from streaming.accounts import digest_of, frame_of

LETTER_SCHEMA = {
    "raw_partition": pl.Int32(),
    "raw_offset": pl.Int64(),
    "reason": pl.String(),
    "path": pl.String(),
    "stage": pl.String(),
    "attempts": pl.Int64(),
    "stack": pl.String(),
    "digest": pl.UInt64(),
}
_AT = ["raw_partition", "raw_offset"]
_NAMED = 20


def read_poison_letters(reader: LogReader) -> pl.DataFrame:
    """Return every letter about a record of events.raw (`LETTER_SCHEMA`)."""
    letters = (letter_of(message) for message in reader.read(EVENTS_ENRICHED_LETTERS))
    rows = (
        (*(at or (None, None)), each.reason, each.path, each.stage, each.attempts, each.stack, digest_of(each.original))
        for each in letters
        if each.kind == "enriched"
        for at in [each.raw_place]
    )
    return frame_of(rows, LETTER_SCHEMA)


def judge_letters(written: pl.DataFrame, letters: pl.DataFrame, books: Books) -> dict[str, list[str]]:
    """Return what is wrong with what became of the poison, and of the good records beside it.

    Args:
        written: `orchestration.chaos.poisoner.WRITTEN_SCHEMA`.
        letters: `LETTER_SCHEMA`.
        books: everything, what the Collector accepted included.
    """
    poison, good = written.filter(pl.col("kind") != "good"), written.filter(pl.col("kind") == "good")
    both = poison.join(letters, on=_AT, how="left")
    found = both.filter(pl.col("reason").is_not_null())
    raised = (pl.col("reason") == "handler-failed") != pl.col("stack").is_not_null()
    wrong = {
        "poison without a letter": both.filter(pl.col("reason").is_null()),
        "poison with several letters": found.filter(pl.len().over(_AT) > 1),
        "letter with another reason": found.filter(pl.col("reason") != pl.col("wanted")),
        "letter with another path": found.filter(pl.col("path").ne_missing(pl.col("wanted_path"))),
        "letter with other bytes": found.filter(pl.col("digest") != pl.col("sent")),
        "letter that does not say who, how often or where": found.filter(
            (pl.col("stage") != JOB) | (pl.col("attempts") < 1) | raised
        ),
        "poison enriched": poison.join(books.enriched, on=_AT, how="semi"),
        "good beside poison not enriched": good.join(books.enriched, on=_AT, how="anti"),
        "good beside poison with a letter": good.join(letters, on=_AT, how="semi"),
    }
    return {
        what: [f"{kind} at {partition}@{offset}" for kind, partition, offset in _named(rows)]
        for what, rows in wrong.items()
        if rows.height
    }


def _named(rows: pl.DataFrame) -> list[tuple[str, int, int]]:
    named: list[tuple[str, int, int]] = rows.sort(_AT).select("kind", *_AT).head(_NAMED).rows()
    return named
