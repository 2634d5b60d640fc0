"""What the Enrichment API's client does when the API is slow, down, failing, overloaded or talks nonsense."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from headway.adapters.enrichment_http import ATTEMPTS, HttpEnrichment
from headway.errors import DependencyDown
from headway.ports import Enriched, EnrichmentFailed, EnrichmentItem
from headway.retry_budget import RetryBudget
from tests.streaming_world import Departed

Behave = Callable[["Faulty", "Request", list[str]], None]


class Faulty(ThreadingHTTPServer):
    """A server that behaves as told, and remembers when it was asked about what."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.behave: Behave = good
        self.asked: list[tuple[float, list[str]]] = []
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that leave are the point."""


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def do_POST(self) -> None:
        items = json.loads(self.rfile.read(int(self.headers["content-length"])))["items"]
        origins = [item["data"]["origin"] for item in items]
        self.server.asked.append((time.monotonic(), origins))
        self.server.behave(self.server, self, origins)

    def say(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def good(_: Faulty, request: Request, origins: list[str]) -> None:
    results = [{"status": "enriched", "columns": {"region": origin}} for origin in origins]
    request.say(200, {"version": "v1", "age_s": 1.0, "results": results})


def answers_with(status: int, headers: dict[str, str] | None = None) -> Behave:
    return lambda _, request, __: request.say(status, {"title": "planted"}, headers)


def in_turn(*behaviours: Behave) -> Behave:
    """One after the other; the last one stays."""
    left = list(behaviours)

    def behave(server: Faulty, request: Request, origins: list[str]) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(server, request, origins)

    return behave


def hangs(server: Faulty, _: Request, __: list[str]) -> None:
    server.ended.wait(20)


def drips(server: Faulty, request: Request, _: list[str]) -> None:
    request.send_response(200)
    request.send_header("content-length", "100000")
    request.end_headers()
    while not server.ended.wait(0.02):
        request.wfile.write(b" ")


def resets(_: Faulty, request: Request, __: list[str]) -> None:
    request.close_connection = True


def nonsense(_: Faulty, request: Request, __: list[str]) -> None:
    request.say(200, {"version": "v1", "age_s": 0, "results": []})


def fails_on(bad: str) -> Behave:
    def behave(server: Faulty, request: Request, origins: list[str]) -> None:
        (answers_with(500) if bad in origins else good)(server, request, origins)

    return behave


def fails_only(bad: str) -> Behave:
    def behave(_: Faulty, request: Request, origins: list[str]) -> None:
        results = [
            {"status": "failed", "detail": "planted"}
            if origin == bad
            else {"status": "enriched", "columns": {"region": origin}}
            for origin in origins
        ]
        request.say(200, {"version": "v1", "age_s": 1.0, "results": results})

    return behave


@pytest.fixture
def server() -> Iterator[Faulty]:
    server = Faulty()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def make(server: Faulty) -> Iterator[Callable[..., HttpEnrichment]]:
    made: list[HttpEnrichment] = []

    def client(**options: Any) -> HttpEnrichment:
        options = {"deadline_s": 1.0, "call_timeout_s": 0.3, "breaker_failures": 100, **options}
        made.append(HttpEnrichment(server.url, **options))
        return made[-1]

    yield client
    for each in made:
        each.close()


def items(*origins: str) -> list[EnrichmentItem]:
    return [EnrichmentItem("flight.departed.v1", Departed(origin=origin, dep_delay_min=1)) for origin in origins]


def regions(answers: list[Any]) -> list[str]:
    return [answer.columns["region"] for answer in answers if isinstance(answer, Enriched)]


Make = Callable[..., HttpEnrichment]


@pytest.mark.parametrize(
    "behaviour", [answers_with(500), answers_with(503), resets, nonsense], ids=["500", "503", "reset", "nonsense"]
)
def test_one_failure_is_retried(server: Faulty, make: Make, behaviour: Behave) -> None:
    server.behave = in_turn(behaviour, good)

    assert regions(make().enrich(items("EWR"))) == ["EWR"]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "behaviour",
    [answers_with(500), answers_with(503), answers_with(404), hangs, drips, resets, nonsense],
    ids=["500", "503", "404", "hang", "drip", "reset", "nonsense"],
)
def test_when_nothing_is_answered_the_service_is_down_within_the_deadline_and_no_item_is_to_blame(
    server: Faulty, make: Make, behaviour: Behave
) -> None:
    client = make()
    assert regions(client.enrich(items("LGA"))) == ["LGA"]
    server.behave = behaviour
    began = time.monotonic()

    with pytest.raises(DependencyDown, match="the Enrichment API is down"):
        client.enrich(items("EWR", "JFK"))

    assert time.monotonic() - began < 5.0


def test_nobody_listening_is_down(make: Make, server: Faulty) -> None:
    client = make()
    server.shutdown()
    server.server_close()

    with pytest.raises(DependencyDown):
        client.enrich(items("EWR"))


def test_retry_after_is_waited_for(server: Faulty, make: Make) -> None:
    server.behave = in_turn(answers_with(503, {"retry-after": "1"}), good)

    make(deadline_s=5.0).enrich(items("EWR"))

    (first, _), (second, _) = server.asked
    assert second - first >= 1.0


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(server: Faulty, make: Make) -> None:
    server.behave = answers_with(503, {"retry-after": "60"})

    with pytest.raises(DependencyDown):
        make().enrich(items("EWR"))
    assert len(server.asked) == 1


def test_retries_end_with_their_budget(server: Faulty, make: Make) -> None:
    """A service in trouble must not be asked three times as much by every client."""
    server.behave = answers_with(503)
    client = make(budget=RetryBudget(ratio=0.1, reserve=2.0))

    for _ in range(20):
        with pytest.raises(DependencyDown):
            client.enrich(items("EWR"))

    assert len(server.asked) <= 20 + 2 + 2


@pytest.mark.parametrize("place", [0, 13, 20])
def test_an_item_that_ends_the_call_is_found_and_alone_to_blame(server: Faulty, make: Make, place: int) -> None:
    server.behave = fails_on("BAD")
    good_ones = [f"A{number}" for number in range(20)]

    answers = make(deadline_s=10.0, call_timeout_s=2.0).enrich(items(*good_ones[:place], "BAD", *good_ones[place:]))

    assert regions(answers) == good_ones
    blamed = answers[place]
    assert isinstance(blamed, EnrichmentFailed)
    assert blamed.attempts == ATTEMPTS


def test_an_item_that_the_service_says_failed_is_tried_again_and_then_alone_to_blame(
    server: Faulty, make: Make
) -> None:
    server.behave = fails_only("BAD")

    answers = make().enrich(items("A", "BAD", "B"))

    assert regions(answers) == ["A", "B"]
    assert answers[1] == EnrichmentFailed("the Enrichment API fails on this body (planted)", ATTEMPTS)
    assert [origins for _, origins in server.asked] == [["A", "BAD", "B"], ["BAD"], ["BAD"]]


def test_a_lone_bad_item_is_to_blame_only_when_another_one_was_answered(server: Faulty, make: Make) -> None:
    client = make()
    server.behave = fails_only("BAD")

    with pytest.raises(DependencyDown):
        client.enrich(items("BAD"))
    client.enrich(items("GOOD"))
    [answer] = client.enrich(items("BAD"))

    assert isinstance(answer, EnrichmentFailed)


def test_the_breaker_opens_then_lets_one_probe_through_and_closes(server: Faulty, make: Make) -> None:
    client = make(breaker_failures=3, breaker_reset_s=0.5, budget=RetryBudget(reserve=0.0))
    server.behave = answers_with(503)
    for _ in range(3):
        with pytest.raises(DependencyDown):
            client.enrich(items("EWR"))
    asked = len(server.asked)

    with pytest.raises(DependencyDown, match="asked again within"):
        client.enrich(items("EWR"))
    assert client.open
    assert len(server.asked) == asked

    time.sleep(0.6)
    with pytest.raises(DependencyDown):
        client.enrich(items("EWR"))
    assert len(server.asked) == asked + 1
    assert client.open

    server.behave = good
    time.sleep(0.6)
    assert regions(client.enrich(items("EWR"))) == ["EWR"]
    assert not client.open
