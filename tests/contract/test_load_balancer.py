"""What the load balancer does when servers and clients misbehave: a real HAProxy before servers that do as they are told."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from headway.adapters.haproxy import Backend, LoadBalancerTable, RetryOn, Server, Split
from headway.settings import LOOPBACK
from tests.free_ports import free_port
from tests.haproxy_process import WITHIN_S, running_haproxy, wait_until
from tests.serving_world import short_folder

pytestmark = pytest.mark.integration

IDEMPOTENT: tuple[RetryOn, ...] = ("conn-failure", "empty-response")
ONCE: tuple[RetryOn, ...] = ("conn-failure",)
# Longer than a test: what a server does is met by a request and not by a check.
UNCHECKED_MS = 60_000
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Told:
    """A server that passes its check, and does with every other request what it is told."""

    name: str
    does: Literal["answer", "break off", "keep silent"] = "answer"
    port: int = field(default_factory=free_port)
    after_s: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def kill(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        if self._listener.fileno() != -1:
            # A thread that waits in accept would keep the listener open.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for link in self._links:
            with contextlib.suppress(OSError):  # it is closed
                link.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._links.append(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as coming:
            while (line := _readline(coming)) and self._answered(link, line, coming):
                pass

    def _answered(self, link: socket.socket, line: bytes, coming: Any) -> bool:
        """Whether the connection goes on."""
        headers = http.client.parse_headers(coming)
        coming.read(int(headers.get("content-length") or 0))
        if not line.startswith(b"GET /golden"):
            self.asked.append(line)
            self.receipts.append(headers["headway-receipt"])
            if self.does == "break off":
                return False
            if self.does == "keep silent":
                return bool(_readline(coming))
        time.sleep(self.after_s)
        try:
            link.sendall(ANSWER)
        except OSError:  # killed meanwhile
            return False
        return True


@dataclass(frozen=True)
class Door:
    """The load balancer with one backend; ``post`` gives status and document."""

    port: int

    def post(self, **more: Any) -> tuple[int, Any]:
        link = http.client.HTTPConnection(LOOPBACK, self.port, timeout=WITHIN_S)
        try:
            link.request("POST", "/v1/delay", b"{}", **more)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            link.close()

    def begun(self, head: bytes) -> bytes:
        """Send a part of a request and nothing more; give what that is answered with."""
        with socket.create_connection((LOOPBACK, self.port), timeout=WITHIN_S) as link:
            link.sendall(head)
            found = b""
            while chunk := link.recv(65_536):
                found += chunk
            return found


Opened = Callable[..., tuple[Door, list[Told]]]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Open a door before servers that were told what to do."""
    with ExitStack() as ends:

        def open_door(*does: Any, retry_on: tuple[RetryOn, ...], **backend: Any) -> tuple[Door, list[Told]]:
            servers = [Told(f"s{n}", each) for n, each in enumerate(does)]
            for server in servers:
                ends.callback(server.kill)
            return ends.enter_context(_door(servers, retry_on, backend)), servers

        yield open_door


@contextmanager
def _set_at_the_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


@contextmanager
def _door(servers: list[Told], retry_on: tuple[RetryOn, ...], options: dict[str, Any]) -> Iterator[Door]:
    behind = Backend(
        name="delay",
        servers=tuple(Server(name=s.name, host=LOOPBACK, port=s.port, weight=100) for s in servers),
        check_path="/golden",
        check_interval_ms=UNCHECKED_MS,
        answer_timeout_ms=2_000,
        queue_timeout_ms=500,
        max_in_flight=64,
        retry_on=retry_on,
    )
    with short_folder() as folder:
        table = LoadBalancerTable(
            host=LOOPBACK,
            port=free_port(),
            grpc_port=free_port(),
            metrics_port=free_port(),
            directory=folder / "lb",
            max_connections=100,
            routes=(),
            grpc_routes=(),
            splits=(Split(name="delay", prefix="/v1/delay", blue="delay", green="delay", green_share=0),),
            backends=(replace(behind, **options),),
        )
        with running_haproxy(table, folder / "log", waiting_for=("delay",)):
            yield Door(table.port)


def test_what_is_idempotent_and_was_not_answered_goes_to_another_server_once(opened: Opened) -> None:
    door, servers = opened("break off", "break off", "break off", retry_on=IDEMPOTENT)

    status, document = door.post()

    assert (status, document["type"]) == (502, "/problems/upstream-failed")
    assert sorted(len(server.asked) for server in servers) == [0, 1, 1]
    assert len({receipt for server in servers for receipt in server.receipts}) == 1


def test_what_is_not_idempotent_is_never_sent_twice(opened: Opened) -> None:
    door, servers = opened("break off", "break off", retry_on=ONCE)

    assert door.post()[0] == 502
    assert sum(len(server.asked) for server in servers) == 1


@pytest.mark.parametrize("balance", ["leastconn", "roundrobin"])
@pytest.mark.parametrize("retry_on", [IDEMPOTENT, ONCE])
def test_a_killed_server_costs_no_request_before_a_check_has_seen_it(
    opened: Opened, balance: str, retry_on: tuple[RetryOn, ...]
) -> None:
    door, [killed, other] = opened("answer", "answer", retry_on=retry_on, balance=balance)

    killed.kill()

    assert {door.post()[0] for _ in range(50)} == {200}
    assert (len(killed.asked), len(other.asked)) == (0, 50)


@pytest.mark.parametrize("balance", ["leastconn", "roundrobin"])
def test_a_server_killed_under_load_costs_no_request_that_may_be_sent_again(opened: Opened, balance: str) -> None:
    """What it had in flight is broken off, and what comes meanwhile is refused: each is sent again once."""
    door, [killed, other] = opened("answer", "answer", retry_on=IDEMPOTENT, balance=balance)
    ended = threading.Event()

    def ask() -> Counter[int]:
        found: Counter[int] = Counter()
        while not ended.is_set():
            found[door.post()[0]] += 1
        return found

    with ThreadPoolExecutor(16) as clients, _set_at_the_end(ended):
        answers = [clients.submit(ask) for _ in range(16)]
        wait_until(lambda: len(killed.asked) > 50)
        killed.does = "keep silent"
        before = len(killed.asked)
        wait_until(lambda: len(killed.asked) > before)  # it has one in flight
        killed.kill()
        before = len(other.asked)
        wait_until(lambda: len(other.asked) > before + 200)
    found = sum((each.result() for each in answers), Counter[int]())

    assert found.keys() == {200}
    assert len(killed.asked) + len(other.asked) > found.total()


def test_a_server_that_keeps_silent_is_given_up_in_time_and_not_asked_elsewhere(opened: Opened) -> None:
    """A question that takes too long on one server would on the other: it is told, not repeated."""
    door, servers = opened("keep silent", "keep silent", retry_on=IDEMPOTENT, answer_timeout_ms=300)

    status, document = door.post()

    assert (status, document["type"]) == (504, "/problems/upstream-timeout")
    assert sum(len(server.asked) for server in servers) == 1


def test_what_exceeds_the_servers_slots_waits_its_time_and_is_told_so(opened: Opened) -> None:
    door, [server] = opened("keep silent", retry_on=IDEMPOTENT, max_in_flight=1, queue_timeout_ms=200)
    first = threading.Thread(target=door.post)
    first.start()
    wait_until(lambda: len(server.asked) == 1)

    status, document = door.post()
    first.join()

    assert (status, document["type"]) == (503, "/problems/unavailable")
    assert len(server.asked) == 1


def test_headers_beyond_16_kib_are_refused_before_any_server(opened: Opened) -> None:
    door, [server] = opened("answer", retry_on=IDEMPOTENT)

    found = door.begun(b"POST /v1/delay HTTP/1.1\r\nhost: door\r\nx-long: " + b"a" * 17_000)

    assert found.startswith(b"HTTP/1.1 400 ")
    assert server.asked == []
    assert door.post(headers={"x-long": "a" * 8_000})[0] == 200


def test_a_head_or_a_body_that_does_not_end_is_given_up_and_holds_no_server_meanwhile(opened: Opened) -> None:
    door, [server] = opened("answer", retry_on=IDEMPOTENT)
    head = b"POST /v1/delay HTTP/1.1\r\nhost: door\r\n"

    with ThreadPoolExecutor() as clients:
        slow_head = clients.submit(door.begun, head)
        slow_body = clients.submit(door.begun, head + b"content-length: 100\r\n\r\n{")

    assert slow_head.result().startswith(b"HTTP/1.1 408 ")
    assert slow_body.result().startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in slow_body.result()
    assert server.asked == []


def _readline(coming: Any) -> bytes:
    try:
        line: bytes = coming.readline()
    except OSError:  # reset
        return b""
    return line
