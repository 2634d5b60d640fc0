"""One connection to Redis shared by every request of an event loop: commands go out at once, replies come back in order.

For reads on the hot path only. redis-py's asyncio client takes a connection per call and awaits every reply by itself,
which was half of an online read's time; here a call costs one write and one future. No cluster, no sentinel, no
subscriptions.

The one thing that bites: replies belong to callers by position alone. A caller that gives up (timeout, cancelled request)
therefore keeps its place in the queue and its replies are dropped; taking it out would hand one request's features to the
next.
"""

import asyncio
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
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    replies = await (await self._connected()).send(commands)
                except ConnectionError:
                    # The server may have closed a connection we thought open; a fresh one is tried once.
                    replies = await (await self._connected()).send(commands)
        except TimeoutError as error:
            # A silent server would pile up callers: end the connection, and the next call opens another.
            await self.close()
            raise TransientFailure(f"online store: no answer within {self._timeout_s} s") from error
        except OSError as error:
            raise TransientFailure(f"online store: read failed ({error}); is the server up?") from error
        return _checked(replies)

    async def close(self) -> None:
        """End the connection; callers still waiting get a TransientFailure."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _connected(self) -> "_Connection":
        if self._connection is not None and not self._connection.lost:
            return self._connection
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await self._open()
            return self._connection

    async def _open(self) -> "_Connection":
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
            _checked(await connection.send(greeting))
        except BaseException:
            connection.abort()
            raise
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int]] = deque()
        self._replies: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
            caller, wanted = self._waiting[0]
            if len(self._replies) == wanted:
                self._waiting.popleft()
                if not caller.done():
                    caller.set_result(self._replies)
                self._replies = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        for caller, _ in self._waiting:
            if not caller.done():
                caller.set_exception(ConnectionError(f"connection lost: {exc or 'closed'}"))
        self._waiting.clear()

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        if self.lost:
            raise ConnectionError("connection lost")
        caller: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, len(commands)))
        # hiredis types a command as a tuple of one.
        self._transport.write(b"".join([hiredis.pack_command(command) for command in commands]))  # type: ignore[arg-type]
        return await caller

    def abort(self) -> None:
        self._transport.abort()


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            refusal = TransientFailure if str(reply).startswith(_TEMPORARY) else PermanentFailure
            raise refusal(f"online store: the server answered {reply}")
    return replies
