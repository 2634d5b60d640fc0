"""Replicas come and go by load on a real Ray Serve behind a real HAProxy, and no request fails meanwhile."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headway.adapters.release_table import ReleaseTable
from headway.adapters.scaling_table import ScalingTable, scaling_file
from headway.openloop import HttpRequest, LoadReport, offer_load
from headway.release import Change, PinnedVersion, Placed, ProductState
from headway.replica_scaling import ReplicaPolicy
from headway.settings import LOOPBACK, Settings
from serving.balancer import application_name, release_table_path, replica_registry
from serving.deployment import Order, local_cluster, run_order
from serving.replica import read_records
from serving.traffic import TrafficControl
from tests.serving_world import free_settings, short_folder

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
PRODUCT = "flight_delay"
MODEL = PinnedVersion(version=1, digest="x")
STATE = ProductState(product=PRODUCT, wish=MODEL, live=Placed(model=MODEL, colour="blue"))
# An answer takes 6 ms of a processor: 60 of them a second are 0.36 of one, more than the target of 0.25, and little enough
# that one replica keeps up on a machine that does other things too.
FACTORY = """
import time
from serving.replica import Served

def build():
    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        until = time.thread_time() + 0.006
        while time.thread_time() < until:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    return Served(app=app, digest="x", check_golden=lambda: None, close=lambda: None)
"""
POLICY = ReplicaPolicy(least=1, most=2, busy=0.25, calm_s=6.0)


@pytest.fixture
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        (folder / "lib").mkdir()
        (folder / "lib" / "busy_example.py").write_text(FACTORY)
        yield free_settings(folder)


def start(settings: Settings, name: str, *argv: str) -> "subprocess.Popen[bytes]":
    path = f"{REPOSITORY}:{settings.state / 'lib'}"
    env = {**os.environ, **settings.environment(), "PYTHONPATH": path}
    with (settings.state / f"{name}.log").open("wb") as log:
        return subprocess.Popen((sys.executable, "-m", *argv), stdout=log, stderr=log, env=env, cwd=REPOSITORY)


def end(process: "subprocess.Popen[bytes]") -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(40)
    finally:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        child.kill()


def wait_until(holds: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
        time.sleep(0.1)


@pytest.fixture
def cluster(settings: Settings) -> Iterator[None]:
    place = local_cluster(settings).settings
    arguments = {
        "temp-dir": place.temp_dir,
        "token-file": place.token_file,
        "gcs-port": place.gcs_port,
        "metrics-port": place.metrics_port,
        "cpus": 4,
        "object-store-bytes": place.object_store_bytes,
    }
    argv = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    process, log = start(settings, "ray", "serving.ray_cluster", *argv), settings.state / "ray.log"
    try:
        wait_until(lambda: '"event": "ready"' in log.read_text(), timeout_s=120, what="Ray")
        yield
    finally:
        end(process)


class Guard(threading.Thread):
    """What the release guard does of its own accord: keep the load balancer as the replicas' records say."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="guard", daemon=True)
        self._traffic = TrafficControl(settings, [PRODUCT])
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.2):
            self._traffic.reconcile({PRODUCT: STATE})

    def fit(self) -> int:
        return self._traffic.asked(PRODUCT, "blue")

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def guard(settings: Settings) -> Iterator[Guard]:
    ReleaseTable(release_table_path(settings)).record(Change(state=STATE))
    process = start(settings, "haproxy", "serving.balancer")
    wait_until((settings.sockets / "lb" / "admin.sock").exists, timeout_s=30, what="HAProxy")
    running = Guard(settings)
    running.start()
    yield running
    running.stop()
    end(process)


class Load(threading.Thread):
    """A steady rate of requests, for as long as it is said beforehand."""

    def __init__(self, settings: Settings, *, rate_per_s: float, duration_s: float) -> None:
        super().__init__(name="load", daemon=True)
        self._offer = offer_load(
            lambda _: HttpRequest(method="POST", path=f"/v1/{PRODUCT}/predict", headers={}, body=b"{}"),
            host=LOOPBACK,
            port=settings.ports.load_balancer,
            rate_per_s=rate_per_s,
            duration_s=duration_s,
            timeout_s=5,
            tag_header="headway-receipt",
        )
        self.reports: list[LoadReport] = []

    def run(self) -> None:
        self.reports.append(asyncio.run(self._offer))

    def report(self) -> LoadReport:
        self.join()
        return self.reports[0]


@pytest.mark.long
def test_replicas_come_and_go_by_load_and_no_request_fails(settings: Settings, cluster: None, guard: Guard) -> None:
    del cluster
    registry, name = replica_registry(settings), application_name(PRODUCT, MODEL)
    deployed = Order(
        action="start",
        cluster=local_cluster(settings),
        application=name,
        factory="busy_example:build",
        registry=str(registry),
        drain_s=1.5,
        policy=POLICY,
        decisions=str(scaling_file(settings.state)),
        timeout_s=90,
    )
    run_order(deployed, timeout_s=90)
    wait_until(lambda: guard.fit() == 1, timeout_s=10, what="the first replica")

    busy = Load(settings, rate_per_s=60, duration_s=45)
    busy.start()
    wait_until(lambda: guard.fit() == 2, timeout_s=45, what="the second replica")
    quiet = Load(settings, rate_per_s=10, duration_s=60)
    many = busy.report()
    quiet.start()
    wait_until(lambda: len(read_records(registry, name)) == 1, timeout_s=55, what="the end of the second replica")
    few = quiet.report()

    assert (many.failed, few.failed) == (0, 0), (many, few)
    assert (many.offered, few.offered) == (2_700, 600)
    changes = ScalingTable(scaling_file(settings.state)).read(job=name, last=9, changes=True)
    assert [(each.before, each.after) for each in changes] == [(1, 2), (2, 1)], json.dumps([c.reason for c in changes])
    for each in changes:
        measured = each.inputs["load"]["readings"]
        assert len(measured) == each.before
        assert all(len(replica) >= POLICY.readings for replica in measured)
