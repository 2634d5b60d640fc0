"""Offered load on a fixed schedule, to count what a client would have lost.

Requests leave at their scheduled instant whether or not earlier ones were answered, nothing is retried, and latency
runs from the *scheduled* instant: a stalled server cannot hide its stall by slowing the client down.
It refuses to be a benchmark of rates: one Python process offers a few thousand requests a second at most, so read
``start_slip_s`` before believing a tail. What bites: a connection closed by the server while it was idle is dropped
quietly, as any pooled client does; one closed after a request was written counts as ``reset``.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httptools


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request of the schedule."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def encoded(self, host: str) -> bytes:
        """Give the bytes on the wire."""
        fields = {"host": host, "content-length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every request offered; times in seconds, latencies sorted and of answered requests only."""

    offered: int
    by_status: Mapping[int, int]
    by_tag: Mapping[str, int]
    refused: int
    reset: int
    timed_out: int
    latencies_s: tuple[float, ...]
    start_slip_s: float

    @property
    def succeeded(self) -> int:
        """Count the answers with a 2xx status."""
        return sum(n for status, n in self.by_status.items() if 200 <= status < 300)

    @property
    def failed(self) -> int:
        """Count everything that was not a 2xx answer."""
        return self.offered - self.succeeded

    def latency_s(self, quantile: float) -> float:
        """Give a latency quantile, nearest rank. Raises ValueError when nothing was answered."""
        if not self.latencies_s:
            msg = f"no latency: none of {self.offered} requests was answered"
            raise ValueError(msg)
        return self.latencies_s[min(int(quantile * len(self.latencies_s)), len(self.latencies_s) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What became of one request. ``due_s`` is its instant in the schedule, by the loop's clock, which is the monotonic.

    Attributes:
        place: in the schedule, from 0.
        status: of the answer; 0 when there was none.
        body: of the answer.
        lost: why there was none.
        latency_s: from ``due_s`` to the answer, or to giving up.
    """

    place: int
    due_s: float
    status: int
    body: bytes
    lost: str | None
    latency_s: float


Tell = Callable[[Answered], None]


class _Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection that carries one request at a time."""

    def __init__(self, tag_header: bytes) -> None:
        self._tag_header = tag_header
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self._tag = ""
        self._body: list[bytes] = []
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(str(exc or "closed without an answer")))

    def send(self, wire: bytes) -> asyncio.Future[tuple[int, str, bytes]]:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._tag = ""
        self._body = []
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return self._answer

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(ConnectionResetError(f"unreadable answer: {error}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == self._tag_header:
            self._tag = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        self.usable = self.usable and self._parser.should_keep_alive()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._tag, b"".join(self._body)))

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()


class _Offer:
    """The state of one run: idle connections and tallies."""

    def __init__(self, *, host: str, port: int, timeout_s: float, tag_header: str, told: Tell | None) -> None:
        self._host, self._port, self._timeout_s, self._told = host, port, timeout_s, told
        self._tag_header = tag_header.lower().encode()
        self._idle: list[_Connection] = []
        self.statuses: Counter[int] = Counter()
        self.tags: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.latencies_s: list[float] = []

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._tag_header), self._host, self._port)
        return connection

    async def exchange(self, request: HttpRequest, *, due: float, place: int) -> None:
        loop = asyncio.get_running_loop()
        connection: _Connection | None = None
        status, body, lost = 0, b"", None
        try:
            async with asyncio.timeout_at(due + self._timeout_s):
                connection = await self._connection()
                status, tag, body = await connection.send(request.encoded(f"{self._host}:{self._port}"))
        except TimeoutError:
            lost = self._lose("timed_out", connection)
        except ConnectionRefusedError:
            lost = self._lose("refused", connection)
        except OSError:
            lost = self._lose("reset", connection)
        else:
            self.latencies_s.append(loop.time() - due)
            self.statuses[status] += 1
            self.tags[tag] += 1
            if connection.usable:
                self._idle.append(connection)
        if self._told is not None:
            waited_s = loop.time() - due
            self._told(Answered(place=place, due_s=due, status=status, body=body, lost=lost, latency_s=waited_s))

    def _lose(self, outcome: str, connection: _Connection | None) -> str:
        self.lost[outcome] += 1
        if connection is not None:
            connection.close()
        return outcome

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def offer_load(
    request_at: Callable[[int], HttpRequest],
    *,
    host: str,
    port: int,
    rate_per_s: float,
    duration_s: float,
    timeout_s: float,
    tag_header: str,
    told: Tell | None = None,
    stopped: Callable[[], bool] | None = None,
) -> LoadReport:
    """Offer ``rate_per_s * duration_s`` requests evenly spaced and tell what became of each.

    Args:
        request_at: the request of each place in the schedule, from 0.
        host: address of the load balancer or server.
        port: its port.
        rate_per_s: requests a second.
        duration_s: length of the schedule; the call returns when the last request is settled.
        timeout_s: how long a client waits, from the scheduled instant, connecting included.
        tag_header: a response header to count answers by, such as the one that names the model version.
        told: is given what became of each request, in the order of their ends.
        stopped: ends the schedule early once it holds.
    """
    loop = asyncio.get_running_loop()
    offer = _Offer(host=host, port=port, timeout_s=timeout_s, tag_header=tag_header, told=told)
    begin, slip_s, offered = loop.time() + 0.01, 0.0, 0
    async with asyncio.TaskGroup() as tasks:
        for place in range(round(rate_per_s * duration_s)):
            due = begin + place / rate_per_s
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if stopped is not None and stopped():
                break
            offered, slip_s = place + 1, max(slip_s, loop.time() - due)
            tasks.create_task(offer.exchange(request_at(place), due=due, place=place))
    offer.close()
    return LoadReport(
        offered=offered,
        by_status=dict(sorted(offer.statuses.items())),
        by_tag=dict(sorted(offer.tags.items())),
        refused=offer.lost["refused"],
        reset=offer.lost["reset"],
        timed_out=offer.lost["timed_out"],
        latencies_s=tuple(sorted(offer.latencies_s)),
        start_slip_s=slip_s,
    )
