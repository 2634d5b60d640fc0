"""The Enrichment API: bodies in, enrichment columns out, or a refusal that names field, got and wanted.

Plain ASGI, several replicas, no state but the reference data, which is read once at the start; its hash is the
``version`` of every answer. A body is judged by its contract first, so an answer never depends on what an event of
that type cannot be. One body on which our code fails is answered as ``failed`` and does not take the batch with it.
"""

from typing import Any, Literal

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from headway.clock import monotonic_s
from headway.contracts import Domain, Reference
from headway.enrichment import refused_field
from headway.errors import InputRejected
from headway.problem import Problem
from headway.validation import Rejected, Validator
from serving.asgi import Answer, Receive, Scope, Send, json_answer, problem_answer, read_body, send_answer
from serving.enrichment_openapi import enrichment_openapi

PATH = "/v1/enrich"
MAX_BODY_BYTES = 1024 * 1024
MAX_ITEMS = 1000
_JSON = "application/json"
_LOG = structlog.get_logger()
_GET = ("/livez", "/readyz", "/metrics", "/openapi.json")

ITEMS = Counter("headway_enrichment_items_total", "Bodies asked about, by what was answered.", ["status"])
REQUESTS = Counter("headway_enrichment_requests_total", "Requests, by HTTP status.", ["status"])
ANSWER_SECONDS = Histogram("headway_enrichment_answer_seconds", "Time to answer one batch.")


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One body: the event type that says which contract it fits, and the body itself."""

    type: str
    data: msgspec.Raw


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of bodies."""

    items: list[Item]


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is answered about one body, in the place of its item."""

    status: Literal["enriched", "refused", "failed"]
    columns: dict[str, Any] | None = None
    field: str | None = None
    detail: str | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, the version of the reference data behind all of them, and how long it has been loaded."""

    version: str
    age_s: float
    results: list[Result]


class EnrichmentApi:
    """The ASGI application."""

    def __init__(self, domain: Domain, reference: Reference) -> None:
        self._validator = Validator(domain)
        self._reference = reference
        self._loaded_s = monotonic_s()
        self._decode = msgspec.json.Decoder(Question).decode
        self._openapi = enrichment_openapi(domain)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["path"] == PATH:
            answer = await self._enrich(scope, receive)
        elif scope["method"] in ("GET", "HEAD"):
            answer = self._get(str(scope["path"]))
        else:
            answer = problem_answer(Problem(404, "not-found", f"{scope['path']}: wanted POST {PATH}"))
        REQUESTS.labels(str(answer.status)).inc()
        await send_answer(send, answer)

    def _get(self, path: str) -> Answer:
        match path:
            case "/livez":
                return json_answer({"status": "alive"})
            case "/readyz" if self.draining:
                return problem_answer(Problem(503, "draining", "this replica is leaving"), (b"retry-after", b"1"))
            case "/readyz":
                return json_answer({"status": "ready", "version": self._reference.version})
            case "/metrics":
                return Answer(200, generate_latest(), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
            case "/openapi.json":
                return json_answer(self._openapi)
            case _:
                return problem_answer(Problem(404, "not-found", f"{path}: wanted {', '.join(_GET)} or POST {PATH}"))

    async def _enrich(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            problem = Problem(405, "method-not-allowed", f"{PATH}: got {scope['method']}, wanted POST")
            return problem_answer(problem, (b"allow", b"POST"))
        kind = next((value for name, value in scope["headers"] if name.lower() == b"content-type"), b"")
        if kind.split(b";")[0].strip().lower() != _JSON.encode():
            detail = f"content-type: got {kind.decode('latin-1')!r}, wanted {_JSON}"
            return problem_answer(Problem(415, "unsupported-media-type", detail))
        raw = await read_body(receive, MAX_BODY_BYTES)
        if raw is None:
            return problem_answer(Problem(413, "too-large", f"body: more than {MAX_BODY_BYTES} bytes; ask in parts"))
        try:
            question = self._decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return problem_answer(Problem(400, "invalid-question", f"body: {error}; see /openapi.json"))
        if len(question.items) > MAX_ITEMS:
            detail = f"items: got {len(question.items)}, wanted at most {MAX_ITEMS}; ask in parts"
            return problem_answer(Problem(413, "too-large", detail))
        with ANSWER_SECONDS.time():
            results = [self._result(item) for item in question.items]
        age_s = round(monotonic_s() - self._loaded_s, 3)
        return json_answer(Reply(version=self._reference.version, age_s=age_s, results=results))

    def _result(self, item: Item) -> Result:
        result = self._judged(item)
        ITEMS.labels(result.status).inc()
        return result

    def _judged(self, item: Item) -> Result:
        try:
            body = self._validator.judge_body(item.type, item.data)
            return Result(status="enriched", columns=self._reference.enrich(body))
        except Rejected as rejected:
            return Result(status="refused", field=rejected.path.removeprefix("$.data."), detail=str(rejected))
        except InputRejected as refusal:
            return Result(status="refused", field=refused_field(refusal), detail=str(refusal))
        except Exception as error:  # noqa: BLE001  # any failure of the reference is of this body alone, and answered
            _LOG.exception("enrichment failed", type=item.type[:100])
            return Result(status="failed", detail=f"{type(error).__name__}: {error}"[:300])
