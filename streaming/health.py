"""What a stream job tells the outside: /livez, /readyz and /metrics on one loopback port, from a thread of its own."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

PARTITIONS_OWNED = Gauge(
    "headway_job_partitions", "Partitions an instance owns; 0 = idle, beyond the partitions.", ["job"]
)


class Health:
    """Serves the health of one job; ready from the first assignment on, an empty one included.

    ``port`` 0 lets the system choose; the attribute then says which it took.
    """

    def __init__(self, host: str, port: int) -> None:
        self.ready = threading.Event()
        handler = type("Handler", (_Handler,), {"ready": self.ready})
        self._server = ThreadingHTTPServer((host, port), handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    ready: ClassVar[threading.Event]

    def do_GET(self) -> None:  # http.server's name
        if self.path == "/livez":
            self._answer(200, b'{"status":"alive"}', "application/json")
        elif self.path == "/readyz":
            ready = self.ready.is_set()
            self._answer(200 if ready else 503, b'{"ready":%s}' % (b"true" if ready else b"false"), "application/json")
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
