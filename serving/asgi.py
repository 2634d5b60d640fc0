"""The little that our plain ASGI applications share: read a bounded body, send one answer.

Refuses to be a framework: routes are a `match` in the application that serves them, since every layer between the port
and a prediction costs more than the prediction (PERFORMANCE.md).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headway.problem import Problem, problem_response

# ASGI's own types: messages are open dictionaries by specification.
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

_JSON: Header = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; ``content-length`` is added when it is sent."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = (_JSON,)


def json_answer(document: object, *headers: Header) -> Answer:
    """Give a 200 with a JSON document."""
    return Answer(200, msgspec.json.encode(document), (_JSON, *headers))


def problem_answer(problem: Problem, *headers: Header) -> Answer:
    """Give an RFC 9457 answer."""
    status, body, fields = problem_response(problem, *headers)
    return Answer(status, body, tuple(fields))


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Return the body, or None as soon as it is longer than ``limit`` bytes."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks, size = [body], len(body)
        while message.get("more_body") and size <= limit:
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        body = b"".join(chunks)
    return None if len(body) > limit else body


async def serve_lifespan(receive: Receive, send: Send, *, at_end: Callable[[], Awaitable[None]]) -> None:
    """Speak ASGI's lifespan: start at once, and at the end close what belongs to the event loop."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await at_end()
    await send({"type": "lifespan.shutdown.complete"})


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer."""
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
