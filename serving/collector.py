"""The Collector: CloudEvents over HTTP into ``events.raw``; success only after the broker acknowledged (DESIGN 7.1).

It judges top-level fields only. An invalid envelope becomes a letter in ``events.raw.dlq`` *and* a 4xx that names the
field; the 4xx is sent only after the letter is acknowledged, else the answer is 503 (S22). Plain ASGI: event intake
must not depend on Ray's head. docs/collector.md has every answer and what it leaves behind.
"""

import os
from collections.abc import Sequence

import msgspec
import orjson
import structlog
from uuid_utils import uuid7

from headway.clock import Clock, monotonic_s
from headway.errors import HeadwayError, InputRejected, PermanentFailure, TransientFailure
from headway.events import MAX_EVENT_BYTES
from headway.ports import Publisher, Record
from headway.problem import Problem
from serving.asgi import Answer, Header, Receive, Scope, Send, json_answer, problem_answer, send_answer
from serving.collector_envelope import Stamp
from serving.collector_judged import Judged, judge, judge_all, letter_of_request
from serving.collector_limits import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    Admission,
    Limits,
    Refused,
    declared_size,
    read_body,
)
from serving.collector_log import AcknowledgedLog, LogAway
from serving.collector_metrics import CollectorMetrics
from serving.collector_modes import Form, NotAnEvent, read_form
from serving.collector_openapi import DOCUMENT

_RETRY_AFTER: Header = (b"retry-after", b"2")
_PROBLEM_JSON: Header = (b"content-type", b"application/problem+json")
_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"),)
_LONGEST_REQUEST_ID = 128
_TRACEPARENT_LENGTH = 55
_LOG = structlog.get_logger()


class Accepted(msgspec.Struct, gc=False):
    """What is said of an event of a batch that is in the log."""

    index: int
    id: str | None
    status: int = 202
    accepted: bool = True


class Collector:
    """The ASGI application."""

    def __init__(self, publisher: Publisher, clock: Clock, *, collector_id: str, limits: Limits | None = None) -> None:
        self._clock = clock
        self._id = collector_id
        self._draining = False
        self._admission = Admission(limits or Limits())
        self.log = AcknowledgedLog(publisher)
        self.metrics = CollectorMetrics(
            in_flight=lambda: self._admission.requests, log_there=lambda: self.log.away is None
        )

    def drain(self) -> None:
        """Say from now on that this instance wants nothing new; what comes is still answered. Safe from any thread."""
        self._draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or speak ASGI's lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["path"] == "/v1/events" and scope["method"] == "POST":
            answer = await self._post(scope, receive)
        else:
            answer = self._other(scope["method"], scope["path"])
        await send_answer(send, answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await self.log.start()
            await send({"type": "lifespan.startup.complete"})
        self.drain()
        try:
            await self.log.stop()
        except TransientFailure as failure:  # whoever waited for those records was answered 503
            _LOG.warning("records left behind", reason=str(failure))
        await send({"type": "lifespan.shutdown.complete"})

    def _other(self, method: str, path: str) -> Answer:
        match method, path:
            case "GET", "/livez":
                return json_answer({"status": "alive"})
            case "GET", "/readyz":
                why = "draining" if self._draining else self.log.away
                return (
                    json_answer({"status": "ready"}) if why is None else problem_answer(Problem(503, "not-ready", why))
                )
            case "GET", "/metrics":
                return self.metrics.page()
            case "GET", "/v1/events/openapi.json":
                return Answer(200, DOCUMENT)
            case _, "/v1/events":
                detail = f"{method} /v1/events: wanted POST"
                return problem_answer(Problem(405, "method-not-allowed", detail), (b"allow", b"POST"))
            case _:
                detail = f"{method} {path}: the Collector answers POST /v1/events"
                return problem_answer(Problem(404, "not-found", detail))

    async def _post(self, scope: Scope, receive: Receive) -> Answer:
        headers = scope["headers"]
        try:
            form = read_form(headers)
            limit = MAX_BATCH_BYTES if form.batched else MAX_EVENT_BYTES
            size = declared_size(headers, limit)
            self._admission.enter(size)
            try:
                body = await read_body(receive, limit=limit, timeout_s=self._admission.limits.body_timeout_s)
                self.metrics.read(len(body))
                return await (self._batch if form.batched else self._single)(form, body, self._stamp(headers))
            finally:
                self._admission.leave(size)
        except NotAnEvent as refusal:
            return self._refuse(Problem(415, "unsupported-media-type", str(refusal)))
        except Refused as refusal:
            return self._refuse(refusal.problem, *refusal.headers)

    async def _single(self, form: Form, body: bytes, stamp: Stamp) -> Answer:
        judged = judge(form, body, stamp)
        problem = (await self._settle([judged]))[0]
        if problem is None:
            return Answer(202, b'{"id":%b,"accepted":true}' % orjson.dumps(judged.event_id), _JSON)
        return _problem(problem)

    async def _batch(self, form: Form, body: bytes, stamp: Stamp) -> Answer:
        try:
            events = judge_all(form, body, stamp)
        except InputRejected as refusal:
            # One letter for the whole body: there are no single events to keep. Its headers are the batch's.
            letter = letter_of_request(body, refusal, (("content-type", form.content_type.encode()),))
            [problem] = await self._settle([letter])
            assert problem is not None
            return _problem(problem)
        if len(events) > MAX_BATCH_EVENTS:
            detail = f"batch: got {len(events)} events, wanted at most {MAX_BATCH_EVENTS}"
            return self._refuse(Problem(413, "too-large", detail))
        return _batch_answer(events, await self._settle(events))

    async def _settle(self, events: Sequence[Judged]) -> list[Problem | None]:
        """Write what is to be written and give each event's problem, None for an accepted one. Counts both."""
        records = [event.record for event in events if event.record is not None]
        failures = await self._write(records)
        if not failures and all(event.problem is None for event in events):
            self.metrics.accepted(len(events))
            return [None] * len(events)
        problems: list[Problem | None] = []
        place = 0
        accepted = 0
        for event in events:
            problem = event.problem
            if event.record is not None:
                failure = failures.get(place) if failures else None
                place += 1
                if failure is not None:
                    problem = _unwritten(failure)
                elif problem is None:
                    accepted += 1
                else:
                    self.metrics.letter()
            if problem is not None:
                self.metrics.refused(problem.kind)
            problems.append(problem)
        if accepted:
            self.metrics.accepted(accepted)
        return problems

    async def _write(self, records: Sequence[Record]) -> "dict[int, HeadwayError]":
        began = monotonic_s()
        try:
            if len(records) == 1:
                await self.log.write(records[0])
                failures = {}
            else:
                failures = dict(await self.log.write_each(records)) if records else {}
        except HeadwayError as failure:
            return dict.fromkeys(range(len(records)), failure)
        self.metrics.acknowledged(monotonic_s() - began)
        return failures

    def _stamp(self, headers: Sequence[Header]) -> Stamp:
        request_id, traceparent = None, None
        for name, value in headers:
            if name == b"x-request-id" and len(value) <= _LONGEST_REQUEST_ID:
                request_id = value.decode("latin-1")
            elif name == b"traceparent" and len(value) == _TRACEPARENT_LENGTH:
                traceparent = value
        return Stamp(
            clock=self._clock,
            collector_id=self._id,
            request_id=request_id or str(uuid7()),
            traceparent=traceparent,
        )

    def _refuse(self, problem: Problem, *headers: Header) -> Answer:
        self.metrics.refused(problem.kind)
        return problem_answer(problem, *headers)


def _unwritten(failure: HeadwayError) -> Problem:
    match failure:
        case LogAway():
            return Problem(503, "log-unavailable", f"{failure}; nothing was stored, send it again")
        case PermanentFailure():
            return Problem(500, "log-refused", str(failure))
        case _:
            # A repeat with the same id is dropped by the Enricher, if this one was written after all (S12).
            return Problem(503, "not-acknowledged", f"{failure}; nothing was promised, send it again with the same id")


def _problem(problem: Problem) -> Answer:
    return problem_answer(problem, *([_RETRY_AFTER] if problem.status == 503 else []))


def _batch_answer(events: Sequence[Judged], problems: Sequence[Problem | None]) -> Answer:
    """One refused event does not reject the rest: a mixed batch answers 207 with a result per event."""
    results = [
        Accepted(index, event.event_id) if problem is None else {"index": index, **problem.document()}
        for index, (event, problem) in enumerate(zip(events, problems, strict=True))
    ]
    statuses = {200 if problem is None else problem.status for problem in problems} or {200}
    status = statuses.pop() if len(statuses) == 1 else 207
    extra = [_RETRY_AFTER] if any(problem is not None and problem.status == 503 for problem in problems) else []
    return Answer(status, msgspec.json.encode({"results": results}), (*_JSON, *extra))


def collector_id() -> str:
    """Return a name for this instance that a log reader can find again."""
    return f"{os.uname().nodename}-{os.getpid()}"
