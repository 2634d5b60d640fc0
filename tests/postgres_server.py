"""A real PostgreSQL for tests, where the machine has one; it refuses to run as root, so then it runs as its own user."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.free_ports import free_port

_START_TIMEOUT_S = 60.0
_USER = "postgres"


def has_postgres() -> bool:
    return shutil.which("initdb") is not None and shutil.which("postgres") is not None


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server on a free port until the body ends, and give its URL for SQLAlchemy."""
    folder, port = Path(tempfile.mkdtemp(prefix="pg")), free_port()
    user = _USER if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    make = ["initdb", "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale", "C.UTF-8"]
    serve = ["postgres", "-D", str(data), "-k", str(folder), "-h", "127.0.0.1", "-p", str(port), "-F"]
    try:
        with log.open("wb") as said:
            subprocess.run(make, check=True, stdout=said, stderr=said, user=user, cwd=folder)
            server = subprocess.Popen(serve, stdout=said, stderr=said, user=user, cwd=folder)
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not _answers(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield f"postgresql+psycopg2://{_USER}@127.0.0.1:{port}/{_USER}"
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder)


def _answers(port: int) -> bool:
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user=_USER, dbname=_USER).close()
    except psycopg2.OperationalError:
        return False
    return True
