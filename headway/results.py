"""Batch results as product applications see them: one row per thing asked about, in a database and by API, page by page.

The lake keeps how each score came about; this is the answer alone, with who gave it and in which run. A product's rows of
an interval are replaced together, so a reader finds all of a run or nothing of it. Several versions may have answered the
same question; unless a version is asked for, the newest run speaks.
"""

from collections.abc import Iterable
from typing import Annotated, Protocol

import msgspec
import polars as pl

from headway.drift import Window
from headway.errors import InputRejected

# Of one page, at most: 200 KB of JSON.
MOST_ROWS = 1_000
RESULT_COLUMNS = (
    "as_of_us",
    "subject",
    "model_version",
    "model_digest",
    "run_id",
    "receipt",
    "probability",
    "requested_at_us",
)
REFUSED_COLUMNS = ("as_of_us", "subject", "model_version", "run_id", "reason")
# What every database takes: a place comes back from strangers.
_AsOf = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Subject = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z")]
_Version = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a batch."""

    as_of_us: int
    subject: str
    model_version: int
    model_digest: str
    run_id: str
    receipt: str
    probability: float


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row that a batch did not answer."""

    as_of_us: int
    subject: str
    model_version: int
    run_id: str
    reason: str


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended, in the order of (as-of, subject, version)."""

    as_of_us: _AsOf
    subject: _Subject
    model_version: _Version


class Results(Protocol):
    """Where product applications read batch results."""

    def replace(
        self, product: str, window: Window, rows: Iterable[pl.DataFrame], refused: Iterable[pl.DataFrame]
    ) -> int:
        """Make a product's rows of [from, until) exactly these, all at once; return how many answers.

        Frames have ``RESULT_COLUMNS`` and ``REFUSED_COLUMNS``.

        Raises:
            Overtaken: another has replaced the same rows meanwhile. Nothing has changed; repeat.
            TransientFailure: the database does not answer.
        """

    def page(
        self, product: str, window: Window, *, rows: int, after: Place | None, version: int | None
    ) -> list[Result]:
        """Return the next answers of [from, until), in the order of `Place`, of a version or of the newest run."""

    def refused(self, product: str, window: Window, *, rows: int, after: Place | None) -> list[RefusedRow]:
        """Return the next rows of [from, until) that were not answered, in the order of `Place`."""


def place_of(row: Result | RefusedRow) -> Place:
    """Return where a page that ends with this row ended."""
    return Place(row.as_of_us, row.subject, row.model_version)


def write_place(place: Place) -> str:
    """Return a place as it travels in an address."""
    return msgspec.json.encode(place).hex()


def read_place(text: str) -> Place:
    """Return the place in an address.

    Raises:
        InputRejected: it was not written by ``write_place``.
    """
    try:
        return msgspec.json.decode(bytes.fromhex(text), type=Place)
    except (ValueError, msgspec.DecodeError) as error:
        raise InputRejected(f"after: got {text[:40]!r}, wanted 'next' of the page before") from error
