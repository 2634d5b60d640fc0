"""Real Ray Serve, real HAProxy, the real guard: what a client sees while the champion changes."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from headway.adapters.memory_registry import MemoryRegistry
from headway.features.readiness import ViewState
from headway.openloop import HttpRequest, LoadReport, offer_load
from headway.registry import CHAMPION, LIVE
from headway.settings import LOOPBACK, Settings
from serving.balancer import count_answers
from serving.deployment import local_cluster
from serving.grpc_server import INFERENCE_SERVICE
from serving.predict import VERSION_HEADER
from serving.proto import inference_pb2 as pb
from serving.release_guard import run
from serving.release_steps import ReleaseSteps
from tests.inference_world import grpc_question
from tests.serving_world import FLIGHT, Trained, flight, free_settings, product, short_folder, trained

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
NAME = product().name
# The real predictor and API; store and log are in the replica's memory, as this claim is about neither.
FACTORY = """
from pathlib import Path

from headway.adapters.memory import MemoryBroker, MemoryPublisher
from headway.clock import SystemClock
from headway.features.online import OnlineRows, StoredRow
from headway.features.readiness import NEVER_SEEN
from headway.topics import topic_table
from products.catalogue import find_product
from serving.predict import PredictionApi, load_predictor
from serving.scoring import Parts

class Empty:
    def over(self, views):
        empty = tuple(StoredRow((None,) * len(view.features), None) for view in views)

        async def read(rows):
            return OnlineRows((NEVER_SEEN,) * len(views), [empty for _ in rows])

        return read

    async def close(self):
        pass

def build(product, version, folder, **_):
    broker, wanted = MemoryBroker(), find_product(product)
    broker.create(topic_table(views=[], products=[product], replication_factor=1, min_insync_replicas=1))
    reference = wanted.domain.load_reference()
    predictor = load_predictor(wanted, reference, Path(folder))
    parts = Parts(product=wanted, version=int(version), predictor=predictor, reference=reference, reader=Empty(),
                  publisher=MemoryPublisher(broker), clock=SystemClock())
    return PredictionApi(parts).served()
"""


def every_view_ready(names: Sequence[str]) -> dict[str, ViewState]:
    digests = {view.online_name: view.digest for view in product().feature_views.values()}
    return {name: ViewState(watermark_us=0, bootstrapped_us=0, digest=digests[name]) for name in names}


def wait_until(holds: Callable[[], bool], *, timeout_s: float, why: Callable[[], object]) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@contextmanager
def process(argv: list[str], *, log: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as output:
        running = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=REPOSITORY)
    children: list[psutil.Process] = []
    try:
        yield running
        if running.poll() is None:
            children = psutil.Process(running.pid).children(recursive=True)
            running.terminate()
            running.wait(40)
    finally:
        running.kill()
        running.wait()
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()


@dataclass
class Stack:
    settings: Settings
    registry: MemoryRegistry
    reports: list[LoadReport] = field(default_factory=list)
    inferred: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def balancer(self) -> Iterator["subprocess.Popen[bytes]"]:
        environment = {**os.environ, **self.settings.environment()}
        argv = [sys.executable, "-m", "serving.balancer"]
        log = self.settings.state / "haproxy.log"
        with process(argv, log=log, env=environment) as running:
            wait_until(self.is_open, timeout_s=30, why=log.read_text)
            yield running

    def is_open(self) -> bool:
        return self._answers(self.settings.ports.load_balancer, "/livez")

    def is_guarded(self) -> bool:
        return self._answers(self.settings.ports.release, "/readyz")

    def _answers(self, port: int, path: str) -> bool:
        try:
            return self.get(port, "GET", path).status == 200
        except OSError:
            return False

    @contextmanager
    def guard(self) -> Iterator[None]:
        steps = ReleaseSteps(
            settings=self.settings,
            registry=self.registry,
            products={NAME: product()},
            references={NAME: product().domain.load_reference()},
            replicas=1,
            view_states=every_view_ready,
            factory="release_example:build",
        )
        stop = threading.Event()
        thread = threading.Thread(target=run, kwargs={"settings": self.settings, "steps": steps, "stop": stop})
        thread.start()
        try:
            wait_until(self.is_guarded, timeout_s=30, why=lambda: "the guard's port stays closed")
            yield
        finally:
            stop.set()
            thread.join(20)

    def promote(self, model: Trained) -> int:
        version = model.register(self.registry)
        self.registry.set_alias(NAME, CHAMPION, version)
        return version

    def live(self) -> int | None:
        found = self.registry.alias(NAME, LIVE)
        return None if found is None else found.version

    def get(self, port: int, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        link = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        link.request(method, path, body, {"content-type": "application/json", "connection": "close"})
        answer = link.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]  # read before the connection is gone
        link.close()
        return answer

    def predict(self) -> http.client.HTTPResponse:
        return self.get(self.settings.ports.load_balancer, "POST", f"/v1/{NAME}/predict", flight())

    def releases(self) -> dict[str, Any]:
        answer = self.get(self.settings.ports.release, "GET", "/v1/releases")
        found: dict[str, Any] = json.loads(answer.body)["products"][NAME]  # type: ignore[attr-defined]
        return found

    def wait_for(self, holds: Callable[[], bool]) -> None:
        wait_until(holds, timeout_s=90, why=lambda: json.dumps(self.releases(), indent=1))

    @contextmanager
    def load(self) -> Iterator[None]:
        """Offer 50 requests and some 20 gRPC calls a second while the block runs, and a second before and after."""
        stop = threading.Event()
        request = HttpRequest(
            method="POST",
            path=f"/v1/{NAME}/predict",
            headers={"content-type": "application/json"},
            body=flight(),
        )

        def offer() -> None:
            while not stop.is_set():
                load = offer_load(
                    lambda _: request,
                    host=LOOPBACK,
                    port=self.settings.ports.load_balancer,
                    rate_per_s=50,
                    duration_s=1,
                    timeout_s=4,
                    tag_header=VERSION_HEADER,
                )
                self.reports.append(asyncio.run(load))

        threads = [threading.Thread(target=offer), threading.Thread(target=self._infer, args=(stop,))]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            yield
            time.sleep(1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _infer(self, stop: threading.Event) -> None:
        question = grpc_question([FLIGHT], raw=True).SerializeToString()
        with grpc.insecure_channel(f"{LOOPBACK}:{self.settings.ports.load_balancer_grpc}") as channel:
            infer = channel.unary_unary(
                f"/{INFERENCE_SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
            )
            while not stop.wait(0.05):
                try:
                    self.inferred[infer(question, timeout=5).model_version] += 1
                except grpc.RpcError as error:
                    call: Any = error  # grpc has no types
                    self.inferred[f"{call.code().name} {call.details()}"] += 1

    def tags(self) -> set[str]:
        return {tag for report in self.reports for tag in report.by_tag}


@pytest.fixture
def stack() -> Iterator[Stack]:
    with short_folder() as folder:
        settings = free_settings(folder)
        (folder / "lib").mkdir()
        (folder / "lib" / "release_example.py").write_text(FACTORY)
        cluster = local_cluster(settings)
        options = {
            "--temp-dir": cluster.temp_dir,
            "--token-file": cluster.token_file,
            "--gcs-port": cluster.gcs_port,
            "--metrics-port": cluster.metrics_port,
            "--cpus": 2,
            "--object-store-bytes": 80 * 1024**2,
        }
        argv = [sys.executable, "-m", "serving.ray_cluster", *(str(word) for pair in options.items() for word in pair)]
        log = folder / "ray.log"
        environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{folder / 'lib'}"}
        with process(argv, log=log, env=environment):
            wait_until(lambda: b'"ready"' in log.read_bytes(), timeout_s=90, why=log.read_text)
            yield Stack(settings, MemoryRegistry())


def test_the_champion_becomes_live_without_a_failed_request_and_a_wrong_model_never_answers(
    stack: Stack,
) -> None:
    with stack.balancer() as first, stack.guard():
        assert stack.predict().status == 503

        stack.promote(trained(1))
        stack.wait_for(lambda: stack.live() == 1)
        with stack.load():
            stack.promote(trained(2))
            stack.wait_for(lambda: stack.live() == 2)
            stack.promote(trained(3).with_wrong_golden_answer())
            stack.wait_for(lambda: stack.releases()["state"] == "held")
        first.kill()

    assert sum(report.failed for report in stack.reports) == 0
    assert stack.tags() == {"1", "2"}
    assert stack.inferred.keys() == {"1", "2"}, "a gRPC call failed"
    assert count_answers(stack.settings.state / "haproxy.log", f"/v1/{NAME}").by_status.keys() == {200, 503}
    with stack.balancer(), stack.guard():
        assert stack.predict().headers[VERSION_HEADER] == "2", "a new load balancer knows the servers of now"
        found = stack.releases()
    assert (found["live"]["version"], found["state"], stack.live()) == (2, "held", 2)
    assert "golden request 0 scored" in found["reason"]
