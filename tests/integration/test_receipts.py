"""From the answer of a real request to its receipt, both through the load balancer: the same score, and every row's cause."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory import MemoryPublisher, MemoryReader
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import OnlineRow
from headway.adapters.release_table import ReleaseTable
from headway.clock import MINUTE_US, SystemClock
from headway.features.online import OnlineView, ReadRows
from headway.release import Change, PinnedVersion, Placed, ProductState
from headway.settings import LOOPBACK, Settings
from serving.balancer import application_name, release_table_path, replica_registry
from serving.predict import PredictionApi
from serving.receipt_api import ReceiptApi
from serving.receipts import ReceiptDesk, ReceiptSources
from serving.replica import ReplicaRecord, ReplicaServer
from serving.scoring import Parts
from tests.receipt_world import AS_OF_US, Installation
from tests.serving_world import flight, free_settings, product, short_folder, trained

pytestmark = pytest.mark.integration

REVISION = 42


def wait_until(holds: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def filled_store() -> MemoryOnlineStore:
    store, request = MemoryOnlineStore(), product().parse_request(flight())
    for name, view in product().feature_views.items():
        keys = product().entity(name, request)
        assert keys is not None
        at_us = AS_OF_US - MINUTE_US
        values = {f: at_us if f.startswith("last_at") else 3 if d == "int64" else 1.25 for f, d in view.columns.items()}
        row = OnlineRow(view=view.online_name, keys=keys, event_timestamp_us=at_us, revision=REVISION, values=values)
        store.write([row])
        store.write_watermarks(view.online_name, {0: AS_OF_US // 1000}, 1)
    return store


@dataclass(frozen=True)
class Reader:
    """A store in memory, as a replica reads it."""

    store: MemoryOnlineStore

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        return self.store.over(views)

    async def close(self) -> None:
        self.store.close()


@dataclass(frozen=True)
class Door:
    port: int

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        link = http.client.HTTPConnection(LOOPBACK, self.port, timeout=15)
        try:
            link.request(method, path, body, {"content-type": "application/json"})
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            link.close()


@pytest.fixture
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        yield free_settings(folder)


@pytest.fixture
def place(settings: Settings) -> Installation:
    return Installation(settings.state / "lake")


@pytest.fixture
def door(settings: Settings, place: Installation) -> Iterator[Door]:
    reference = product().domain.load_reference()
    api = PredictionApi(
        Parts(
            product=product(),
            version=1,
            predictor=trained(1).predictor(),
            reference=reference,
            reader=Reader(filled_store()),
            publisher=MemoryPublisher(place.broker),
            clock=SystemClock(),
        )
    )
    replica = ReplicaServer(api.served(), host=LOOPBACK, port=0)
    desk = ReceiptDesk(
        ReceiptSources(
            lake=place.lake,
            log=MemoryReader(place.broker),
            registry=lambda: place.registry,
            products={product().name: product()},
            references={product().name: reference},
            load=LightGbm().load,
            clock=SystemClock(),
            commit=None,
        )
    )
    receipts = ReplicaServer(ReceiptApi(desk).served(), host=LOOPBACK, port=settings.ports.receipts)
    model = PinnedVersion(version=1, digest=replica.digest)
    state = ProductState(product=product().name, wish=model, live=Placed(model=model, colour="blue"))
    ReleaseTable(release_table_path(settings)).record(Change(state=state))
    for server in (replica, receipts):
        server.start()
    ReplicaRecord(
        application=application_name(product().name, model),
        replica="r1",
        host=LOOPBACK,
        port=replica.port,
        pid=os.getpid(),
        digest=replica.digest,
    ).write(replica_registry(settings))
    with (settings.state / "haproxy.log").open("wb") as log:
        environment = {**os.environ, **settings.environment()}
        balancer = subprocess.Popen([sys.executable, "-m", "serving.balancer"], stdout=log, stderr=log, env=environment)
    try:
        wait_until((settings.sockets / "lb" / "admin.sock").exists, what="HAProxy did not come")
        yield Door(settings.ports.load_balancer)
    finally:
        balancer.terminate()
        balancer.wait(10)
        for server in (replica, receipts):
            server.leave(drain_s=0, timeout_s=5)


def test_an_answers_receipt_gives_the_same_score_again_before_and_after_the_lake_has_it(
    door: Door, place: Installation
) -> None:
    status, answered = door.ask("POST", "/v1/flight_delay/predict", flight(as_of="2013-07-01T14:00:00Z"))
    assert status == 200, answered

    for where in ("log", "lake"):
        if where == "lake":
            place.load()
        status, receipt = door.ask("GET", f"/v1/predictions/{answered['receipt']}")

        assert (status, receipt["record"]["where"]) == (200, where), receipt
        assert receipt["recomputed"] == {"probability": answered["probability"], "difference": 0.0}
        assert receipt["model"]["digest"] == answered["model"]["digest"]
        assert {view["origin"]["offset"] for view in receipt["views"]} == {REVISION - 1}


def test_a_receipt_nobody_gave_out_is_404_through_the_door(door: Door) -> None:
    status, problem = door.ask("GET", "/v1/predictions/00000000-0000-7000-8000-000000000000")

    assert (status, problem["type"]) == (404, "urn:headway:problem:unknown-receipt")
