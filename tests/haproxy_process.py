"""A real load balancer for the length of a test."""

import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.adapters.haproxy import (
    HaproxyAdmin,
    LoadBalancerTable,
    check_load_balancer,
    haproxy_command,
    write_load_balancer,
)

WITHIN_S = 30.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; fail at the deadline."""
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, "it did not become so in time"
        time.sleep(0.02)


@contextmanager
def running_haproxy(
    table: LoadBalancerTable, log_path: Path, *, waiting_for: Collection[str]
) -> Iterator[HaproxyAdmin]:
    """Run it until the body ends, from when every server of the backends ``waiting_for`` has passed its check."""
    write_load_balancer(table)
    check_load_balancer(table)
    with log_path.open("wb") as log:
        process = subprocess.Popen(haproxy_command(table), stdout=log, stderr=log)
    try:
        wait_until(table.admin_socket.exists)
        admin = HaproxyAdmin(table.admin_socket, timeout_s=5)
        for backend in filter(lambda each: each.name in waiting_for, table.backends):
            for server in backend.servers:
                admin.wait_l7ok(backend.name, server.name, timeout_s=WITHIN_S)
        yield admin
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
