"""What batches answered, as `headway.client` reads it: addresses of pages and the rows in them, without any network.

Pages are cut by key, so rows that a run replaces between two of them neither repeat nor hide their neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from headway.client_call import Model, decode_answer
from headway.clock import format_us, to_us
from headway.errors import InputRejected

# As many as one answer of the API may have.
_PAGE_ROWS = 1_000


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a batch; from its receipt it can be recomputed."""

    subject: str
    as_of: datetime
    probability: float
    model: Model
    run_id: str
    receipt: str


class BatchRefused(msgspec.Struct, frozen=True, kw_only=True):
    """One row that a batch did not answer, and why."""

    subject: str
    as_of: datetime
    model_version: int
    run_id: str
    reason: str


Row = TypeVar("Row", BatchResult, BatchRefused)


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows; ``after`` asks for those that follow, None behind the last."""

    rows: Sequence[Row]
    after: str | None


class _Results(msgspec.Struct, frozen=True, kw_only=True):
    results: list[BatchResult]
    next: str | None


class _Refused(msgspec.Struct, frozen=True, kw_only=True):
    refused: list[BatchRefused]
    next: str | None


_RESULTS = msgspec.json.Decoder(_Results)
_REFUSED = msgspec.json.Decoder(_Refused)


def page_query(start: datetime, until: datetime, *, model_version: int | None = None) -> dict[str, str]:
    """Return what asks for the first page of the as-of instants in [start, until), by parameter.

    Raises:
        InputRejected: an instant has no time zone.
    """
    asked = {"from": _instant("start", start), "until": _instant("until", until), "limit": str(_PAGE_ROWS)}
    return asked if model_version is None else {**asked, "model_version": str(model_version)}


def page_url(url: str, query: dict[str, str], *, after: str | None) -> str:
    """Return a page's address: the first one, or the one that follows."""
    return f"{url}?{urlencode(query if after is None else {**query, 'after': after})}"


def decode_results(body: bytes) -> Page[BatchResult]:
    """Return the answers of a page; raises `Attempted` for what is none."""
    found = decode_answer(_RESULTS, body)
    return Page(rows=found.results, after=found.next)


def decode_refused(body: bytes) -> Page[BatchRefused]:
    """Return the rows of a page that were not answered; raises `Attempted` for what is none."""
    found = decode_answer(_REFUSED, body)
    return Page(rows=found.refused, after=found.next)


def _instant(name: str, instant: datetime) -> str:
    if instant.tzinfo is None:
        raise InputRejected(f"{name}: got {instant!r}, wanted a datetime with a time zone")
    return format_us(to_us(instant))
