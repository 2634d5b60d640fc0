"""The OpenAPI document of the batch API, made from its own types: written nowhere, so never outdated."""

from collections.abc import Iterable
from typing import Any

import msgspec

from headway.results import MOST_ROWS
from serving.batch_results import PATH, RefusedPage, ResultsAnswer
from serving.prediction_answers import ProblemAnswer

_REFUSALS = {
    "400": "The question is not valid; names field, got and wanted",
    "404": "No such product",
    "503": "The database is away; see Retry-After",
}
_INSTANT = {"type": "string", "format": "date-time"}


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
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": 100}, "rows of a page"),
        _parameter("after", {"type": "string"}, "what the page before calls next"),
    ]
    version = _parameter(
        "model_version", {"type": "integer", "minimum": 1}, "answers of this version; without it, of the newest run"
    )
    paths: dict[str, Any] = {}
    for product in products:
        told = ((f"{PATH}/{product}", results, [*asked, version]), (f"{PATH}/{product}/refused", refused, asked))
        for path, schema, parameters in told:
            answer = {"description": "A page", "content": {"application/json": {"schema": schema}}}
            name = path.removeprefix(f"{PATH}/").replace("/", "_")
            paths[path] = {
                "get": {"operationId": f"read_{name}", "parameters": parameters, "responses": {"200": answer, **why}}
            }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Batch results", "version": "1", "description": "What batches answered, for applications."},
        "paths": paths,
        "components": {"schemas": components},
    }


def _parameter(name: str, schema: dict[str, Any], description: str, **more: object) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}
