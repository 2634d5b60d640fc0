"""The feature API over HTTP: ``POST /v1/features/<service>``, rows of keys in, the values of every view out.

Plain ASGI, several replicas, no state but a connection to the online store. What is answered and refused is
`serving.feature_answers`, which gRPC shares; here it becomes JSON. Present, missing and stale are told apart for every
row and view, with the instants behind them, so that a client never takes an absent row for a quiet hour.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

import msgspec

from headway.clock import SECOND_US, format_us, parse_instant_us
from headway.errors import InputRejected
from headway.features.catalogue import Catalogue
from headway.features.columns import Value
from headway.features.online import StoredRow
from headway.features.services import FeatureService, ServedFeatures
from headway.problem import Problem
from headway.service_reads import ServiceRead
from serving.asgi import (
    Answer,
    Receive,
    Scope,
    Send,
    json_answer,
    problem_answer,
    read_body,
    send_answer,
    serve_lifespan,
)
from serving.collector_limits import Refused
from serving.feature_answers import RETRY, FeatureAnswers, Question, Status, status_of, too_large
from serving.feature_openapi import features_openapi, services_document

PATH = "/v1/features"
_JSON = b"application/json"
_GET = ("/livez", "/readyz", "/metrics", f"{PATH}/openapi.json", PATH)
# The rows of busy entities and the watermarks repeat.
_instant = lru_cache(maxsize=16_384)(format_us)


class ViewAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh a view is: all events up to ``watermark`` are in the values, ``lag_s`` before the instant asked for."""

    watermark: str | None
    lag_s: float | None
    stale: bool


class EntityAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One view of one row; ``event_timestamp`` is the instant since which the values hold, null without a row."""

    status: Status
    event_timestamp: str | None
    age_s: float | None
    values: dict[str, Value]


class FeaturesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The features of a service for each row, by qualified name of the view."""

    service: str
    as_of: str
    views: dict[str, ViewAnswer]
    rows: list[dict[str, EntityAnswer]]


class FeatureApi:
    """The ASGI application. ``start`` and ``close`` are what belongs to the event loop, before and after it serves."""

    def __init__(
        self,
        answers: FeatureAnswers,
        catalogue: Catalogue,
        *,
        start: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._answers = answers
        self._start, self._close = start, close
        openapi = features_openapi(answers.services, catalogue, answers.limits)
        # The second for those who come through the load balancer, which leads only what is under the prefix here.
        self._documents = {
            "/openapi.json": openapi,
            f"{PATH}/openapi.json": openapi,
            PATH: services_document(answers.services, catalogue),
        }
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or begin and end with the server."""
        if scope["type"] == "lifespan":
            await self._start()
            await serve_lifespan(receive, send, at_end=self._close)
            return
        method, path = str(scope["method"]), str(scope["path"])
        if method == "POST" and path.startswith(f"{PATH}/"):
            try:
                answer = await self._post(path.removeprefix(f"{PATH}/"), scope, receive)
            except Refused as refusal:
                answer = problem_answer(refusal.problem, *refusal.headers)
        elif method in ("GET", "HEAD"):
            answer = self._get(path)
        else:
            problem = Problem(405, "method-not-allowed", f"{path}: got {method}, wanted POST {PATH}/<service>")
            answer = problem_answer(problem, (b"allow", b"GET, POST"))
        await send_answer(send, answer)

    def _get(self, path: str) -> Answer:
        match path:
            case "/livez":
                return json_answer({"status": "alive"})
            case "/readyz" if self.draining:
                return problem_answer(Problem(503, "draining", "this replica is leaving"), RETRY)
            case "/readyz":  # whatever the store does: without it the answer is a problem that says so
                return json_answer({"status": "ready", "services": [s.name for s in self._answers.services]})
            case "/metrics":
                return self._answers.metrics.page()
        if path in self._documents:
            return json_answer(self._documents[path])
        wanted = f"wanted {', '.join(_GET)} or POST {PATH}/<service>"
        return problem_answer(Problem(404, "not-found", f"{path}: {wanted}"))

    async def _post(self, service: str, scope: Scope, receive: Receive) -> Answer:
        try:
            document = _document(scope, await read_body(receive, self._answers.limits.body_bytes), self._answers)
        except Refused as refusal:
            self._answers.metrics.refused("http", refusal.problem.kind)
            raise
        question = Question(service=service, rows=document["rows"], instant_us=lambda: _instant_us(document))
        answered, read = await self._answers.answer(question, "http")
        return json_answer(features_answer(answered, read))


def features_answer(service: FeatureService, read: ServiceRead) -> FeaturesAnswer:
    """Return what was read as clients see it."""
    as_of_us = read.as_of_us
    views = {
        served.name: ViewAnswer(
            watermark=None if state.watermark_us is None else _instant(state.watermark_us),
            lag_s=None if state.watermark_us is None else max(0, as_of_us - state.watermark_us) / SECOND_US,
            stale=stale,
        )
        for served, state, stale in zip(service.served, read.states, read.stale, strict=True)
    }
    rows = [
        {
            served.name: _entity(served, row, as_of_us, stale=stale)
            for served, row, stale in zip(service.served, stored, read.stale, strict=True)
        }
        for stored in read.rows
    ]
    return FeaturesAnswer(service=service.name, as_of=_instant(as_of_us), views=views, rows=rows)


def _entity(served: ServedFeatures, row: StoredRow | None, as_of_us: int, *, stale: bool) -> EntityAnswer:
    status = status_of(row, stale=stale)
    if row is None or row.event_timestamp_us is None:
        return EntityAnswer(status=status, event_timestamp=None, age_s=None, values=served.empty)
    row_us = row.event_timestamp_us
    return EntityAnswer(
        status=status,
        event_timestamp=_instant(row_us),
        age_s=(as_of_us - row_us) / SECOND_US,
        values=dict(zip(served.features, row.values, strict=True)),
    )


def _document(scope: Scope, raw: bytes | None, answers: FeatureAnswers) -> dict[str, Any]:
    """The question's JSON object.

    Raises:
        Refused: it is too large, of another type, or no question.
    """
    kind = next((value for name, value in scope["headers"] if name.lower() == b"content-type"), b"")
    if kind.split(b";")[0].strip().lower() != _JSON:
        detail = f"content-type: got {kind.decode('latin-1')!r}, wanted {_JSON.decode()}"
        raise Refused(Problem(415, "unsupported-media-type", detail))
    if raw is None:
        raise too_large(f"body: more than {answers.limits.body_bytes} bytes; ask in parts")
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(Problem(400, "invalid-question", f"body: {error}; see {PATH}/openapi.json")) from error
    if type(document) is not dict or type(document.get("rows")) is not list or document.keys() - {"rows", "as_of"}:
        found = f"an object of {sorted(document)}" if type(document) is dict else f"{type(document).__name__}"
        detail = f'body: got {found}, wanted {{"rows": [...], "as_of": "..."}}; see {PATH}/openapi.json'
        raise Refused(Problem(400, "invalid-question", detail))
    return document


def _instant_us(document: dict[str, Any]) -> int | None:
    as_of = document.get("as_of")
    if as_of is None:
        return None
    if type(as_of) is not str:
        raise InputRejected(f"as_of: got {as_of!r}, wanted an RFC 3339 text with a zone, or nothing for now")
    return parse_instant_us(as_of, field="as_of")
