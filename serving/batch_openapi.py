"""The OpenAPI document of the batch API, made from its own types: written nowhere, so never outdated."""

from collections.abc import Iterable
from typing import Any

import msgspec

from headway.results import MOST_ROWS
from serving.batch_results import PATH, ROWS, RefusedAnswer, RefusedPage, ResultAnswer, ResultsAnswer
from serving.prediction_answers import Model, ProblemAnswer

_REFUSALS = {
    "400": "The question is not valid; names field, got and wanted",
    "404": "No such product",
    "503": "The database is away; see Retry-After",
}
_INSTANT = {"type": "string", "format": "date-time"}
# A row as it may be; which rows there are depends on what was run.
_SUBJECT, _AS_OF, _RUN = "20130701T1500-UA1545-EWR", "2013-07-01T13:00:00Z", "5f1e7a52-0000-4000-8000-000000000000"


def batch_openapi(products: Iterable[str]) -> dict[str, Any]:  # Any: a JSON document
    """Return the OpenAPI 3.1 document."""
    (results, refused, problem), components = msgspec.json.schema_components(
        (ResultsAnswer, RefusedPage, ProblemAnswer), ref_template="#/components/schemas/{name}"
    )
    why = {
        status: {"description": text, "content": {"application/problem+json": {"schema": problem}}}
        for status, text in _REFUSALS.items()
    }
    asked = [
        _parameter("from", _INSTANT, "first as-of", required=True, example="2013-07-01T00:00:00Z"),
        _parameter("until", _INSTANT, "before this as-of", required=True, example="2013-07-08T00:00:00Z"),
        _parameter(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS},
            f"rows of a page, {ROWS} unless told",
        ),
        _parameter("after", {"type": "string"}, "what the page before calls next"),
    ]
    version = _parameter(
        "model_version", {"type": "integer", "minimum": 1}, "answers of this version; without it, of the newest run"
    )
    paths: dict[str, Any] = {}
    for product in products:
        paths[f"{PATH}/{product}"] = {
            "get": {
                "operationId": f"read_{product}",
                "summary": f"What batches answered for {product}",
                "parameters": [*asked, version],
                "responses": {"200": _page(results, _answered(product)), **why},
            }
        }
        paths[f"{PATH}/{product}/refused"] = {
            "get": {
                "operationId": f"read_{product}_refused",
                "summary": "Rows that got no answer, and why",
                "parameters": asked,
                "responses": {"200": _page(refused, _not_answered(product)), **why},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Batch results", "version": "1", "description": "What batches answered, for applications."},
        "paths": paths,
        "components": {"schemas": components},
    }


def _page(schema: dict[str, Any], example: ResultsAnswer | RefusedPage) -> dict[str, Any]:
    shown = {"schema": schema, "example": msgspec.to_builtins(example)}
    return {"description": "A page", "content": {"application/json": shown}}


def _answered(product: str) -> ResultsAnswer:
    row = ResultAnswer(
        subject=_SUBJECT,
        as_of=_AS_OF,
        probability=0.25,
        model=Model(name=product, version=3, digest="0" * 64),
        run_id=_RUN,
        receipt="batch-" + "0" * 32,
    )
    return ResultsAnswer(product=product, results=[row], next=None)


def _not_answered(product: str) -> RefusedPage:
    reason = "dest: got 'XXX', wanted a known airport"
    row = RefusedAnswer(subject=_SUBJECT, as_of=_AS_OF, model_version=3, run_id=_RUN, reason=reason)
    return RefusedPage(product=product, refused=[row], next=None)


def _parameter(name: str, schema: dict[str, Any], description: str, **more: object) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}
