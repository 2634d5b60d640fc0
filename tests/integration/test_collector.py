"""The Collector as processes before a real broker: strangers' clients, a broker that stops, an orderly end under load."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.bindings.kafka import KafkaMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent

from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.events import encode_event, parse_event
from headway.settings import Settings
from headway.topics import EVENTS_RAW, topic_table
from serving.collector_modes import SINGLE
from tests.contract.conftest import RealBroker, new_broker
from tests.free_ports import free_block, free_port
from tests.kcat import kcat
from tests.streaming_world import departed

DEADLINE_S = 30.0
pytestmark = pytest.mark.integration


@dataclass
class Running:
    broker: RealBroker
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ids(self, topic: str) -> list[str]:
        reader = KafkaReader(bootstrap=self.broker.config.bootstrap)
        found = [parse_event(message.value or b"").id for message in reader.read(topic)]
        reader.close()
        return found

    def get(self, path: str) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}{path}", timeout=5)
        return answer.status_code, answer.text


def until(holds: Callable[[], bool], what: str, *, within_s: float = DEADLINE_S) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s, f"not within {within_s} s: {what}"
        threading.Event().wait(0.05)
    return time.monotonic() - began


def is_ready(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        link.request("GET", "/readyz")
        return link.getresponse().status == 200
    except OSError:
        return False
    finally:
        link.close()


def start(broker: RealBroker, folder: Path) -> Running:
    port = free_port()
    environment = Settings(state=folder, kafka_bootstrap=broker.config.bootstrap).environment()
    environment["HEADWAY_PORTS__COLLECTOR_FIRST"] = str(port)
    with (folder / "collector.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.collector_main"], stderr=log, env={**os.environ, **environment}
        )
    running = Running(broker, port, process)
    until(lambda: is_ready(port), "the Collector is ready")
    return running


def stop(running: Running) -> int:
    running.process.terminate()
    return running.process.wait(timeout=15)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    broker = new_broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    table = topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(broker.config.bootstrap), table)
    yield broker
    broker.stop()


@pytest.fixture
def running(broker: RealBroker, tmp_path: Path) -> Iterator[Running]:
    running = start(broker, tmp_path)
    yield running
    if running.process.poll() is None:
        stop(running)


def sdk_event(event_id: str) -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/strangers",
        "type": "flight.departed.v1",
        "subject": "Zürich 100%",
        "time": datetime(2013, 7, 1, 10, tzinfo=UTC),
        "datacontenttype": "application/json",
    }
    return CloudEvent(attributes=attributes, data={"origin": "EWR", "dep_delay_min": 3})


def test_what_the_official_sdk_sends_is_taken_and_what_is_stored_the_sdk_and_kcat_can_read(running: Running) -> None:
    def post(message: HTTPMessage) -> int:
        return httpx.post(f"{running.url}/v1/events", content=message.body, headers=message.headers).status_code

    assert post(to_structured_event(sdk_event("sdk-structured"))) == 202
    assert post(to_binary_event(sdk_event("sdk-binary"))) == 202

    asked = ("-C", "-t", EVENTS_RAW, "-e", "-J", "-X", "isolation.level=read_committed")
    lines = [json.loads(line) for line in kcat(running.broker.config.bootstrap, *asked).splitlines()]
    stored = {json.loads(line["payload"])["id"]: line for line in lines}
    for event_id in ("sdk-structured", "sdk-binary"):
        line = stored[event_id]
        names, values = line["headers"][::2], line["headers"][1::2]
        message = KafkaMessage(
            headers={name: value.encode() for name, value in zip(names, values, strict=True)},
            key=line["key"].encode(),
            value=line["payload"].encode(),
        )
        event = from_structured_event(message)
        assert (event.get_id(), event.get_subject(), line["key"]) == (event_id, "Zürich 100%", "Zürich 100%")
        assert event.get_data() == {"origin": "EWR", "dep_delay_min": 3}


def test_a_stopped_broker_is_refused_for_in_time_shown_and_recovered_from(running: Running) -> None:
    """SIGSTOP: the broker's sockets stay open and it answers nothing, which no closed connection tells."""
    broker_pid = running.broker.process.pid if running.broker.process else 0

    def post(event_id: str) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        body = encode_event(departed(event_id, at="10:00"))
        answer = httpx.post(f"{running.url}/v1/events", content=body, headers={"content-type": SINGLE}, timeout=20)
        return answer, time.monotonic() - began

    os.kill(broker_pid, signal.SIGSTOP)
    try:
        first, took_s = post("while-stopped-1")
        until(lambda: not is_ready(running.port), "/readyz tells")
        second, at_once_s = post("while-stopped-2")
    finally:
        os.kill(broker_pid, signal.SIGCONT)
    until(lambda: is_ready(running.port), "/readyz recovers")
    after, _ = post("after")

    assert [first.status_code, second.status_code, after.status_code] == [503, 503, 202]
    assert [answer.json()["type"].rpartition(":")[2] for answer in (first, second)] == [
        "not-acknowledged",
        "log-unavailable",
    ]
    for answer in (first, second):
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
    assert at_once_s < took_s
    ids = running.ids(EVENTS_RAW)
    assert "after" in ids
    assert "while-stopped-2" not in ids


@dataclass
class Client(threading.Thread):
    """Posts one event after another; ends with the server, or repeats what was not accepted until it is asked to leave."""

    port: int
    name_: str
    repeats: bool = False
    accepted: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.leave = threading.Event()

    def run(self) -> None:
        number = 1
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10) as client:
            while not self.leave.is_set():
                event_id = f"{self.name_}-{number}"
                body = encode_event(departed(event_id, at="10:00"))
                try:
                    status = client.post("/v1/events", content=body, headers={"content-type": SINGLE}).status_code
                except httpx.TransportError:
                    if not self.repeats:
                        return
                    status = 0
                if status == 202:
                    self.accepted.append(event_id)
                    number += 1
                else:
                    self.refused.append(status)

    __hash__ = threading.Thread.__hash__


def test_on_sigterm_under_load_everything_accepted_is_in_the_log_and_the_exit_code_is_0(running: Running) -> None:
    clients = [Client(running.port, f"drain{n}") for n in range(4)]
    for client in clients:
        client.start()
    until(lambda: sum(len(client.accepted) for client in clients) > 50, "the load flows")

    code = stop(running)
    for client in clients:
        client.join(timeout=15)

    accepted = [event_id for client in clients for event_id in client.accepted]
    assert code == 0
    assert not any(client.refused for client in clients)
    assert set(accepted) <= set(running.ids(EVENTS_RAW))


def test_a_body_that_does_not_come_is_408_and_a_head_without_end_is_cut_off(running: Running) -> None:
    here = ("127.0.0.1", running.port)
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\ncontent-length: 9\r\n\r\n{"
    with socket.create_connection(here, DEADLINE_S) as slow, socket.create_connection(here, DEADLINE_S) as bomb:
        slow.sendall(head % SINGLE.encode())
        bomb.sendall(b"GET /livez HTTP/1.1\r\n")
        with contextlib.suppress(OSError):  # closed while we still send
            for number in range(100_000):
                bomb.sendall(b"x-%d: %b\r\n" % (number, b"y" * 100))
            pytest.fail("10 MB of head were taken")
        answer = slow.recv(1000)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert running.get("/livez")[0] == 200
    assert 'headway_collector_refused_total{kind="too-slow"} 1.0' in running.get("/metrics")[1]


@contextlib.contextmanager
def module(name: str, *arguments: object, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one of our modules; whatever is left of it is ended."""
    process = subprocess.Popen([sys.executable, "-m", name, *map(str, arguments)], env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_behind_the_balancer_an_orderly_end_costs_nothing_and_a_kill_only_what_it_was_answering(
    broker: RealBroker, tmp_path: Path
) -> None:
    """A POST that may have been stored is not sent again by the balancer; the client's repeat has the same id (S12)."""
    base = free_block()
    settings = Settings(state=tmp_path, kafka_bootstrap=broker.config.bootstrap, port_base=base)
    environment = settings.environment()
    first = settings.ports.collector_first
    clients = [Client(settings.ports.load_balancer, f"lb{n}", repeats=True) for n in range(4)]
    with (
        module("serving.collector_main", "--instance", 0, environment=environment) as one,
        module("serving.collector_main", "--instance", 1, environment=environment) as two,
        module("serving.balancer", environment=environment),
    ):
        until(lambda: is_ready(first) and is_ready(first + 1), "both collectors are ready")
        until(lambda: answers_events(settings.ports.load_balancer), "the balancer found them")
        for client in clients:
            client.start()
        until(lambda: all(len(client.accepted) > 20 for client in clients), "the load flows")

        two.terminate()
        code = two.wait(timeout=15)
        in_order = [status for client in clients for status in client.refused]
        reached = [len(client.accepted) for client in clients]
        with module("serving.collector_main", "--instance", 1, environment=environment):
            until(lambda: is_ready(first + 1), "the second is back")
            until(lambda: all(len(c.accepted) > n + 50 for c, n in zip(clients, reached, strict=True)), "it flows on")
            one.kill()
            one.wait()
            reached = [len(client.accepted) for client in clients]
            until(lambda: all(len(c.accepted) > n + 20 for c, n in zip(clients, reached, strict=True)), "one is enough")
            for client in clients:
                client.leave.set()
            for client in clients:
                client.join(timeout=15)
    refused = [status for client in clients for status in client.refused]

    assert (code, in_order) == (0, [])
    # Each loses at most the request that was being answered, and the connection that the balancer closes with it.
    assert len(refused) <= 2 * len(clients)
    assert set(refused) <= {0, 502}
    accepted = [event_id for client in clients for event_id in client.accepted]
    assert set(accepted) <= set(Running(broker, first, one).ids(EVENTS_RAW))


def answers_events(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/events/openapi.json", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
