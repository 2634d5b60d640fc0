"""Real Ray Serve, real HAProxy, replicas that serve their own ports: what a client sees while versions change."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from headway.adapters.haproxy import (
    Backend,
    HaproxyAdmin,
    LoadBalancerTable,
    Server,
    ServerNotReady,
    Split,
    check_load_balancer,
    haproxy_command,
    write_load_balancer,
)
from headway.errors import ContractViolation, PermanentFailure
from headway.openloop import HttpRequest, LoadReport, offer_load
from headway.replica_scaling import ReplicaPolicy
from serving.ray_cluster import ClusterSettings, connect, deploy, retire
from serving.replica import Message, ReplicaRecord, ReplicaServer, ReplicaSpec, Served, read_records
from serving.replica_scaler import Scaling
from tests.free_ports import free_port

pytestmark = [
    pytest.mark.integration,
    # Ray's own configuration classes use pydantic in a way pydantic 2 deprecates.
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),
]

REPOSITORY = Path(__file__).parents[2]

FACTORY = """
from headway.errors import ContractViolation
from serving.replica import Served

def build(version, golden):
    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"headway-model", version.encode())]})
        await send({"type": "http.response.body", "body": b"{}"})

    def check_golden():
        if golden != "right":
            raise ContractViolation(f"{version}: golden answer is {golden}")

    return Served(app=app, digest=version, check_golden=check_golden, close=lambda: None)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: Ray and HAProxy put sockets under it, and a socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="hw"))
    yield path
    shutil.rmtree(path)


def end(process: "subprocess.Popen[str]", *, timeout_s: float) -> list[psutil.Process]:
    """Ask a process of ours to end and give those of its children that outlived it."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(timeout_s)
    finally:
        process.kill()
        process.wait()
    left: list[psutil.Process] = psutil.wait_procs(children, timeout=5)[1]
    for child in left:
        child.kill()
    return left


@dataclass(frozen=True, kw_only=True)
class Cluster:
    settings: ClusterSettings
    process: "subprocess.Popen[str]"
    registry: Path

    def spec(self, version: str, *, golden: str = "right") -> ReplicaSpec:
        return ReplicaSpec(
            application=f"delay.{version}",
            factory="shape_example:build",
            arguments={"version": version, "golden": golden},
            registry=self.registry,
            host="127.0.0.1",
            drain_s=1.0,
        )

    def deploy(self, version: str, *, golden: str = "right") -> tuple[ReplicaRecord, ...]:
        spec = self.spec(version, golden=golden)
        scaling = Scaling(policy=ReplicaPolicy(least=1, most=1), decisions=Path("unused"))
        return deploy(spec, scaling, cpus=0.1, check_period_s=2, timeout_s=90)


@pytest.fixture
def cluster(place: Path) -> Iterator[Cluster]:
    (place / "lib").mkdir()
    (place / "lib" / "shape_example.py").write_text(FACTORY)
    settings = ClusterSettings(
        temp_dir=place / "r",
        token_file=place / "token",
        gcs_port=free_port(),
        metrics_port=free_port(),
        cpus=4,
        object_store_bytes=80 * 1024**2,
    )
    options = {
        "--temp-dir": settings.temp_dir,
        "--token-file": settings.token_file,
        "--gcs-port": settings.gcs_port,
        "--metrics-port": settings.metrics_port,
        "--cpus": settings.cpus,
        "--object-store-bytes": settings.object_store_bytes,
    }
    argv = [sys.executable, "-m", "serving.ray_cluster", *(str(word) for pair in options.items() for word in pair)]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{place / 'lib'}"}
    with (place / "cluster.log").open("w") as log:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=REPOSITORY, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first, (place / "cluster.log").read_text()
        assert json.loads(first)["event"] == "ready"
        connect(settings)
        yield Cluster(settings=settings, process=process, registry=place / "replicas")
    finally:
        import ray

        ray.shutdown()
        left = end(process, timeout_s=40)
        process.stdout.close()
    assert (left, process.returncode) == ([], 0)


@dataclass(frozen=True, kw_only=True)
class Balancer:
    table: LoadBalancerTable
    admin: HaproxyAdmin

    def backend(self, name: str) -> Backend:
        return next(backend for backend in self.table.backends if backend.name == name)

    def admit(self, name: str, record: ReplicaRecord) -> None:
        server = Server(name=record.replica, host=record.host, port=record.port, weight=100)
        self.admin.add_server(self.backend(name), server)
        self.admin.wait_l7ok(name, record.replica, timeout_s=5)
        self.admin.set_weight(name, record.replica, 100)

    def remove(self, name: str, record: ReplicaRecord) -> None:
        self.admin.drain(name, record.replica, timeout_s=5)
        self.admin.delete_server(name, record.replica, timeout_s=5)

    def logged(self) -> list[dict[str, str]]:
        lines = (self.table.directory / "requests.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def under_load(self, action: Callable[[], None], *, duration_s: float) -> LoadReport:
        """Run an action one second into a steady load of 100 requests a second."""
        report: list[LoadReport] = []

        def request_at(n: int) -> HttpRequest:
            return HttpRequest(
                method="POST", path="/v1/delay/predict", headers={"headway-key": f"k{n % 997}"}, body=b"{}"
            )

        def offer() -> None:
            load = offer_load(
                request_at,
                host="127.0.0.1",
                port=self.table.port,
                rate_per_s=100,
                duration_s=duration_s,
                timeout_s=3,
                tag_header="headway-model",
            )
            report.append(asyncio.run(load))

        thread = threading.Thread(target=offer)
        thread.start()
        time.sleep(1)
        try:
            action()
            assert thread.is_alive(), "the action outlasted the load; offer it for longer"
        finally:
            thread.join()
        return report[0]


@pytest.fixture
def balancer(place: Path) -> Iterator[Balancer]:
    blue, green = (
        Backend(
            name=name,
            servers=(),
            check_path="/golden",
            check_interval_ms=300,
            answer_timeout_ms=2_000,
            queue_timeout_ms=500,
            max_in_flight=64,
            retry_on=("conn-failure",),
        )
        for name in ("delay.blue", "delay.green")
    )
    table = LoadBalancerTable(
        host="127.0.0.1",
        port=free_port(),
        grpc_port=free_port(),
        metrics_port=free_port(),
        directory=place / "lb",
        max_connections=500,
        routes=(),
        grpc_routes=(),
        splits=(Split(name="delay", prefix="/v1/delay", blue=blue.name, green=green.name, green_share=0),),
        backends=(blue, green),
    )
    write_load_balancer(table)
    check_load_balancer(table)
    with (table.directory / "requests.log").open("w") as log, (table.directory / "errors.log").open("w") as errors:
        process = subprocess.Popen(haproxy_command(table), stdout=log, stderr=errors, text=True)
    try:
        deadline = time.monotonic() + 10
        while not table.admin_socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield Balancer(table=table, admin=HaproxyAdmin(table.admin_socket, timeout_s=2))
    finally:
        end(process, timeout_s=10)


def listeners_beyond_loopback(pid: int) -> list[str]:
    ours = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return [
        f"{process.name()} {connection.laddr.ip}:{connection.laddr.port}"
        for process in ours
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
    ]


def test_a_version_change_loses_no_request_and_a_wrong_version_never_starts(
    cluster: Cluster, balancer: Balancer
) -> None:
    (old,) = cluster.deploy("v1")
    (new,) = cluster.deploy("v2")
    balancer.admit("delay.blue", old)

    assert listeners_beyond_loopback(cluster.process.pid) == []

    def change() -> None:
        balancer.admit("delay.green", new)
        for share in (500, 2_500, 5_000, 10_000):
            balancer.admin.set_green_share(balancer.table, "delay", share)
            time.sleep(0.5)
        balancer.remove("delay.blue", old)
        retire("delay.v1")

    report = balancer.under_load(change, duration_s=10)

    assert (report.failed, report.offered) == (0, 1_000)
    assert report.by_tag.keys() == {"v1", "v2"}
    assert len(balancer.logged()) == report.offered
    assert read_records(cluster.registry, "delay.v1") == ()
    buckets: dict[str, list[str]] = {}
    for line in balancer.logged():
        buckets.setdefault(line["bucket"], []).append(line["backend"])
    assert all(seen == sorted(seen) for seen in buckets.values()), "a cohort went back from green to blue"

    with pytest.raises(PermanentFailure, match="golden answer is wrong"):
        cluster.deploy("v3", golden="wrong")
    assert read_records(cluster.registry, "delay.v3") == ()


class Example:
    """An application that counts its requests and whose golden answer can be spoilt."""

    def __init__(self) -> None:
        self.requests = 0
        self.golden_is_right = True

    async def app(self, scope: Message, receive: Callable[..., object], send: Callable[..., object]) -> None:
        del scope, receive
        self.requests += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]  # ASGI awaitable
        await send({"type": "http.response.body", "body": b"{}"})  # type: ignore[misc]  # ASGI awaitable

    def check_golden(self) -> None:
        if not self.golden_is_right:
            raise ContractViolation("golden answer differs")

    def serve(self) -> ReplicaServer:
        served = Served(app=self.app, digest="x", check_golden=self.check_golden, close=lambda: None)
        server = ReplicaServer(served, host="127.0.0.1", port=0)
        server.start()
        return server


def record(name: str, server: ReplicaServer) -> ReplicaRecord:
    return ReplicaRecord(application="x", replica=name, host=server.host, port=server.port, pid=1, digest="x")


def test_a_replica_with_a_wrong_golden_answer_gets_no_request(balancer: Balancer) -> None:
    """Even when somebody gives it weight: the load balancer asks for the golden answer itself."""
    right, wrong = Example(), Example()
    good, bad = right.serve(), wrong.serve()
    balancer.admit("delay.blue", record("good", good))
    wrong.golden_is_right = False

    balancer.admin.add_server(
        balancer.backend("delay.blue"), Server(name="bad", host=bad.host, port=bad.port, weight=100)
    )
    with pytest.raises(ServerNotReady, match=r"delay\.blue/bad: wanted L7OK"):
        balancer.admin.wait_l7ok("delay.blue", "bad", timeout_s=1)
    report = balancer.under_load(lambda: balancer.admin.set_weight("delay.blue", "bad", 100), duration_s=2)

    assert (report.failed, right.requests, wrong.requests) == (0, 200, 0)
    for server in (good, bad):
        server.leave(drain_s=0, timeout_s=5)


def test_a_replica_that_leaves_finishes_what_it_has(balancer: Balancer) -> None:
    """Ray may end a replica on its own account; 404 to the check takes it out before its port closes."""
    staying, going = Example().serve(), Example().serve()
    balancer.admit("delay.blue", record("staying", staying))
    balancer.admit("delay.blue", record("going", going))

    report = balancer.under_load(lambda: going.leave(drain_s=1, timeout_s=5), duration_s=4)

    assert (report.failed, report.offered) == (0, 400)
    staying.leave(drain_s=0, timeout_s=5)


def test_a_server_with_a_wrong_golden_answer_does_not_even_listen() -> None:
    example = Example()
    example.golden_is_right = False

    with pytest.raises(ContractViolation, match="golden answer differs"):
        example.serve()
