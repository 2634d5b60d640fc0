"""A real replica behind a real load balancer, with the online store and the log in memory; Triton's clients ask it.

The clients run in a process of their own: they bring another maker's code for the same protobuf names.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.adapters.haproxy import LoadBalancerTable
from headway.release import PinnedVersion, Placed, ProductState
from headway.settings import LOOPBACK, Settings
from serving.balancer import backend_name, grpc_backend_name, load_balancer_table
from serving.replica import ReplicaRecord, ReplicaServer
from tests.certificates import self_signed
from tests.haproxy_process import WITHIN_S, running_haproxy
from tests.prediction_world import Service, Store
from tests.serving_world import free_settings, product, short_folder

VERSION = 3
ROWS = 256


@dataclass(frozen=True)
class Door:
    """Where clients ask, and what stands behind it."""

    settings: Settings
    service: Service
    replica: ReplicaServer
    table: LoadBalancerTable
    log: Path

    @property
    def http(self) -> str:
        return f"{LOOPBACK}:{self.settings.ports.load_balancer}"

    @property
    def grpc(self) -> str:
        return f"{LOOPBACK}:{self.settings.ports.load_balancer_grpc}"

    @property
    def certificate(self) -> Path:
        return Path(self.settings.tls_certificate)

    def requests(self) -> list[dict[str, Any]]:
        """What the load balancer logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def run(self, script: str, **given: Any) -> Any:
        """Have a client's process run a script that prints JSON, with HTTP, GRPC and what is given as its globals."""
        known = {"HTTP": self.http, "GRPC": self.grpc, **given}
        prelude = "import json, sys\nglobals().update(json.load(sys.stdin))\n"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", prelude + script],
            input=json.dumps(known),
            capture_output=True,
            text=True,
            timeout=WITHIN_S * 2,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def running_door(store: Store | None = None) -> Iterator[Door]:
    """Serve until the body ends; certificate included."""
    service = Service(store, rows=ROWS)
    replica = ReplicaServer(service.api.served(), host=LOOPBACK, port=0)
    replica.start()
    try:
        with short_folder() as folder:
            settings = free_settings(folder).model_copy(update={"tls_certificate": str(self_signed(folder))})
            with balancer(settings, replica) as table:
                yield Door(settings, service, replica, table, folder / "haproxy.log")
    finally:
        replica.leave(drain_s=0, timeout_s=5)


@contextmanager
def balancer(settings: Settings, replica: ReplicaServer) -> Iterator[LoadBalancerTable]:
    """Run HAProxy with the replica as what is live, until the body ends."""
    name = product().name
    state = ProductState(
        product=name,
        live=Placed(model=PinnedVersion(version=VERSION, digest=replica.digest), colour="blue"),
    )
    record = ReplicaRecord(
        application=f"{name}.v{VERSION}",
        replica="r1",
        host=replica.host,
        port=replica.port,
        pid=os.getpid(),
        digest=replica.digest,
        grpc_port=replica.grpc_port,
    )
    table = load_balancer_table(settings, products=[name], states={name: state}, records=lambda _: [record])
    behind = (backend_name(name, "blue"), grpc_backend_name(name, "blue"))
    with running_haproxy(table, settings.state / "haproxy.log", waiting_for=behind):
        yield table
