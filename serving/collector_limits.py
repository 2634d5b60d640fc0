"""How much the Collector takes at once, how long it waits, and what it says when that is too much.

Every bound is on memory or time that a client could otherwise take from others. Answers here leave nothing anywhere.
"""

import asyncio
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from headway.events import MAX_EVENT_BYTES
from headway.problem import Problem
from serving.asgi import Header, Receive

# The most a structured event may be, with the envelope of binary mode beside its body.
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_EVENTS = 1000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one Collector process.

    ``requests`` and ``body_bytes`` bound what is in flight; a load balancer sends 64 requests at a time.
    ``body_timeout_s`` is how long a client may take to send its body.
    """

    requests: int = 512
    body_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 10.0


class Refused(Exception):
    """A request that is answered at once and leaves nothing anywhere."""

    def __init__(self, problem: Problem, *headers: Header) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers


class Admission:
    """Counts what is in flight. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self._body_bytes = 0

    def enter(self, size: int) -> None:
        """Take a request in; each must `leave` again.

        Raises:
            Refused: there is no room for it now.
        """
        if self.requests >= self.limits.requests or self._body_bytes + size > self.limits.body_bytes:
            detail = f"{self.requests} requests in flight (at most {self.limits.requests}); nothing was stored, send it again"
            raise Refused(Problem(503, "overloaded", detail), (b"retry-after", b"1"))
        self.requests += 1
        self._body_bytes += size

    def leave(self, size: int) -> None:
        """Let a request go."""
        self.requests -= 1
        self._body_bytes -= size


def declared_size(headers: Iterable[Header], limit: int) -> int:
    """Return how many bytes to set aside for a body: what its length header says, or the limit without one.

    Raises:
        Refused: it says more than the limit.
    """
    for name, value in headers:
        if name == b"content-length":
            size = int(value)  # the HTTP parser lets digits through, nothing else
            if size > limit:
                raise too_large(limit)
            return size
    return limit


def too_large(limit: int) -> Refused:
    """Give the refusal of a body beyond its limit."""
    detail = f"body: more than {limit} bytes; send smaller batches, an event is at most {MAX_EVENT_BYTES}"
    return Refused(Problem(413, "too-large", detail))


async def read_body(receive: Receive, *, limit: int, timeout_s: float) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: it is longer than the limit, comes too slowly, or the client went away.
    """
    message = await _timely(receive, timeout_s)
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        deadline = asyncio.get_running_loop().time() + timeout_s
        chunks, size = [body], len(body)
        while message.get("more_body") and size <= limit:
            message = await _timely(receive, deadline - asyncio.get_running_loop().time())
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        body = b"".join(chunks)
    if message["type"] == "http.disconnect":
        raise Refused(Problem(400, "incomplete-body", "body: the connection ended before it was complete"))
    if len(body) > limit:
        raise too_large(limit)
    return body


async def _timely(receive: Receive, timeout_s: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            return await receive()
    except TimeoutError:
        detail = "body: not complete in time; nothing was stored, send it again"
        raise Refused(Problem(408, "too-slow", detail), (b"connection", b"close")) from None
