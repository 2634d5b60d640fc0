"""The OpenAPI document of a prediction API, made from the product's request type: written nowhere, so never outdated."""

from typing import Any

import msgspec

from headway.product import Product

_REFUSALS = {
    "400": "The request is not valid; names field, got and wanted",
    "409": "The store already holds something younger than as_of",
    "413": "The body is too large",
    "415": "The content type is not application/json",
    "503": "No replica is free or ready; see Retry-After",
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model version that answered; ``digest`` is the hash of the bytes it was loaded from."""

    name: str
    version: int
    digest: str


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh the features were: oldest watermark and its lag, views that lag too far, views without a row."""

    watermark: str | None
    lag_s: float | None
    stale: list[str]
    missing: list[str]
    degraded: bool


class PredictionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction; from ``receipt`` it can be recomputed."""

    product: str
    probability: float
    as_of: str
    model: Model
    features: Features
    receipt: str


class ProblemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def openapi_document(product: Product, *, version: int) -> dict[str, Any]:  # Any: a JSON document
    """Return the OpenAPI 3.1 document of a product's prediction API."""
    types = (product.request, PredictionAnswer, ProblemAnswer)
    (request, answer, problem), components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    refusals = {
        status: {"description": why, "content": {"application/problem+json": {"schema": problem}}}
        for status, why in _REFUSALS.items()
    }
    answered = {"description": product.description, "content": {"application/json": {"schema": answer}}}
    operation = {
        "operationId": f"predict_{product.name}",
        "summary": product.description,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {"200": answered, **refusals},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{product.name} predictions", "version": str(version), "description": product.description},
        "paths": {f"/v1/{product.name}/predict": {"post": operation}},
        "components": {"schemas": components},
    }
