"""One connection for all: who is told what when the server is silent, and that nobody gets another's replies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headway.adapters.redis_multiplex import MultiplexedRedis, _Connection
from headway.errors import PermanentFailure, TransientFailure

FAR_S = 600.0


class Server:
    """Answers each connection with what it is told to; the first ones may be silent."""

    def __init__(self, *, silent: int = 0, reply: bytes = b"+OK\r\n") -> None:
        self.connections = 0
        self._silent, self._reply = silent, reply
        self._open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.append(writer)
        answers = self.connections > self._silent
        while data := await reader.read(1 << 16):
            if answers:
                writer.write(self._reply * data.count(b"*"))

    def close(self) -> None:
        for writer in self._open:
            writer.close()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[int]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        server.close()
        listening.close()
        await listening.wait_closed()


def test_who_has_waited_too_long_is_told_so_and_the_others_may_try_another_connection() -> None:
    """A caller that came late must not fail with the first one: its time has not run out."""

    async def both() -> list[BaseException | list[object]]:
        async with running(Server(silent=1)) as port:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
            now_s = loop.time()
            callers = [
                connection.send(b"*1\r\n$4\r\nPING\r\n", 1, deadline_s) for deadline_s in (now_s + 0.01, now_s + FAR_S)
            ]
            told: list[BaseException | list[object]] = await asyncio.gather(*callers, return_exceptions=True)
            return told

    overdue, late = asyncio.run(both())

    assert isinstance(overdue, TimeoutError)
    assert isinstance(late, ConnectionError)


def test_a_caller_whose_connection_ended_is_answered_by_the_next_one() -> None:
    async def cut_and_asked() -> tuple[list[object], int]:
        server = Server()
        async with running(server) as port:
            redis = MultiplexedRedis(f"redis://127.0.0.1:{port}/0", timeout_s=FAR_S)
            await redis.ask([("PING",)])
            connection = redis._connection
            assert connection is not None
            asked = asyncio.ensure_future(redis.ask([("PING",), ("PING",)]))
            await asyncio.sleep(0)
            connection.abort()
            found = await asked
            await redis.close()
            return found, server.connections

    replies, connections = asyncio.run(cut_and_asked())

    assert (replies, connections) == ([b"OK", b"OK"], 2)


def test_after_a_silence_the_next_call_opens_another_connection() -> None:
    async def twice() -> tuple[bool, list[object], int]:
        server = Server(silent=1)
        async with running(server) as port:
            redis = MultiplexedRedis(f"redis://127.0.0.1:{port}/0", timeout_s=FAR_S)
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
            redis._connection = connection
            with pytest.raises(TimeoutError):
                await connection.send(b"*1\r\n$4\r\nPING\r\n", 1, loop.time() + 0.01)
            found = await redis.ask([("PING",)])
            await redis.close()
            return connection.lost, found, server.connections

    assert asyncio.run(twice()) == (True, [b"OK"], 2)


@pytest.mark.parametrize(
    ("reply", "failure"), [(b"-LOADING it\r\n", TransientFailure), (b"-NOAUTH it\r\n", PermanentFailure)]
)
def test_what_a_server_refuses_is_told_by_whether_it_will_pass(reply: bytes, failure: type[Exception]) -> None:
    async def once() -> None:
        async with running(Server(reply=reply)) as port:
            await MultiplexedRedis(f"redis://127.0.0.1:{port}/0", timeout_s=FAR_S).ask([("PING",)])

    with pytest.raises(failure, match="the server answered"):
        asyncio.run(once())
