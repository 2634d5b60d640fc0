"""The whole path of a request on real parts: HAProxy, a replica's own server, the online store. Only Ray is left out."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.adapters.redis_online import OnlineReader, OnlineRow, OnlineWriter
from headway.adapters.release_table import ReleaseTable
from headway.clock import MINUTE_US, SystemClock, parse_instant_us
from headway.local.valkey import valkey_command, valkey_ready
from headway.predictions import decode_prediction
from headway.release import Change, PinnedVersion, Placed, ProductState
from headway.settings import LOOPBACK, Settings
from headway.topics import predictions_topic, topic_table
from serving.balancer import count_answers, release_table_path, replica_registry
from serving.predict import PredictionApi
from serving.replica import ReplicaRecord, ReplicaServer
from serving.scoring import Parts
from tests.serving_world import flight, free_settings, product, short_folder, trained

pytestmark = pytest.mark.integration

AS_OF = "2013-07-01T14:00:00Z"
AS_OF_US = parse_instant_us(AS_OF, field="as_of")
PARTITIONS = 4


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.02)


@pytest.fixture
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        yield free_settings(folder)


@dataclass
class Process:
    running: "subprocess.Popen[bytes]"

    def end(self) -> None:
        self.running.terminate()
        try:
            self.running.wait(10)
        finally:
            self.running.kill()
            self.running.wait()


@pytest.fixture
def valkey(settings: Settings) -> Iterator[Process]:
    port = settings.ports.valkey
    with (settings.state / "valkey.log").open("wb") as log:
        process = Process(subprocess.Popen(valkey_command(settings.state, port), stdout=log, stderr=log))
    wait_until(lambda: valkey_ready(port))
    yield process
    process.end()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[product().name], replication_factor=1, min_insync_replicas=1))
    return broker


@pytest.fixture
def replica(settings: Settings, valkey: Process, broker: MemoryBroker) -> Iterator[ReplicaServer]:
    api = PredictionApi(
        Parts(
            product=product(),
            version=1,
            predictor=trained(1).predictor(),
            reference=product().domain.load_reference(),
            reader=OnlineReader(f"redis://{settings.online_store}", settings.feast_project),
            publisher=MemoryPublisher(broker),
            clock=SystemClock(),
        )
    )
    server = ReplicaServer(api.served(), host=LOOPBACK, port=0)
    server.start()
    yield server
    server.leave(drain_s=0, timeout_s=5)


@dataclass(frozen=True)
class Door:
    settings: Settings
    log: Path

    def post(self, body: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
        link = http.client.HTTPConnection(LOOPBACK, self.settings.ports.load_balancer, timeout=5)
        link.request("POST", "/v1/flight_delay/predict", body, {"content-type": "application/json"})
        answer = link.getresponse()
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())
        link.close()
        return found


@pytest.fixture
def door(settings: Settings) -> Iterator[Callable[[], Door]]:
    """Opens the door as `headway up` does, with what the release table says at that moment."""
    started: list[Process] = []

    def open_door() -> Door:
        log = settings.state / "haproxy.log"
        with log.open("wb") as output:
            argv = [sys.executable, "-m", "serving.balancer"]
            started.append(
                Process(
                    subprocess.Popen(argv, stdout=output, stderr=output, env={**os.environ, **settings.environment()})
                )
            )
        socket = settings.sockets / "lb" / "admin.sock"
        wait_until(socket.exists)
        return Door(settings, log)

    yield open_door
    for process in started:
        process.end()


def make_live(settings: Settings, replica: ReplicaServer) -> None:
    model = PinnedVersion(version=1, digest=replica.digest)
    state = ProductState(product=product().name, wish=model, live=Placed(model=model, colour="blue"))
    ReleaseTable(release_table_path(settings)).record(Change(state=state))
    ReplicaRecord(
        application=f"{product().name}.v1",
        replica="r1",
        host=replica.host,
        port=replica.port,
        pid=os.getpid(),
        digest=replica.digest,
    ).write(replica_registry(settings))


def fill(settings: Settings, *, until_us: int) -> None:
    writer = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    request = product().parse_request(flight())
    for name, view in product().feature_views.items():
        keys = product().entity(name, request)
        assert keys is not None
        values = {
            feature: AS_OF_US - MINUTE_US if feature.startswith("last_at") else 3 if dtype == "int64" else 1.25
            for feature, dtype in view.columns.items()
        }
        row = OnlineRow(
            view=view.online_name, keys=keys, event_timestamp_us=AS_OF_US - MINUTE_US, revision=1, values=values
        )
        writer.write([row])
        writer.write_watermarks(view.online_name, dict.fromkeys(range(PARTITIONS), until_us // 1000), PARTITIONS)
    writer.close()


def test_a_request_goes_through_every_real_part_and_is_logged_under_the_balancers_receipt(
    settings: Settings, replica: ReplicaServer, broker: MemoryBroker, door: Callable[[], Door]
) -> None:
    fill(settings, until_us=AS_OF_US)
    make_live(settings, replica)
    opened = door()

    status, headers, document = opened.post(flight(as_of=AS_OF))

    assert (status, headers["x-headway-version"], headers["headway-receipt"]) == (200, "1", document["receipt"])
    assert document["features"] == {"watermark": AS_OF, "lag_s": 0.0, "stale": [], "missing": [], "degraded": False}
    [logged] = [decode_prediction(m.value or b"") for m in MemoryReader(broker).read(predictions_topic(product().name))]
    assert logged.receipt == document["receipt"]
    assert logged.views[0].values is not None
    assert set(logged.views[0].values) == {3, 1.25}
    features = product().compute_request_features(
        product().parse_request(flight()), product().domain.load_reference(), AS_OF_US
    )
    again = trained(1).predictor().predict(features, logged.view_values, AS_OF_US)
    assert again.score == document["probability"]


def test_a_store_that_goes_away_degrades_the_answer_within_the_budget(
    settings: Settings, replica: ReplicaServer, valkey: Process, door: Callable[[], Door]
) -> None:
    make_live(settings, replica)
    opened = door()
    assert opened.post(flight())[0] == 200
    valkey.end()

    status, _, document = opened.post(flight())

    assert status == 200, "the load balancer answers 504 in its stead after two seconds"
    assert document["features"]["degraded"] is True  # type: ignore[index]  # a JSON object
    assert count_answers(opened.log, "/v1/flight_delay").by_status == {200: 2}


def test_before_the_first_release_the_door_answers_503_as_a_problem_with_retry_after(door: Callable[[], Door]) -> None:
    status, headers, document = door().post(flight())

    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/problem+json", "1")
    assert document["title"]
