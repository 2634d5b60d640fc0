"""uvicorn's HTTP protocol with the bounds it lacks: on the size of a request's head, and on the time to send a request.

Without them one client holds memory for as long as it likes: llhttp collects headers without end, and a connection that
never completes a request is never closed. A load balancer in front bounds both as well; this is for those who have none.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
# The application answers 408 when a body takes 10 s; whoever is not through by now gets no answer.
_REQUEST_TIMEOUT_S = 15.0


class BoundedHttp(HttpToolsProtocol):
    """One connection. A head may be longer than the bound by what the kernel hands over at once."""

    _head_bytes = 0
    _in_head = False
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a first request soon."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless the head is too long."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._give_up(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count and to wait."""
        self._in_head, self._head_bytes = True, 0
        self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop waiting."""
        self._disarm()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._disarm()
        self._late = self.loop.call_later(_REQUEST_TIMEOUT_S, self._give_up, b"408 Request Timeout")

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
