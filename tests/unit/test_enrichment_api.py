import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
import pytest

from domains.flights.domain import DOMAIN
from domains.flights.reference import load_reference
from serving.asgi import Answer
from serving.enrichment import MAX_BODY_BYTES, EnrichmentApi

REFERENCE = load_reference()
FLIGHT = DOMAIN.contract("flight.departed.v1").example
JSON = {"content-type": "application/json"}


def ask(
    api: EnrichmentApi, body: bytes = b"", *, method: str = "POST", path: str = "/v1/enrich", headers: Any = JSON
) -> Answer:
    return asyncio.run(_ask(api, body, method=method, path=path, headers=headers))


async def _ask(api: EnrichmentApi, body: bytes, *, method: str, path: str, headers: Mapping[str, str]) -> Answer:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await api(scope, receive, send)
    return Answer(sent[0]["status"], sent[1]["body"], tuple(sent[0]["headers"]))


@pytest.fixture
def api() -> EnrichmentApi:
    return EnrichmentApi(DOMAIN, REFERENCE)


def question(*items: object) -> bytes:
    return orjson.dumps({"items": items})


def results(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    found: list[dict[str, Any]] = orjson.loads(answer.body)["results"]
    return found


def test_a_body_that_breaks_its_contract_is_refused_by_field_and_the_rest_is_answered(api: EnrichmentApi) -> None:
    wrong = {**(FLIGHT or {}), "dep_delay_min": "ten"}
    given = [
        {"type": "flight.departed.v1", "data": FLIGHT},
        {"type": "flight.departed.v1", "data": wrong},
        {"type": "flight.vanished.v1", "data": FLIGHT},
        {"type": "flight.departed.v1", "data": {**(FLIGHT or {}), "origin": "XXX"}},
    ]

    answered, schema, unknown, refused = results(ask(api, question(*given)))

    assert answered["status"] == "enriched"
    assert (schema["status"], schema["field"]) == ("refused", "dep_delay_min")
    assert "Expected `int`, got `str`" in schema["detail"]
    assert "flight.vanished.v1" in unknown["detail"]
    assert (refused["status"], refused["field"]) == ("refused", "origin")
    assert "got 'XXX', wanted one of the" in refused["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", JSON, 400, "truncated"),
        (b'{"items":[{"type":1,"data":{}}]}', JSON, 400, "$.items[0].type"),
        (b'{"items":' + b"[" * 10_000, JSON, 400, "body: "),
        (question(), {"content-type": "text/plain"}, 415, "text/plain"),
        (b" " * (MAX_BODY_BYTES + 1), JSON, 413, "ask in parts"),
        (question(*[{"type": "x", "data": {}}] * 1001), JSON, 413, "got 1001"),
    ],
)
def test_what_is_no_question_is_a_problem_that_says_why(
    api: EnrichmentApi, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = ask(api, body, headers=headers)

    assert answer.status == status
    assert (b"content-type", b"application/problem+json") in answer.headers
    assert words in orjson.loads(answer.body)["detail"]


def test_other_methods_and_paths_are_told_what_there_is(api: EnrichmentApi) -> None:
    assert ask(api, method="GET").status == 405
    assert b"wanted /livez" in ask(api, method="GET", path="/v1/else").body
    assert ask(api, method="DELETE", path="/livez").status == 404


def test_a_replica_that_leaves_is_alive_and_not_ready(api: EnrichmentApi) -> None:
    api.draining = True

    assert ask(api, method="GET", path="/livez").status == 200
    leaving = ask(api, method="GET", path="/readyz")
    assert (leaving.status, (b"retry-after", b"1") in leaving.headers) == (503, True)


class Broken:
    version = "broken"

    def enrich(self, body: msgspec.Struct) -> dict[str, Any]:
        if getattr(body, "tail", None) == "BOOM":
            raise ZeroDivisionError("planted")
        return REFERENCE.enrich(body)


def test_a_body_on_which_our_code_fails_does_not_take_the_batch_with_it() -> None:
    given = [{"type": "flight.departed.v1", "data": {**(FLIGHT or {}), "tail": tail}} for tail in ("BOOM", "N14228")]

    failed, answered = results(ask(EnrichmentApi(DOMAIN, Broken()), question(*given)))

    assert (failed["status"], failed["detail"]) == ("failed", "ZeroDivisionError: planted")
    assert answered["status"] == "enriched"


def test_metrics_count_items_by_answer(api: EnrichmentApi) -> None:
    ask(api, question({"type": "flight.departed.v1", "data": FLIGHT}))

    assert b'headway_enrichment_items_total{status="enriched"}' in ask(api, method="GET", path="/metrics").body
