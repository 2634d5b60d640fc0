"""What the feature API says of itself: its OpenAPI document and its list of services, made from the definitions alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headway.features.catalogue import Catalogue, FeatureEntry
from headway.features.services import FeatureService, ServedFeatures
from serving.feature_answers import FeatureLimits
from serving.prediction_answers import ProblemAnswer

_NUMBERS: Mapping[str, dict[str, Any]] = {  # Any: a JSON document
    "int64": {"type": ["integer", "null"], "format": "int64"},
    "float64": {"type": ["number", "null"], "format": "double"},
}
_INSTANT = {"type": ["string", "null"], "format": "date-time"}
_STATUS = (
    "present: there is a row and the view is fresh. missing: there is none (or the row names no such entity) and the view "
    "is fresh, so count 0 and nulls are the answer. stale: the view is behind, and neither a row nor its absence is certain."
)


def features_openapi(
    services: Iterable[FeatureService], catalogue: Catalogue, limits: FeatureLimits
) -> dict[str, Any]:  # Any: a JSON document
    """Return the OpenAPI 3.1 document of the feature API."""
    (problem,), components = msgspec.json.schema_components(
        (ProblemAnswer,), ref_template="#/components/schemas/{name}"
    )
    why = {
        "400": "The question is not valid; names field, got and wanted",
        "404": "No such service",
        "409": "The store already holds something younger than as_of",
        "413": f"More than {limits.rows} rows or {limits.body_bytes} bytes; ask in parts",
        "415": "The content type is not application/json",
        "503": "The store is away, a view was not backfilled, or too much is asked at once; see Retry-After",
    }
    refusals = {
        status: {"description": text, "content": {"application/problem+json": {"schema": problem}}}
        for status, text in why.items()
    }
    listed = {
        "200": {"description": "The services, their keys, views and features", "content": {"application/json": {}}}
    }
    paths: dict[str, Any] = {"/v1/features": {"get": {"operationId": "list_features", "responses": listed}}}
    for service in services:
        paths[f"/v1/features/{service.name}"] = {"post": _operation(service, _entries(catalogue), limits, refusals)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Features",
            "version": "1",
            "description": "Values of feature views, as the predictor reads them.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def services_document(services: Iterable[FeatureService], catalogue: Catalogue) -> dict[str, Any]:
    """Return what can be asked for: services, keys, views, features and their meaning."""
    entries = _entries(catalogue)
    return {
        "services": [
            {
                "service": service.name,
                "description": service.description,
                "owner": service.owner,
                "keys": service.keys,
                "views": [
                    {
                        "view": served.name,
                        "keys": served.view.keys,
                        "stale_after_s": served.view.max_lag.total_seconds(),
                        "features": [msgspec.to_builtins(entries[served.name, name]) for name in served.features],
                    }
                    for served in service.served
                ],
            }
            for service in services
        ]
    }


def _operation(
    service: FeatureService,
    entries: Mapping[tuple[str, str], FeatureEntry],
    limits: FeatureLimits,
    refusals: Mapping[str, Any],
) -> dict[str, Any]:
    row = {
        "type": "object",
        "required": list(service.keys),
        "additionalProperties": False,
        "properties": {
            key: {"type": ["string", "null"], "description": "null: no such entity"} for key in service.keys
        },
    }
    question = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {"type": "array", "minItems": 1, "maxItems": limits.rows, "items": row},
            "as_of": {**_INSTANT, "description": "the instant the features are for; left out, it is now"},
        },
    }
    state = {
        "type": "object",
        "required": ["watermark", "lag_s", "stale"],
        "properties": {"watermark": _INSTANT, "lag_s": {"type": ["number", "null"]}, "stale": {"type": "boolean"}},
    }
    names = [served.name for served in service.served]
    reply = {
        "type": "object",
        "required": ["service", "as_of", "views", "rows"],
        "properties": {
            "service": {"const": service.name},
            "as_of": {"type": "string", "format": "date-time"},
            "views": {"type": "object", "required": names, "properties": dict.fromkeys(names, state)},
            "rows": {
                "type": "array",
                "description": "one per row, in order",
                "items": {
                    "type": "object",
                    "required": names,
                    "properties": {served.name: _entity(served, entries) for served in service.served},
                },
            },
        },
    }
    return {
        "operationId": f"features_{service.name}",
        "summary": f"Features of: {service.description}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": question}}},
        "responses": {
            "200": {"description": "One answer per row and view", "content": {"application/json": {"schema": reply}}},
            **refusals,
        },
    }


def _entity(served: ServedFeatures, entries: Mapping[tuple[str, str], FeatureEntry]) -> dict[str, Any]:
    values = {name: _value(entries[served.name, name]) for name in served.features}
    return {
        "type": "object",
        "description": served.view.description,
        "required": ["status", "event_timestamp", "age_s", "values"],
        "properties": {
            "status": {"enum": ["present", "missing", "stale"], "description": _STATUS},
            "event_timestamp": {**_INSTANT, "description": "since when the values hold; null without a row"},
            "age_s": {"type": ["number", "null"], "description": "as_of - event_timestamp"},
            "values": {"type": "object", "required": list(values), "properties": values},
        },
    }


def _value(entry: FeatureEntry) -> dict[str, Any]:
    said = f"{entry.meaning} ({entry.unit})" if entry.unit else entry.meaning
    return {**_NUMBERS[entry.dtype], "description": said}


def _entries(catalogue: Catalogue) -> dict[tuple[str, str], FeatureEntry]:
    return {(view.view, entry.name): entry for view in catalogue.views for entry in view.features}
