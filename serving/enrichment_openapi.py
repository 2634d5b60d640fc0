"""The OpenAPI document of the Enrichment API, made from the domain's contracts: written nowhere, so never outdated."""

from typing import Any

import msgspec

from headway.contracts import ColumnType, Domain

_JSON_TYPES: dict[ColumnType, dict[str, Any]] = {
    "string": {"type": ["string", "null"]},
    "int64": {"type": ["integer", "null"], "format": "int64"},
    "float64": {"type": ["number", "null"], "format": "double"},
    "timestamp": {"type": ["string", "null"], "format": "date-time"},
}
_REFUSALS = {
    "400": "The question cannot be read; names field, got and wanted",
    "405": "The method is not POST",
    "413": "More than 1 MiB or 1,000 items; ask in parts",
    "415": "The content type is not application/json",
    "503": "No replica is free or ready; see Retry-After",
}


def enrichment_openapi(domain: Domain) -> dict[str, Any]:  # Any: a JSON document
    """Return the OpenAPI 3.1 document of a domain's Enrichment API."""
    bodies = [contract.body for contract in domain.contracts]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    columns = {name: _JSON_TYPES[kind] for name, kind in domain.enrichment.items()}
    problem = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    item = {
        "oneOf": [
            {
                "type": "object",
                "required": ["type", "data"],
                "properties": {"type": {"const": contract.event_type}, "data": schema},
            }
            for contract, schema in zip(domain.contracts, schemas, strict=True)
        ]
    }
    result = {
        "oneOf": [
            {
                "type": "object",
                "required": ["status", "columns"],
                "properties": {
                    "status": {"const": "enriched"},
                    "columns": {"type": "object", "required": list(columns), "properties": columns},
                },
            },
            {
                "type": "object",
                "required": ["status", "detail"],
                "properties": {
                    "status": {"enum": ["refused", "failed"]},
                    "field": {"type": "string"},
                    "detail": {"type": "string", "description": "field, got, wanted, and what to do"},
                },
            },
        ]
    }
    reply = {
        "type": "object",
        "required": ["version", "age_s", "results"],
        "properties": {
            "version": {"type": "string", "description": "hash of the reference data"},
            "age_s": {"type": "number", "description": "seconds since the replica loaded it"},
            "results": {"type": "array", "items": result, "description": "one per item, in order"},
        },
    }
    question = {
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "maxItems": 1000, "items": item}},
    }
    example = {"items": [{"type": c.event_type, "data": c.example} for c in domain.contracts if c.example]}
    refusals = {
        status: {"description": why, "content": {"application/problem+json": {"schema": problem}}}
        for status, why in _REFUSALS.items()
    }
    operation = {
        "operationId": "enrich",
        "summary": f"Enrichment columns for bodies of domain {domain.name}",
        "requestBody": {"required": True, "content": {"application/json": {"schema": question, "example": example}}},
        "responses": {
            "200": {"description": "One result per item", "content": {"application/json": {"schema": reply}}},
            **refusals,
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{domain.name} enrichment", "version": "1", "description": "Static reference data."},
        "paths": {"/v1/enrich": {"post": operation}},
        "components": {"schemas": components},
    }
