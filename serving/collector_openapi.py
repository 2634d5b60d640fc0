"""The Collector's OpenAPI document, encoded once."""

from typing import Any

import msgspec

from headway.events import MAX_EVENT_BYTES, MAX_FIELD_CHARS, REQUIRED, TEXTS
from serving.collector_limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from serving.collector_modes import BATCH, PROTOBUF, PROTOBUF_BATCH, SINGLE
from serving.prediction_answers import ProblemAnswer

_ANSWERS = {
    "207": "Some events of the batch were refused; each has its own result",
    "400": "The envelope is not valid and is kept as a letter; names field, got and wanted",
    "408": "The body did not come in time; nothing was stored",
    "413": f"An event over {MAX_EVENT_BYTES} bytes, a batch over {MAX_BATCH_BYTES} bytes or {MAX_BATCH_EVENTS} events",
    "415": "Neither a CloudEvents content type nor ce-* headers; nothing was stored",
    "503": "The log did not acknowledge, or too much is in flight; see Retry-After, send it again with the same id",
}


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is in the log."""

    id: str
    accepted: bool


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event of a batch: ``id`` when it was accepted, else the fields of a problem."""

    index: int
    status: int
    id: str | None = None
    accepted: bool | None = None
    type: str | None = None
    title: str | None = None
    detail: str | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One result per event, in the order they were sent."""

    results: list[BatchResult]


def _document() -> dict[str, Any]:  # Any: a JSON document
    (accepted, batch, problem), components = msgspec.json.schema_components(
        (Accepted, BatchAnswer, ProblemAnswer), ref_template="#/components/schemas/{name}"
    )
    text = {"type": "string", "minLength": 1, "maxLength": MAX_FIELD_CHARS}
    event = {
        "type": "object",
        "description": "A CloudEvent 1.0 whose body is a JSON object; further attributes are kept",
        "required": list(REQUIRED),
        "properties": {
            "specversion": {"const": "1.0"},
            **dict.fromkeys(TEXTS, text),
            "time": {"type": "string", "format": "date-time"},
            "data": {"type": "object"},
        },
    }
    components["CloudEvent"] = event
    one = {"$ref": "#/components/schemas/CloudEvent"}
    binary = {"type": "string", "format": "binary"}
    bodies = {
        SINGLE: one,
        BATCH: {"type": "array", "items": one, "maxItems": MAX_BATCH_EVENTS},
        "application/json": {"type": "object", "description": "The body alone; attributes in ce-* headers"},
        PROTOBUF: binary,
        PROTOBUF_BATCH: binary,
    }
    refusals = {
        status: {"description": why, "content": {"application/problem+json": {"schema": problem}}}
        for status, why in _ANSWERS.items()
    }
    refusals["207"]["content"] = {"application/json": {"schema": batch}}
    operation = {
        "operationId": "collect_events",
        "summary": "Store events; success only after the log acknowledged them",
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in bodies.items()}},
        "responses": {
            "200": {"description": "Every event of the batch is stored", **_json(batch)},
            "202": {"description": "The event is stored", **_json(accepted)},
            **refusals,
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headway Collector", "version": "1"},
        "paths": {"/v1/events": {"post": operation}},
        "components": {"schemas": components},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:  # Any: JSON schemas
    return {"content": {"application/json": {"schema": schema}}}


DOCUMENT = msgspec.json.encode(_document())
