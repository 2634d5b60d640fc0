"""Waiting until the plane has done all it will do; told by its books, never by lag or offsets (S13)."""

import time
from collections.abc import Callable

import polars as pl

from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.ledger import Books, settle
from headway.letters import letter_of
from headway.ports import LogReader
from headway.topics import EVENTS_RAW_LETTERS
from streaming.accounts import Stores, digest_of, frame_of, read_books

# Longer than a loader buffers, an aborted transaction stays open, and a killed process needs to be back; longer, too,
# than a job waits after failures in a row (30 s, twice) with a request between that took its whole timeout (30 s).
_UNMOVED_S = 120.0
_EVERY_S = 1.0
# A loader may be minutes behind a broken stack of two cores, and goes on.
_PATIENCE_S = 600.0


def books_at_rest(stores: Stores, *, say: Callable[[str], None]) -> Books:
    """Return the books once they balance, or once nothing has moved for two minutes.

    Raises:
        TransientFailure: they cannot be read, or still move when time is up: that is slow, and says nothing of loss.
    """
    deadline_s = monotonic_s() + _PATIENCE_S
    moved_s, before = monotonic_s(), None
    while True:
        begun_s = monotonic_s()
        try:
            books = read_books(stores)
        except TransientFailure as failure:
            say(f"books not readable yet: {failure}")
            books = None
        if books is not None:
            ledger = settle(books)
            if ledger.balanced:
                return books
            held = (books.raw, books.enriched, books.letters, books.lake, books.search)
            now = [frame.height for frame in held if frame is not None]
            if now != before:
                moved_s, before = monotonic_s(), now
            if monotonic_s() - moved_s > _UNMOVED_S:
                return books
        if monotonic_s() > deadline_s:
            how = "could not be read" if books is None else f"moved {monotonic_s() - moved_s:.0f} s ago, {now}"
            raise TransientFailure(f"the plane is not at rest within {_PATIENCE_S:.0f} s: its books {how}")
        # Reading a quarter of a million records takes a core for seconds, and the plane has to catch up on two.
        time.sleep(max(_EVERY_S, 3 * (monotonic_s() - begun_s)))


def read_raw_letters(reader: LogReader) -> pl.DataFrame:
    """Return digest of the original and reason of every letter of the Collector."""
    letters = (letter_of(message) for message in reader.read(EVENTS_RAW_LETTERS))
    return frame_of(
        ((digest_of(letter.original), letter.reason) for letter in letters),
        {"digest": pl.UInt64(), "reason": pl.String()},
    )
