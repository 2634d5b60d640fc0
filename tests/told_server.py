"""A server on loopback that answers a client as it is told, and ways to ask it: from a thread and from an event loop."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec
import pytest

from headway.client import AsyncClient, Client
from headway.client_call import Policy


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the server answers next; ``status`` 0 breaks the connection off."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0


@dataclass
class Server:
    url: str
    tells: list[Told]
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    found: ClassVar[Server]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(None)

    def do_POST(self) -> None:
        self.answer(msgspec.json.decode(self.rfile.read(int(self.headers["content-length"]))))

    def answer(self, body: Any) -> None:
        self.found.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        told = self.found.tells.pop(0) if len(self.found.tells) > 1 else self.found.tells[0]
        if told.status == 0:
            self.close_connection = True
            return
        said = told.body if isinstance(told.body, bytes) else msgspec.json.encode(told.body)
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.drip(said, told.drip_s)

    def drip(self, answer: bytes, drip_s: float) -> None:
        if not drip_s:
            self.wfile.write(answer)
            return
        try:
            for place in range(len(answer)):
                self.wfile.write(answer[place : place + 1])
                self.wfile.flush()
                time.sleep(drip_s)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's word
        pass


@contextmanager
def told_server(*tells: Told) -> Iterator[Server]:
    """Answer what it is told in turn, the last for good."""
    found = Server("", list(tells))
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"found": found}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield found
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


Ask = Callable[[str, Policy, Callable[[Any], Any]], Any]


def patient(**other: Any) -> Policy:
    """A policy with a budget of its own: one that several tests shared would be used up by the first of them."""
    return replace(Policy(deadline_s=20.0, jitter=lambda: 0.0), **other)


def from_a_thread(url: str, policy: Policy, ask: Callable[[Any], Any]) -> Any:
    with Client(url, "flight_delay", policy=policy) as client:
        return ask(client)


def from_an_event_loop(url: str, policy: Policy, ask: Callable[[Any], Any]) -> Any:
    async def asked() -> Any:
        async with AsyncClient(url, "flight_delay", policy=policy) as client:
            return await ask(client)

    return asyncio.run(asked())


both = pytest.mark.parametrize("ask", [from_a_thread, from_an_event_loop])
