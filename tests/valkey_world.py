"""A real Valkey for tests that need one to themselves."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.local.valkey import valkey_command, valkey_ready
from tests.free_ports import free_port

_START_TIMEOUT_S = 30.0


@contextmanager
def running_valkey(folder: Path) -> Iterator[str]:
    """Run a server on a free port until the body ends, and give its URL."""
    port = free_port()
    server = subprocess.Popen(valkey_command(folder, port), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not valkey_ready(port):
            assert server.poll() is None, "valkey ended"
            assert time.monotonic() < deadline, f"valkey did not answer within {_START_TIMEOUT_S:.0f} s"
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=10)
