"""One error shape for every HTTP answer: RFC 9457 problem details with a stable ``type``."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

TYPE_PREFIX = "urn:headway:problem:"


@dataclass(frozen=True)
class Problem:
    """Why a request was not served. ``detail`` names field, got and wanted."""

    status: int
    kind: str
    detail: str

    def document(self) -> dict[str, Any]:
        """Return the problem+json object."""
        return {
            "type": TYPE_PREFIX + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }


def problem_response(problem: Problem, *headers: tuple[bytes, bytes]) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return status, body and headers of a problem answer."""
    return problem.status, orjson.dumps(problem.document()), [(b"content-type", b"application/problem+json"), *headers]
