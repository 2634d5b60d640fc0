"""What the feature API answers, whatever the protocol: a question judged, read, and refused for the same reasons.

A view that was never backfilled, or as another definition, is not served: its windows lack the past and look whole
(SEMANTICS S20). A store that is away is a refusal that says so, never a missing entity. Work is bounded in rows: those of
one question, and those of all that are under way.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from headway.clock import Clock, to_us
from headway.errors import ContractViolation, InputRejected, PermanentFailure, TransientFailure
from headway.features.online import FeatureReader, StoredRow
from headway.features.readiness import ViewState, unready
from headway.features.services import FeatureService
from headway.problem import Problem
from headway.service_reads import AsOfInThePast, ServiceRead, ServiceReader
from headway.settings import Settings
from serving.collector_limits import Refused
from serving.feature_metrics import FeatureMetrics, Protocol

Status = Literal["present", "missing", "stale"]
RETRY = (b"retry-after", b"1")
# Backfilling takes a person and minutes.
_RETRY_LATER = (b"retry-after", b"30")
_KINDS: Mapping[type, str] = {
    bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"
}  # fmt: skip
_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class FeatureLimits:
    """Bounds of one replica; `headway.settings` says what each means."""

    rows: int
    body_bytes: int
    budget_s: float
    rows_in_flight: int


def feature_limits(settings: Settings) -> FeatureLimits:
    """Return the bounds an installation has set."""
    return FeatureLimits(
        rows=settings.feature_rows,
        body_bytes=settings.feature_body_bytes,
        budget_s=settings.feature_budget_s,
        rows_in_flight=settings.feature_rows_in_flight,
    )


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a client asks: nothing of it is judged yet. ``instant_us`` raises InputRejected for what is no instant."""

    service: str
    rows: Sequence[Any]
    instant_us: Callable[[], int | None]


class FeatureAnswers:
    """Answers questions. For one event loop."""

    def __init__(
        self, services: Iterable[FeatureService], reader: FeatureReader, clock: Clock, limits: FeatureLimits
    ) -> None:
        self._readers = {service.name: ServiceReader(service, reader) for service in services}
        self._clock = clock
        self.limits = limits
        self.metrics = FeatureMetrics(self.services)
        self._rows_in_flight = 0
        # States are compared as they come: the same few values until the next tick.
        self._judged: dict[str, tuple[tuple[ViewState, ...], str]] = {}

    @property
    def services(self) -> list[FeatureService]:
        """What can be asked for, by name."""
        return [self._readers[name].service for name in sorted(self._readers)]

    async def answer(self, question: Question, protocol: Protocol) -> tuple[FeatureService, ServiceRead]:
        """Return what was read.

        Raises:
            Refused: the question is wrong, cannot be answered now, or the past it asks for is gone.
        """
        with self.metrics.asked(question.service, protocol) as told:
            try:
                reader, rows, as_of_us = self._checked(question)
                read = await self._bounded(reader, rows, as_of_us)
            except Refused as refusal:
                told.outcome = refusal.problem.kind
                raise
            self.metrics.read(reader.service, read)
            return reader.service, read

    def _checked(self, question: Question) -> tuple[ServiceReader, list[dict[str, str | None]], int | None]:
        reader = self._readers.get(question.service)
        if reader is None:
            known = ", ".join(sorted(self._readers))
            raise _refused(404, "no-such-service", f"service: got {question.service!r}, wanted one of {known}")
        try:
            rows = self._rows(question.rows, reader.service.keys)
            return reader, rows, question.instant_us()
        except InputRejected as error:
            raise _refused(400, "invalid-question", str(error)) from error

    def _rows(self, rows: Sequence[Any], keys: tuple[str, ...]) -> list[dict[str, str | None]]:
        if len(rows) > self.limits.rows:
            raise too_large(f"rows: got {len(rows)}, wanted at most {self.limits.rows}; ask in parts")
        if not rows:
            raise InputRejected(f"rows: got none, wanted 1 to {self.limits.rows}")
        wanted = set(keys)
        for place, row in enumerate(rows):
            if type(row) is not dict or row.keys() != wanted:
                raise InputRejected(_misshapen(place, row, keys))
            for key, value in row.items():
                if value is not None and type(value) is not str:
                    raise InputRejected(f"rows[{place}].{key}: got {_kind(value)}, wanted a text or null")
        return list(rows)

    async def _bounded(
        self, reader: ServiceReader, rows: list[dict[str, str | None]], as_of_us: int | None
    ) -> ServiceRead:
        if self._rows_in_flight and self._rows_in_flight + len(rows) > self.limits.rows_in_flight:
            detail = f"{self._rows_in_flight} rows are being read, at most {self.limits.rows_in_flight}; try again"
            raise _refused(503, "overloaded", detail, RETRY)
        self._rows_in_flight += len(rows)
        try:
            async with asyncio.timeout(self.limits.budget_s):
                read = await self._read(reader, rows, as_of_us)
        except TimeoutError as error:
            raise _refused(503, "too-slow", f"not read within {self.limits.budget_s} s; try again", RETRY) from error
        except AsOfInThePast as error:
            raise _refused(409, "as-of-in-the-past", str(error)) from error
        except (TransientFailure, PermanentFailure) as error:
            raise _refused(503, "store-unavailable", f"{error}; nothing is known of any row", RETRY) from error
        except ContractViolation as error:
            _LOG.exception("the store holds what nobody writes", service=reader.service.name)
            raise _refused(500, "internal", "the store holds what cannot be read; the log says what") from error
        finally:
            self._rows_in_flight -= len(rows)
        if reason := self._unready(reader.service, read.states):
            raise _refused(503, "view-not-ready", reason, _RETRY_LATER)
        return read

    async def _read(
        self, reader: ServiceReader, rows: list[dict[str, str | None]], as_of_us: int | None
    ) -> ServiceRead:
        if as_of_us is None:
            return await reader.now(rows, to_us(self._clock.now()))
        return await reader.at(rows, as_of_us)

    def _unready(self, service: FeatureService, states: tuple[ViewState, ...]) -> str:
        before = self._judged.get(service.name)
        if before is not None and before[0] == states:
            return before[1]
        known = {served.view.online_name: state for served, state in zip(service.served, states, strict=True)}
        reasons = unready([served.view for served in service.served], known)
        held = "; ".join(f"{name} {why}" for name, why in reasons.items())
        self._judged[service.name] = states, held
        return held


def status_of(row: StoredRow | None, *, stale: bool) -> Status:
    """Say what a row is worth: of a view that is behind, neither a row nor its absence may be the newest."""
    if stale:
        return "stale"
    return "missing" if row is None or row.event_timestamp_us is None else "present"


def too_large(detail: str) -> Refused:
    """Give the refusal of a question that is beyond a bound."""
    return _refused(413, "too-large", detail)


def _refused(status: int, kind: str, detail: str, *headers: tuple[bytes, bytes]) -> Refused:
    return Refused(Problem(status, kind, detail), *headers)


def _misshapen(place: int, row: Any, keys: Sequence[str]) -> str:
    wanted = f"{', '.join(keys)}, each a text or null"
    if type(row) is not dict:
        return f"rows[{place}]: got {_kind(row)}, wanted an object with {wanted}"
    missing = [key for key in keys if key not in row]
    if missing:
        return f"rows[{place}].{missing[0]}: missing, wanted {wanted}"
    unknown = sorted(row.keys() - {*keys})
    return f"rows[{place}].{unknown[0]}: got a key the service has not, wanted {wanted}"


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)
