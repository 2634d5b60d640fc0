"""The OpenAPI document of a prediction API, made from the product's request type and the model's own golden request.

Written nowhere, so never outdated; its example is a request the model was proven with, so it runs as it stands.
"""

from typing import Any

import msgspec

from headway.clock import format_us
from headway.manifest import GoldenRequest, Manifest
from headway.predictions import ModelId
from headway.product import Product
from serving.prediction_answers import PredictionAnswer, ProblemAnswer, RowsAnswer

_REFUSALS = {
    "400": "The request is not valid; names field, got and wanted",
    "409": "The store already holds something younger than as_of",
    "413": "The body is too large",
    "415": "The content type is not application/json",
    "503": "No replica is free or ready; see Retry-After",
}
_ROWS = "A row that cannot be answered is a problem by itself; all rows are read at one instant."
_FURTHER = "The Open Inference Protocol (v2) answers the same over HTTP, under ``/v2/models/{name}``, and over gRPC."
# Shown where an answer has one of its own.
_RECEIPT = "01938c1e-7a00-7000-8000-000000000000"


def openapi_document(
    product: Product, manifest: Manifest, *, model: ModelId, rows: int
) -> dict[str, Any]:  # Any: a JSON document
    """Return the OpenAPI 3.1 document of a product's prediction API; ``rows`` is how many one question may hold."""
    types = (product.request, PredictionAnswer, RowsAnswer, ProblemAnswer)
    (request, answer, row_answers, problem), components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    golden = manifest.golden[0]
    asked, answered = _example(golden), _answered(product, golden, model)
    row = {name: answered[name] for name in ("probability", "as_of", "features", "receipt")}
    question = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {"rows": {"type": "array", "minItems": 1, "maxItems": rows, "items": request}},
    }
    many = {
        "product": product.name,
        "model": answered["model"],
        "rows": [{"index": 0, "status": 200, **row}],
    }
    refusals = {
        status: {"description": why, "content": {"application/problem+json": {"schema": problem}}}
        for status, why in _REFUSALS.items()
    }
    one_said = {"200": {"description": "The prediction", "content": _json(answer, answered)}}
    many_said = {
        "200": {"description": "Every row is answered", "content": _json(row_answers, many)},
        "207": {"description": "Some rows are refused; each says why", "content": _json(row_answers)},
    }
    one = {
        "operationId": f"predict_{product.name}",
        "summary": "One prediction",
        "requestBody": {"required": True, "content": _json(request, asked)},
        "responses": {**one_said, **refusals},
    }
    several = {
        "operationId": f"predict_{product.name}_rows",
        "summary": f"The same for up to {rows} requests at once",
        "description": _ROWS,
        "requestBody": {"required": True, "content": _json(question, {"rows": [asked]})},
        "responses": {**many_said, **refusals},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{product.name} predictions",
            "version": str(model.version),
            "description": f"{product.description} {_FURTHER.format(name=product.name)}",
        },
        "paths": {f"/v1/{product.name}/predict": {"post": one}, f"/v1/{product.name}/predict/rows": {"post": several}},
        "components": {"schemas": components},
    }


def _json(schema: dict[str, Any], example: object = None) -> dict[str, Any]:  # Any: JSON documents
    shown = {} if example is None else {"example": example}
    return {"application/json": {"schema": schema, **shown}}


def _example(golden: GoldenRequest) -> dict[str, Any]:
    """The request without its instant: the store no longer holds what was known then."""
    request: dict[str, Any] = msgspec.json.decode(golden.request)
    return {name: value for name, value in request.items() if name != "as_of"}


def _answered(product: Product, golden: GoldenRequest, model: ModelId) -> dict[str, Any]:
    as_of = format_us(golden.as_of_us)
    return {
        "product": product.name,
        "probability": golden.score,
        "as_of": as_of,
        "model": msgspec.to_builtins(model),
        "features": {"watermark": as_of, "lag_s": 0.0, "stale": [], "missing": [], "degraded": False},
        "receipt": _RECEIPT,
    }
