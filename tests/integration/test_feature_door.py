"""The feature API as a part of the stack: behind the load balancer, as its page shows it, and while replicas go and come."""

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import grpc
import pytest

from headway.adapters.haproxy import HaproxyAdmin
from headway.local import lifecycle
from headway.settings import LOOPBACK, Settings, project_root
from serving.balancer import count_answers
from serving.feature_metrics import FeatureMetrics
from serving.grpc_server import PROBLEM_TRAILER
from tests.feature_replica import Client, client_of, fill_with_flights
from tests.page_examples import differences, examples
from tests.serving_world import free_settings, short_folder

# redis-py warns about its own deprecations.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

PAGE = project_root() / "docs" / "features" / "serving.md"
WITHIN_S = 60.0
ASKED_AT_LEAST = 200
REPLICAS = ("feature-api-0", "feature-api-1")


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        # Lost answers are counted here, not slow ones: a busy machine may take longer than a client would wait.
        found = free_settings(folder).model_copy(update={"feature_budget_s": 5.0})
        try:
            lifecycle.up(found, only=["feature-api"], say=quiet)
            wait_for_checks(found)
            yield found
        finally:
            lifecycle.down(found, say=quiet)


def wait_for_checks(settings: Settings) -> None:
    """Until the load balancer has all replicas for both protocols: they are ready before it has asked them."""
    balancer = HaproxyAdmin(settings.sockets / "lb" / "admin.sock", timeout_s=WITHIN_S)
    for backend in ("features", "features-grpc"):
        for name in REPLICAS:
            balancer.wait_l7ok(backend, name, timeout_s=WITHIN_S)


@pytest.fixture(scope="module")
def flights(settings: Settings) -> list[dict[str, str]]:
    return fill_with_flights(f"redis://{settings.online_store}/0")


@pytest.fixture
def door(settings: Settings) -> Iterator[Client]:
    client = client_of(settings.ports.load_balancer, settings.ports.load_balancer_grpc)
    yield client
    client.channel.close()


def test_it_brings_store_and_load_balancer_with_it_and_nothing_else(settings: Settings) -> None:
    facts = lifecycle.status(settings)

    assert facts["phase"] == "ready"
    assert sorted(process["name"] for process in facts["processes"]) == [
        *REPLICAS,
        "haproxy",
        "valkey",
    ]
    assert f"http://{LOOPBACK}:{settings.ports.feature_api}/v1/features" in json.dumps(facts)


def test_a_store_that_was_never_filled_is_not_served(settings: Settings, door: Client) -> None:
    """Whichever test comes first: an empty database of the same server."""
    import redis

    client = redis.Redis.from_url(f"redis://{settings.online_store}/0")
    names = client.keys("hw:watermark:*")
    kept = {name: client.hgetall(name) for name in names}  # type: ignore[union-attr]  # redis-py types both worlds
    if names:
        client.delete(*names)  # type: ignore[misc]
    try:
        status, headers, problem = door.post([{"origin": "EWR", "carrier": "UA", "dest": "IAH", "tail": None}])
    finally:
        for name, fields in kept.items():
            client.hset(name, mapping=fields)  # type: ignore[arg-type]
        client.close()

    assert (status, headers["retry-after"], problem["type"]) == (503, "30", "urn:headway:problem:view-not-ready")


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_the_page_shows_what_is_answered(settings: Settings, flights: list[dict[str, str]], number: int) -> None:
    assert flights
    example = examples(PAGE)[number]
    ports = {"18000": settings.ports.load_balancer, "18001": settings.ports.load_balancer_grpc}

    assert differences(example, example.run(ports)) == []


def test_the_page_has_examples_of_both_protocols() -> None:
    sources = [example.source for example in examples(PAGE)]

    assert any("curl" in source for source in sources)
    assert any("grpc.insecure_channel" in source for source in sources)


def test_the_page_names_every_setting_and_metric() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = [f"HEADWAY_{name.upper()}" for name in Settings.model_fields if name.startswith("feature_")]

    counted = re.findall(r"^# TYPE (headway_\w+)", FeatureMetrics([]).page().body.decode(), re.MULTILINE)

    assert (len(named), len(set(counted))) == (4, len(counted))
    assert [name for name in (*named, *counted) if name not in page] == []


class Asking:
    """Asks both doors without a pause, and counts what comes back."""

    def __init__(self, door: Client, flight: dict[str, str]) -> None:
        self.answers: Counter[str] = Counter()
        self._door, self._flight = door, flight
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(ask,)) for ask in (self._http, self._grpc)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=WITHIN_S)

    def wait_for(self, more: int) -> None:
        wanted = self.answers.total() + more
        deadline_s = time.monotonic() + WITHIN_S
        while self.answers.total() < wanted:
            assert time.monotonic() < deadline_s, f"no more answers: {self.answers}"
            time.sleep(0.02)

    def _ask(self, ask: Callable[[], str]) -> None:
        while not self._ended.is_set():
            self.answers[ask()] += 1

    def _http(self) -> str:
        try:
            status, _, document = self._door.post([self._flight])
        except OSError as error:
            return f"http {error!r}"
        return "http OK" if status == 200 else f"http {status} {document.get('type')}"

    def _grpc(self) -> str:
        try:
            self._door.call([self._flight])
        except grpc.RpcError as error:
            call: Any = error  # grpc has no types
            return (
                f"grpc {call.code().name} {dict(call.trailing_metadata() or ()).get(PROBLEM_TRAILER, call.details())}"
            )
        return "grpc OK"

    def lost(self) -> dict[str, int]:
        """What no replica answered; a store that took longer than it may on a busy machine is an answer of one."""
        return {what: n for what, n in self.answers.items() if not what.endswith((" OK", ":store-unavailable"))}


@contextmanager
def asking(settings: Settings, door: Client, flights: list[dict[str, str]]) -> Iterator[Asking]:
    """Ask while the body runs, once the load balancer has all replicas for both protocols."""
    wait_for_checks(settings)
    with Asking(door, flights[0]) as running:
        running.wait_for(ASKED_AT_LEAST)
        yield running
        running.wait_for(ASKED_AT_LEAST)


def process_of(settings: Settings, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(p for p in lifecycle.status(settings)["processes"] if p["name"] == name)
    return found


@pytest.mark.long
def test_no_answer_is_lost_while_a_replica_drains_and_comes_back(
    settings: Settings, door: Client, flights: list[dict[str, str]]
) -> None:
    before = process_of(settings, REPLICAS[0])["pid"]
    with asking(settings, door, flights) as running:
        lifecycle.direct(settings, "restart", REPLICAS[0], within_s=WITHIN_S)

    assert process_of(settings, REPLICAS[0])["pid"] != before
    assert running.lost() == {}, running.answers


@pytest.mark.long
def test_a_killed_replica_costs_no_answer_over_http_and_is_started_again(
    settings: Settings, door: Client, flights: list[dict[str, str]]
) -> None:
    """Over gRPC the calls it had on its connection may fail: their client repeats them, as any client of a network must."""
    before = process_of(settings, REPLICAS[1])["pid"]
    with asking(settings, door, flights) as running:
        os.kill(before, signal.SIGKILL)
        deadline_s = time.monotonic() + WITHIN_S
        while (now := process_of(settings, REPLICAS[1]))["pid"] in (None, before) or now["state"] != "ready":
            assert time.monotonic() < deadline_s, f"it was not started again: {now}"
            time.sleep(0.1)

    lost = running.lost()
    assert sum(lost.values()) <= 3, running.answers
    assert not [what for what in lost if what.startswith("http")], running.answers


def test_the_load_balancer_logs_both_doors_with_a_receipt(
    settings: Settings, door: Client, flights: list[dict[str, str]]
) -> None:
    log = settings.state / "log" / "haproxy.log"

    def told() -> list[int]:
        doors = ("/v1/features", "/headway.features.v1.FeatureService")
        return [sum(count_answers(log, path).by_status.values()) for path in doors]

    before = told()
    door.post(flights[:1])
    door.call(flights[:1])

    deadline_s = time.monotonic() + WITHIN_S
    while any(now <= then for now, then in zip(told(), before, strict=True)):
        assert time.monotonic() < deadline_s, "a door logs no request"
        time.sleep(0.05)
