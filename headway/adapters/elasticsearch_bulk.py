"""The ``_bulk`` format of Elasticsearch's API: lines out, a verdict per item in. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import orjson

from headway.ports import Document

# A request holds this much at most: a node with a heap of 256 MB gives all indexing a tenth of it.
MAX_BYTES = 2 * 1024 * 1024
MAX_LINES = 1000

# What names the document itself. A 400 of another type ("validation_exception": no shard left) is about the cluster.
_ABOUT_THE_DOCUMENT = frozenset(
    {
        "mapper_parsing_exception",
        "document_parsing_exception",
        "strict_dynamic_mapping_exception",
        "illegal_argument_exception",
    }
)


@dataclass(frozen=True, slots=True)
class Line:
    """A document and the bytes that create it."""

    document: Document
    bytes: bytes


class Verdict(Enum):
    """What a node says to one item."""

    CREATED = auto()
    KNOWN = auto()
    REFUSED = auto()
    LATER = auto()


def bulk_line(document: Document) -> Line:
    """Return the action and source lines of one document."""
    action = {"create": {"_index": document.index, "_id": document.id}}
    return Line(document, orjson.dumps(action) + b"\n" + orjson.dumps(document.fields) + b"\n")


def batches(lines: Sequence[Line], *, max_bytes: int = MAX_BYTES, max_lines: int = MAX_LINES) -> Iterator[list[Line]]:
    """Yield the lines in order in requests of bounded size; a longer line goes alone."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= max_lines or size + len(line.bytes) > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.bytes)
    if batch:
        yield batch


def verdict_of(item: Mapping[str, Any]) -> tuple[Verdict, str]:  # Any: JSON
    """Return the verdict of one item of a bulk answer, and the node's reason where it is not good."""
    status = item["status"]
    if status == 201:
        return Verdict.CREATED, ""
    error = item.get("error", {})
    kind, reason = error.get("type", ""), _reason(error)
    if status == 409 and kind == "version_conflict_engine_exception":
        return Verdict.KNOWN, reason
    if status == 400 and kind in _ABOUT_THE_DOCUMENT:
        return Verdict.REFUSED, reason
    return Verdict.LATER, f"{status} {reason}"


def _reason(error: Mapping[str, Any]) -> str:  # Any: JSON
    """Return the reasons of an error and its causes, outermost first."""
    said = f"{error.get('type', 'no type')}: {error.get('reason', 'no reason')}"
    cause = error.get("caused_by")
    return said if cause is None else f"{said}; {_reason(cause)}"
