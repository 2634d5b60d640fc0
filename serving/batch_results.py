"""Batch results over HTTP: ``GET /v1/batches/<product>?from=..&until=..``, page by page, for product applications.

Plain ASGI over one database; the lake and the models are not needed to read. A page ends with ``next``, which asks for the
rest; pages are cut by key, so rows that a run replaces meanwhile neither repeat nor hide their neighbours. ``/v1/batches/docs``
is a page for people.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from headway.clock import format_us, parse_instant_us
from headway.drift import Window
from headway.errors import InputRejected, TransientFailure
from headway.problem import Problem
from headway.results import MOST_ROWS, Place, RefusedRow, Result, Results, place_of, read_place, write_place
from serving.asgi import Answer, Receive, Scope, Send, json_answer, problem_answer, send_answer
from serving.batch_metrics import BatchMetrics
from serving.collector_limits import Refused
from serving.docs_page import HTML, asked_at, docs_page
from serving.prediction_answers import Model, Receipt, shown

PATH = "/v1/batches"
# Of a page, unless told.
ROWS = 100
_RETRY = (b"retry-after", b"1")
_Subject = Annotated[str, shown("what was asked about, as its events name it")]
_AsOf = Annotated[str, shown("the instant it was asked for, UTC", format="date-time")]
_RunId = Annotated[str, shown("the run in Dagster")]
_Next = Annotated[str, shown("what ``after`` takes for the following page; null behind the last")] | None
_Row = TypeVar("_Row", Result, RefusedRow)


class ResultAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a batch."""

    subject: _Subject
    as_of: _AsOf
    probability: float
    model: Model
    run_id: _RunId
    receipt: Receipt


class RefusedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One row that a batch did not answer, and why."""

    subject: _Subject
    as_of: _AsOf
    model_version: int
    run_id: _RunId
    reason: Annotated[str, shown("field, got and wanted")]


class ResultsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of answers."""

    product: str
    results: list[ResultAnswer]
    next: _Next


class RefusedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of rows that were not answered."""

    product: str
    refused: list[RefusedAnswer]
    next: _Next


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, judged."""

    window: Window
    limit: int
    after: Place | None
    version: int | None


class BatchApi:
    """The ASGI application."""

    def __init__(self, results: Results, products: Collection[str], openapi: Mapping[str, Any]) -> None:
        self._results, self._products, self._openapi = results, tuple(sorted(products)), openapi
        # The second for those who come through the load balancer, which leads only what is under the prefix here.
        self._documents: Mapping[str, Mapping[str, Any]] = {
            "/openapi.json": openapi,
            f"{PATH}/openapi.json": openapi,
            PATH: {"products": self._products, "openapi": f"{PATH}/openapi.json", "docs": f"{PATH}/docs"},
        }
        self._metrics = BatchMetrics()
        self.draining = False

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        method, path = str(scope["method"]), str(scope["path"])
        if method not in ("GET", "HEAD"):
            problem = Problem(405, "method-not-allowed", f"{path}: got {method}, wanted GET")
            answer = problem_answer(problem, (b"allow", b"GET, HEAD"))
        else:
            try:
                answer = await self._get(path, scope)
            except Refused as refusal:
                answer = problem_answer(refusal.problem, *refusal.headers)
            self._metrics.answered(answer.status)
        await send_answer(send, answer)

    async def _get(self, path: str, scope: Scope) -> Answer:
        match path:
            case "/livez":
                return json_answer({"status": "alive"})
            case "/readyz" if self.draining:
                raise Refused(Problem(503, "draining", "this process is leaving"), _RETRY)
            case "/readyz":  # whatever the database does: without it the answer is a problem that says so
                return json_answer({"status": "ready", "products": self._products})
            case "/metrics":
                return self._metrics.page()
            case "/docs" | "/v1/batches/docs":
                base = asked_at(dict(scope["headers"]))
                return Answer(200, docs_page(self._openapi, prefix=PATH, base=base), (HTML,))
            case _ if path in self._documents:
                return json_answer(self._documents[path])
        product, _, what = path.removeprefix(f"{PATH}/").partition("/")
        if not path.startswith(f"{PATH}/") or product not in self._products or what not in ("", "refused"):
            wanted = f"{PATH}/<product> or {PATH}/<product>/refused, product one of {', '.join(self._products)}"
            raise Refused(Problem(404, "not-found", f"{path}: wanted {wanted}"))
        try:
            asked = _asked(bytes(scope.get("query_string", b"")), names_version=not what)
        except InputRejected as error:
            raise Refused(Problem(400, "invalid-question", f"{error}; see {PATH}/openapi.json")) from error
        return await (self._refused(product, asked) if what else self._page(product, asked))

    async def _page(self, product: str, asked: Asked) -> Answer:
        found, after = await _read(
            lambda rows: self._results.page(product, asked.window, rows=rows, after=asked.after, version=asked.version),
            asked.limit,
        )
        self._metrics.rows(product, len(found))
        results = [
            ResultAnswer(
                subject=row.subject,
                as_of=format_us(row.as_of_us),
                probability=row.probability,
                model=Model(name=product, version=row.model_version, digest=row.model_digest),
                run_id=row.run_id,
                receipt=row.receipt,
            )
            for row in found
        ]
        return json_answer(ResultsAnswer(product=product, results=results, next=after))

    async def _refused(self, product: str, asked: Asked) -> Answer:
        found, after = await _read(
            lambda rows: self._results.refused(product, asked.window, rows=rows, after=asked.after), asked.limit
        )
        refused = [
            RefusedAnswer(
                subject=row.subject,
                as_of=format_us(row.as_of_us),
                model_version=row.model_version,
                run_id=row.run_id,
                reason=row.reason,
            )
            for row in found
        ]
        return json_answer(RefusedPage(product=product, refused=refused, next=after))


async def _read(read: Callable[[int], Sequence[_Row]], limit: int) -> tuple[Sequence[_Row], str | None]:
    """Return a page and where it ended, if there is more; the database is asked in a thread of its own.

    Raises:
        Refused: the database does not answer.
    """
    try:
        found = await asyncio.to_thread(read, limit + 1)
    except TransientFailure as error:
        raise Refused(Problem(503, "results-unavailable", f"{error}; try again"), _RETRY) from error
    page = found[:limit]
    return page, write_place(place_of(page[-1])) if len(found) > limit else None


def _asked(query: bytes, *, names_version: bool) -> Asked:
    known = ("from", "until", "limit", "after", *(("model_version",) if names_version else ()))
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    given = dict(pairs)
    if len(given) != len(pairs) or given.keys() - set(known):
        raise InputRejected(f"query: got {[name for name, _ in pairs]}, wanted each of {list(known)} once at most")
    if missing := [name for name in ("from", "until") if name not in given]:
        raise InputRejected(f"{missing[0]}: missing, wanted an RFC 3339 instant with a zone, e.g. 2013-07-01T00:00:00Z")
    from_us, until_us = (parse_instant_us(given[name], field=name) for name in ("from", "until"))
    if from_us >= until_us:
        raise InputRejected(f"until: got {given['until']}, wanted an instant after from, {given['from']}")
    return Asked(
        window=Window(from_us=from_us, until_us=until_us),
        limit=_whole(given, "limit", most=MOST_ROWS) or ROWS,
        after=read_place(given["after"]) if "after" in given else None,
        version=_whole(given, "model_version", most=2**31 - 1),
    )


def _whole(given: Mapping[str, str], name: str, *, most: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:12]) <= most:
        raise InputRejected(f"{name}: got {text[:40]!r}, wanted a whole number from 1 to {most}")
    return int(text)
