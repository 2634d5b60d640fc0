"""What a streaming process tells the outside: /livez, /readyz and /metrics on one loopback port, from a thread of its own.

/readyz answers with `streaming.instruments.Instruments.readiness`: an idle instance is ready and says that it is idle,
one whose breaker is open is not ready and says why.
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

# Whether the process does what it is for, and what it says about that.
Readiness = Callable[[], tuple[bool, dict[str, object]]]


class Health:
    """Serves the health of one process: ready once ``ready`` is set, or as `tell` was told.

    ``port`` 0 lets the system choose; the attribute then says which it took.
    """

    def __init__(self, host: str, port: int) -> None:
        self.ready = threading.Event()
        self._server = _Server((host, port), _Handler)
        self.tell(lambda: (self.ready.is_set(), {"ready": self.ready.is_set()}))
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def tell(self, readiness: Readiness) -> None:
        """Answer /readyz with this from now on."""
        self._server.readiness = readiness

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    readiness: Readiness


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:  # http.server's name
        if self.path == "/livez":
            self._answer(200, b'{"status":"alive"}', "application/json")
        elif self.path == "/readyz":
            ready, said = self.server.readiness()
            self._answer(200 if ready else 503, orjson.dumps(said), "application/json")
        elif self.path == "/metrics":
            self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
        else:
            self._answer(404, b"", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing: probes come every second."""
