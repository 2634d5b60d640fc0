"""A real search node for tests: started once per session, and a proxy before it that answers as a test wants."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx

from headway.local.search import NodeConfig, node_command, node_ready, prepare_node
from tests.free_ports import free_block
from tests.server_process import ServerProcess

START_TIMEOUT_S = 120.0


@dataclass
class SearchNode(ServerProcess):
    """A node process that a test may stop and start again."""

    config: NodeConfig

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.port}"

    @property
    def log(self) -> Path:
        return self.config.data_dir / "node.log"

    def spawn(self) -> None:
        """Start it, from the main thread: a node dies with the thread that started it."""
        prepare_node(self.config)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(node_command(self.config), stdout=output, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        self.wait_until_ready(timeout_s=START_TIMEOUT_S, log=self.log)

    def ready(self) -> bool:
        return node_ready(self.config.port)


@contextmanager
def running_node(folder: Path) -> Iterator[SearchNode]:
    base = free_block()
    node = SearchNode(NodeConfig(data_dir=folder, port=base, transport_port=base + 1))
    node.spawn()
    try:
        node.wait()
        yield node
    finally:
        node.stop()


@dataclass(frozen=True)
class Answer:
    """What the proxy says instead of the node."""

    status: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()


# Sees method, path and body of a request; None lets it pass to the node.
Interference = Callable[[str, str, bytes], Answer | None]


@dataclass
class Proxy:
    """Passes requests on to a node, except where ``interfere`` answers; keeps what it saw."""

    node_url: str
    interfere: Interference
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.seen.append((method, path, body))
        instead = self.interfere(method, path, body)
        if instead is not None:
            return instead
        kept = {name: value for name, value in headers.items() if name.lower() == "content-type"}
        passed = httpx.request(method, self.node_url + path, content=body, headers=kept, timeout=30)
        return Answer(passed.status_code, passed.content, (("content-type", passed.headers["content-type"]),))


@contextmanager
def proxy_before(node_url: str, interfere: Interference) -> Iterator[Proxy]:
    proxy = Proxy(node_url, interfere)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        answer = self.proxy.answer(self.command, self.path, dict(self.headers), body)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815  # http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
