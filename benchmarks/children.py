"""Processes of a benchmark: started in a folder of their own, waited for, and ended by the process that started them."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from headway.errors import PermanentFailure
from headway.local.kafka import BrokerConfig, broker_command, broker_ready, format_storage
from headway.local.processes import descendants, end_now, identify, tied_to_parent
from headway.settings import LOOPBACK, project_root

_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 15.0


@contextlib.contextmanager
def child(
    name: str,
    command: Sequence[str],
    *,
    folder: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    within_s: float = _START_TIMEOUT_S,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process until the block ends; its output is in ``<folder>/<name>.log``.

    What it started ends with it: LitServe's two processes outlived the one that was told to end, and went on beside the
    benchmarks that came after.

    Raises:
        PermanentFailure: it ended, or was not ready in time.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(project_root()), **(env or {})},
            preexec_fn=tied_to_parent(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one thread here
        )
    try:
        deadline = time.monotonic() + within_s
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PermanentFailure(f"{name}: not ready; it said {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield process
    finally:
        started = [found for pid in descendants(process.pid) if (found := identify(pid)) is not None]
        process.terminate()
        try:
            process.wait(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_now(started, within_s=_END_TIMEOUT_S)


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker under load."""

    bootstrap: str
    pid: int


@contextlib.contextmanager
def broker(folder: Path, *, heap_mb: int = 384) -> Iterator[Broker]:
    """Run a broker of its own, with the stack's settings."""
    port, controller = free_port(), free_port()
    config = BrokerConfig(
        data_dir=folder / "kafka", log_dir=folder / "log", port=port, controller_port=controller, heap_mb=heap_mb
    )
    format_storage(config)
    ready = partial(broker_ready, config.bootstrap)
    with child("kafka", broker_command(config), folder=folder, ready=ready) as process:
        yield Broker(bootstrap=config.bootstrap, pid=process.pid)


def module(name: str, *arguments: object) -> list[str]:
    """Give the command that runs one of our modules with this interpreter."""
    return [sys.executable, "-m", name, *map(str, arguments)]


def answers(port: int, path: str) -> Callable[[], bool]:
    """Give a probe: whether this port of loopback answers HTTP for this path, below 500."""

    def ready() -> bool:
        link = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
        try:
            link.request("GET", path)
            return link.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()

    return ready


def free_port() -> int:
    """Return a port nothing listens on now."""
    with socket.create_server((LOOPBACK, 0)) as found:
        return int(found.getsockname()[1])
