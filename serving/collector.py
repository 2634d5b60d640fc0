"""The Collector: CloudEvents over HTTP into ``events.raw``; success only after the broker acknowledged (DESIGN 7.1).

It judges top-level fields only. An invalid envelope becomes a letter in ``events.raw.dlq`` *and* a 4xx that names the
field; the 4xx is sent only after the letter is acknowledged, else the answer is 503 (S22). Plain ASGI: event intake
must not depend on Ray's head.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import structlog
from uuid_utils import uuid7

from headway.clock import Clock, to_us
from headway.errors import HeadwayError, InputRejected, TransientFailure
from headway.events import MAX_EVENT_BYTES, TICK_TYPE, Event, encode_event, parse_event
from headway.letters import Letter
from headway.ports import Publisher, Record
from headway.problem import Problem, problem_response
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_EVENTS = 1000
# Kafka's own delivery timeout is longer; a client would rather retry than hang (RELIABILITY R3: refuse in <= 3 s).
ACKNOWLEDGE_TIMEOUT_S = 3.0
RETRY_AFTER_S = 2

_LOG = structlog.get_logger()
# Elements stay raw: a letter keeps the bytes as they were sent.
_BATCH = msgspec.json.Decoder(list[msgspec.Raw])
Scope = dict[str, Any]  # Any: ASGI's own mapping
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Outcome:
    """What became of one event of a request."""

    status: int
    body: dict[str, Any]


class Collector:
    """The ASGI application."""

    def __init__(self, publisher: Publisher, clock: Clock, *, collector_id: str) -> None:
        self._publisher = publisher
        self._clock = clock
        self._id = collector_id
        self._ready = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        match scope["method"], scope["path"]:
            case "POST", "/v1/events":
                status, body, headers = await self._events(scope, receive)
            case "GET", "/livez":
                status, body, headers = 200, b'{"status":"alive"}', []
            case "GET", "/readyz":
                status, body, headers = (
                    (200, b'{"status":"ready"}', []) if self._ready else (503, b'{"status":"draining"}', [])
                )
            case _:
                status, body, headers = problem_response(
                    Problem(
                        404, "not-found", f"{scope['method']} {scope['path']}: the Collector answers POST /v1/events"
                    )
                )
        await _answer(send, status, body, headers)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self._ready = False
                await asyncio.to_thread(self._publisher.flush, ACKNOWLEDGE_TIMEOUT_S)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _events(self, scope: Scope, receive: Receive) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get("content-type", "").split(";")[0].strip().lower()
        limit = MAX_BATCH_BYTES if content_type == BATCH else MAX_EVENT_BYTES
        raw = await _read(receive, limit)
        if raw is None:
            return problem_response(
                Problem(
                    413,
                    "too-large",
                    f"body: more than {limit} bytes; send smaller batches, an event is at most {MAX_EVENT_BYTES}",
                )
            )
        request_id = headers.get("x-request-id") or str(uuid7())
        if content_type == SINGLE:
            outcome = await self._accept_bytes(raw, request_id)
            extra = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if outcome.status == 503 else []
            kind = b"application/json" if outcome.status < 400 else b"application/problem+json"
            return outcome.status, orjson.dumps(outcome.body), [(b"content-type", kind), *extra]
        if content_type == BATCH:
            return await self._batch(raw, request_id)
        return problem_response(
            Problem(415, "unsupported-media-type", f"content-type: got {content_type!r}, wanted {SINGLE} or {BATCH}")
        )

    async def _batch(self, raw: bytes, request_id: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        try:
            elements = _BATCH.decode(raw)
        except msgspec.DecodeError as error:
            # One letter for the whole body: without a JSON array there are no single events to keep.
            refusal = InputRejected(f"batch: {error}; wanted a JSON array of CloudEvents")
            rejected = await self._reject(raw, refusal)
            return rejected.status, orjson.dumps(rejected.body), [(b"content-type", b"application/problem+json")]
        if len(elements) > MAX_BATCH_EVENTS:
            detail = f"batch: got {len(elements)} events, wanted at most {MAX_BATCH_EVENTS}"
            return problem_response(Problem(413, "too-large", detail))
        outcomes = await asyncio.gather(*(self._accept_bytes(bytes(element), request_id) for element in elements))
        results = [{"index": index, "status": outcome.status, **outcome.body} for index, outcome in enumerate(outcomes)]
        worst = max((outcome.status for outcome in outcomes), default=200)
        # One refused event does not reject the rest: a mixed batch answers 207 with a result per event.
        status = 200 if worst < 300 else worst if all(o.status == worst for o in outcomes) else 207
        extra = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if worst == 503 else []
        return status, orjson.dumps({"results": results}), [(b"content-type", b"application/json"), *extra]

    async def _accept_bytes(self, raw: bytes, request_id: str) -> Outcome:
        if len(raw) > MAX_EVENT_BYTES:
            return _refused(413, "too-large", f"event: {len(raw)} bytes, wanted at most {MAX_EVENT_BYTES}")
        try:
            event = parse_event(raw)
        except InputRejected as refusal:
            return await self._reject(raw, refusal)
        return await self._accept(event, raw, request_id)

    async def _accept(self, event: Event, raw: bytes, request_id: str) -> Outcome:
        if event.type.startswith("headway."):
            return await self._reject(
                raw, InputRejected(f"type: got {event.type!r}; headway.* ({TICK_TYPE}) is reserved for Headway itself")
            )
        stamped = msgspec.structs.replace(
            event,
            receivedat_us=to_us(self._clock.now()),
            collectorid=self._id,
            requestid=request_id,
            eventsize=len(raw),
        )
        record = Record(
            topic=EVENTS_RAW,
            key=event.subject.encode(),
            value=encode_event(stamped),
            headers=(
                ("ce_type", event.type.encode()),
                ("ce_id", event.id.encode()),
                ("ce_source", event.source.encode()),
            ),
        )
        failure = await self._publish(record)
        return failure or Outcome(202, {"id": event.id, "accepted": True})

    async def _reject(self, raw: bytes, refusal: InputRejected) -> Outcome:
        letter = Letter(reason="invalid-envelope", detail=str(refusal), stage="collector", original=raw)
        failure = await self._publish(letter.to_record(EVENTS_RAW_LETTERS))
        return failure or _refused(400, "invalid-envelope", str(refusal))

    async def _publish(self, record: Record) -> Outcome | None:
        try:
            await asyncio.wait_for(self._publisher.publish_async(record), ACKNOWLEDGE_TIMEOUT_S)
        except (TransientFailure, TimeoutError) as error:
            _LOG.warning("not acknowledged", topic=record.topic, reason=str(error) or "no acknowledgement in time")
            return _refused(
                503,
                "log-unavailable",
                f"the event log did not acknowledge within {ACKNOWLEDGE_TIMEOUT_S} s; nothing was promised, send it again",
            )
        except HeadwayError as error:
            return _refused(500, "log-refused", str(error))
        return None


def _refused(status: int, kind: str, detail: str) -> Outcome:
    return Outcome(status, Problem(status, kind, detail).document())


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the body, or None as soon as it is longer than ``limit`` bytes."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if not any(name == b"content-type" for name, _ in headers):
        headers = [*headers, (b"content-type", b"application/json")]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


def collector_id() -> str:
    """Return a name for this instance that a log reader can find again."""
    return f"{os.uname().nodename}-{os.getpid()}"
