"""HTTP/1.1 for small requests and small answers: httptools, one task per request, one write per answer, and every bound.

Takes the place of uvicorn's own protocol class in uvicorn's server (sockets, lifespan and drain stay uvicorn's), which
costs three times as much per request and has two holes: a head without end, and a request that never completes.
Refuses what intake does not need: no streamed answers, no upgrades. What bites: ASGI's scope has only ``type``,
``method``, ``path`` and ``headers``.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Any, cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

MAX_HEAD_BYTES = 64 * 1024
# The application answers 408 when a body takes 10 s; whoever is not through by now gets no answer.
REQUEST_TIMEOUT_S = 15.0
# Longer than every timeout of the load balancer, so that this side never closes a connection about to be reused.
KEEP_ALIVE_S = 75.0
_LOOK_EVERY_S = 5.0
_BUFFERED_BYTES = 64 * 1024
_PIPELINED = 16
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LOG = structlog.get_logger()


class LeanHttp(asyncio.Protocol):
    """One connection. Any: ASGI's messages and uvicorn's state are open dictionaries."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's signature
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.app = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.closing = False
        self._state = server_state
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._head_bytes = 0
        self._incoming: _Exchange | None = None
        self._exchanges: deque[_Exchange] = deque()
        self._silent_since = self.loop.time()
        self._began: float | None = self._silent_since
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect a first request soon."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own two classes
        self._look = self.loop.call_later(_LOOK_EVERY_S, self._check_time)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Let those who wait for a body go."""
        self._state.connections.discard(self)
        self._look.cancel()
        self.closing = True
        for exchange in self._exchanges:
            exchange.vanish()

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the head is too long."""
        if self._incoming is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.refuse(400)
        except httptools.HttpParserError:
            self.refuse(400)
        else:
            if self._incoming is None and self._head_bytes > MAX_HEAD_BYTES:
                self.refuse(431)

    def shutdown(self) -> None:
        """Take nothing new; what is being answered is answered (uvicorn calls this when it stops)."""
        self.closing = True
        if not self._exchanges:
            self.transport.close()

    def pause_writing(self) -> None:
        """Read nothing from a client that does not read its answers."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self.transport.resume_reading()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start a head."""
        self._headers, self._url = [], b""
        self._began = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin to answer, or wait for the turn."""
        self._head_bytes = 0
        path, _, _ = self._url.partition(b"?")
        scope = {
            "type": "http",
            "method": self._parser.get_method().decode(),
            "path": path.decode("latin-1"),
            "headers": self._headers,
        }
        self._incoming = exchange = _Exchange(self, scope, keep_alive=self._parser.should_keep_alive())
        self._exchanges.append(exchange)
        if len(self._exchanges) == 1:
            self._answer(exchange)
        elif len(self._exchanges) > _PIPELINED:
            self.transport.pause_reading()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        if self._incoming is not None:
            self._incoming.feed(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self._incoming is not None:
            self._incoming.complete()
        self._incoming, self._began = None, None
        self._silent_since = self.loop.time()

    # What an exchange calls.

    def answered(self, exchange: "_Exchange") -> None:
        """Go on to the next request, or close."""
        self._exchanges.popleft()
        if not exchange.keep_alive or (self.closing and not self._exchanges):
            self.closing = True
            self.transport.close()
        elif self._exchanges:
            self._answer(self._exchanges[0])
            self.transport.resume_reading()

    def refuse(self, status: int) -> None:
        """Say why in a status, when nothing else is being answered, and close."""
        if not self.closing and not self._exchanges:
            self.transport.write(_LINES[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.closing = True
        self.transport.close()

    def _answer(self, exchange: "_Exchange") -> None:
        task = self.loop.create_task(exchange.run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _check_time(self) -> None:
        now = self.loop.time()
        if self._began is not None and now - self._began > REQUEST_TIMEOUT_S:
            self.refuse(408)
        elif not self._exchanges and now - self._silent_since > KEEP_ALIVE_S:
            self.transport.close()
        self._look = self.loop.call_later(_LOOK_EVERY_S, self._check_time)


class _Exchange:
    """One request and its answer: ASGI's ``receive`` and ``send``."""

    __slots__ = ("_body", "_complete", "_gone", "_head", "_http", "_scope", "_size", "_waiter", "done", "keep_alive")

    def __init__(self, http: LeanHttp, scope: dict[str, Any], *, keep_alive: bool) -> None:
        self._http = http
        self._scope = scope
        self._body: list[bytes] = []
        self._size = 0
        self._complete = self._gone = self.done = False
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self.keep_alive = keep_alive

    async def run(self) -> None:
        """Have the application answer; what it fails to answer is a 500 and the end of the connection."""
        try:
            await self._http.app(self._scope, self.receive, self.send)
        except Exception:  # noqa: BLE001 - the client gets an answer, whatever failed
            _LOG.exception("an application failed", path=self._scope["path"])
        if not self.done and not self._gone:
            self.keep_alive = False
            self._finish(_LINES[500] + b"content-length: 0\r\n", b"")

    async def receive(self) -> dict[str, Any]:
        """See ASGI: what is there of the body, or waits for more."""
        if not self._body and not self._complete and (b"expect", b"100-continue") in self._scope["headers"]:
            self._http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._body or self._complete or self._gone):
            self._waiter = self._http.loop.create_future()
            await self._waiter
        if self._gone:
            return {"type": "http.disconnect"}
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._size > _BUFFERED_BYTES:
            self._http.transport.resume_reading()
        self._body, self._size = [], 0
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: dict[str, Any]) -> None:
        """See ASGI: the head is kept until the body is there, then both leave in one write."""
        if message["type"] == "http.response.start":
            lines = [_LINES[message["status"]]]
            for name, value in message["headers"]:
                lines.append(name + b": " + value + b"\r\n")
                if name == b"connection" and value == b"close":
                    self.keep_alive = False
            self._head = b"".join(lines)
        else:
            self._finish(self._head, message["body"])

    def feed(self, body: bytes) -> None:
        """Take a piece of the body; after the answer it is dropped."""
        if self.done:
            return
        self._body.append(body)
        self._size += len(body)
        if self._size > _BUFFERED_BYTES:
            self._http.transport.pause_reading()
        self._wake()

    def complete(self) -> None:
        """Note that the body has ended."""
        self._complete = True
        self._wake()

    def vanish(self) -> None:
        """Note that the client has gone."""
        self._gone = True
        self._wake()

    def _finish(self, head: bytes, body: bytes) -> None:
        self.done = True
        if self._gone:
            return
        if not self.keep_alive and b"\r\nconnection: close" not in head:
            head += b"connection: close\r\n"
        self._http.transport.write(head + b"\r\n" + (b"" if self._scope["method"] == "HEAD" else body))
        if self._size > _BUFFERED_BYTES:
            self._http.transport.resume_reading()
        self._http.answered(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
