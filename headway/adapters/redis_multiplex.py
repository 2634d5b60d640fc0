"""One connection to Redis shared by every request of an event loop: commands go out at once, replies come back in order.

For reads on the hot path only. redis-py's asyncio client takes a connection per call and awaits every reply by itself,
which was half of an online read's time; here a call costs one write and one future. No cluster, no sentinel, no
subscriptions.

The one thing that bites: replies belong to callers by position alone. A caller that gives up (timeout, cancelled request)
therefore keeps its place in the queue and its replies are dropped; taking it out would hand one request's features to the
next. A timer per call was a tenth of a read, so a connection has one, for the caller that has waited longest.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from headway.errors import PermanentFailure, TransientFailure

Command = tuple[bytes | str, ...]
# Answers of a server that will serve the same command later.
_TEMPORARY = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY")


class MultiplexedRedis:
    """A lazy, self-healing connection for ``redis://`` and ``rediss://`` URLs. Belongs to one event loop."""

    def __init__(self, redis_url: str, *, timeout_s: float) -> None:
        self._url = urlsplit(redis_url)
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, commands: Sequence[Command]) -> list[Any]:  # replies are whatever the command returns
        """One reply per command, in one round trip.

        Raises:
            TransientFailure: no connection, no answer in time, or a server that is loading.
            PermanentFailure: the server refuses a command or the credentials.
        """
        return await self.ask_packed(_packed(commands), len(commands))

    async def ask_packed(self, commands: bytes, count: int) -> list[Any]:
        """The same for commands that are in Redis's own form already; ``count`` says how many they are."""
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        try:
            try:
                replies = await (await self._connected(deadline_s)).send(commands, count, deadline_s)
            except ConnectionError:
                # The server may have closed a connection we thought open; a fresh one is tried once.
                replies = await (await self._connected(deadline_s)).send(commands, count, deadline_s)
        except TimeoutError as error:
            # A silent server would pile up callers: the connection has ended, and the next call opens another.
            raise TransientFailure(f"online store: no answer within {self._timeout_s} s") from error
        except OSError as error:
            raise TransientFailure(f"online store: read failed ({error}); is the server up?") from error
        return _checked(replies)

    async def close(self) -> None:
        """End the connection; callers still waiting get a TransientFailure."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _connected(self, deadline_s: float) -> "_Connection":
        if self._connection is not None and not self._connection.lost:
            return self._connection
        async with asyncio.timeout_at(deadline_s), self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await self._open(deadline_s)
            return self._connection

    async def _open(self, deadline_s: float) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection,
            self._url.hostname or "127.0.0.1",
            self._url.port or 6379,
            ssl=True if self._url.scheme == "rediss" else None,
        )
        greeting: list[Command] = []
        if self._url.password:
            greeting.append(("AUTH", unquote(self._url.username or "default"), unquote(self._url.password)))
        greeting.append(("SELECT", self._url.path.strip("/") or "0"))
        try:
            _checked(await connection.send(_packed(greeting), len(greeting), deadline_s))
        except BaseException:
            connection.abort()
            raise
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        # Who waits, for how many replies, and until when.
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._replies: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
            caller, wanted, _ = self._waiting[0]
            if len(self._replies) == wanted:
                self._waiting.popleft()
                if not caller.done():
                    caller.set_result(self._replies)
                self._replies = []

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection lost: {exc or 'closed'}", overdue_s=-math.inf)

    async def send(self, commands: bytes, count: int, deadline_s: float) -> list[Any]:
        if self.lost:
            raise ConnectionError("connection lost")
        caller: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.append((caller, count, deadline_s))
        if self._timer is None:  # all callers wait equally long, so the first in the queue is the first to give up
            self._timer = self._loop.call_at(deadline_s, self._check_time)
        self._transport.write(commands)
        return await caller

    def abort(self) -> None:
        self._transport.abort()

    def _check_time(self) -> None:
        """End the connection when the first in the queue has waited too long; else look again when it would have."""
        self._timer = None
        if not self._waiting:
            return
        now_s, deadline_s = self._loop.time(), self._waiting[0][2]
        if now_s < deadline_s:
            self._timer = self._loop.call_at(deadline_s, self._check_time)
            return
        self._end("connection ended: another caller got no answer in time", overdue_s=now_s)
        self._transport.abort()

    def _end(self, why: str, *, overdue_s: float) -> None:
        """Take nothing more; those who still have time may try another connection."""
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        for caller, _, deadline_s in self._waiting:
            if not caller.done():
                caller.set_exception(TimeoutError(why) if deadline_s <= overdue_s else ConnectionError(why))
        self._waiting.clear()


def _packed(commands: Sequence[Command]) -> bytes:
    # hiredis types a command as a tuple of one.
    return b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            refusal = TransientFailure if str(reply).startswith(_TEMPORARY) else PermanentFailure
            raise refusal(f"online store: the server answered {reply}")
    return replies
