"""A real PostgreSQL for tests; it refuses to run as root, so then it runs as its own user.

Debian keeps its programs by version below a folder of its own, and not on PATH.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from headway.errors import PermanentFailure
from tests.free_ports import free_port

_START_TIMEOUT_S = 60.0
_USER = "postgres"


def program(name: str) -> str:
    """Where a program of the server is; the newest of several versions.

    Raises:
        PermanentFailure: the machine has no PostgreSQL server.
    """
    debian = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(debian, key=lambda path: int(path.parent.parent.name), default=None)
    if found := shutil.which(name) or newest:
        return str(found)
    raise PermanentFailure(f"{name}: neither on PATH nor below /usr/lib/postgresql; install the package postgresql")


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server on a free port until the body ends, and give its URL for SQLAlchemy."""
    folder, port = Path(tempfile.mkdtemp(prefix="pg")), free_port()
    user = _USER if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    make = [
        program("initdb"),
        "-D",
        str(data),
        "-U",
        _USER,
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--locale",
        "C.UTF-8",
    ]
    serve = [program("postgres"), "-D", str(data), "-k", str(folder), "-h", "127.0.0.1", "-p", str(port), "-F"]
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
