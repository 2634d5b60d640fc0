"""What a client of the feature API sees over HTTP, with the online store in memory."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from domains.catalogue import all_domains
from headway.adapters.memory_online import MemoryOnlineStore
from headway.clock import HOUR_US, MINUTE_US, SECOND_US, FrozenClock, format_us, from_us
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.features.catalogue import catalogue
from headway.features.online import Keys, OnlineRows
from products.catalogue import all_products
from serving.feature_answers import FeatureAnswers, FeatureLimits
from serving.features import PATH, FeatureApi
from tests.feature_world import (
    AS_OF,
    AS_OF_US,
    ELSEWHERE,
    KEYS,
    LIMITS,
    REFUSED,
    ROW_US,
    SERVICE,
    Reader,
    backfilled,
    fill,
    stored_values,
)

NOW_US = AS_OF_US + 10 * MINUTE_US
URL = f"{PATH}/flight_delay"


class World:
    """The API with a store in memory; its clock stands ten minutes after the watermark."""

    def __init__(self, limits: FeatureLimits = LIMITS, *, watermark_us: int = AS_OF_US) -> None:
        self.store = MemoryOnlineStore()
        fill(self.store)
        backfilled(self.store, self.store, watermark_us=watermark_us)
        self.reader = Reader(self.store)
        answers = FeatureAnswers([SERVICE], self.reader, FrozenClock(from_us(NOW_US)), limits)
        found = catalogue(all_domains().values(), all_products().values())
        self.api = FeatureApi(answers, found, start=_nothing, close=_nothing)

    async def asend(self, method: str, path: str, **request: Any) -> httpx.Response:
        app: Any = self.api
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            return await client.request(method, path, **request)

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return asyncio.run(self.asend(method, path, **request))

    def ask(self, *rows: Keys, as_of: str | None = None, status: int = 200) -> dict[str, Any]:
        answer = self.send("POST", URL, json={"rows": rows, "as_of": as_of})
        assert answer.status_code == status, answer.text
        document: dict[str, Any] = answer.json()
        return document


async def _nothing() -> None:
    pass


def test_a_present_row_comes_with_its_values_its_instant_and_its_age() -> None:
    document = World().ask(KEYS, as_of=AS_OF)

    assert (document["service"], document["as_of"]) == ("flight_delay", AS_OF)
    [row] = document["rows"]
    for served in SERVICE.served:
        found = row[served.name]
        stored = stored_values(served)
        assert found["values"] == {name: stored[name] for name in served.features}
        assert (found["status"], found["event_timestamp"], found["age_s"]) == ("present", format_us(ROW_US), 3600.0)
        assert document["views"][served.name] == {"watermark": AS_OF, "lag_s": 0.0, "stale": False}


def test_an_entity_nobody_saw_is_missing_with_count_0_and_nulls() -> None:
    [row] = World().ask(ELSEWHERE, as_of=AS_OF)["rows"]

    assert {each["status"] for each in row.values()} == {"missing"}
    assert row["aircraft_arrival.v1"] == {
        "status": "missing",
        "event_timestamp": None,
        "age_s": None,
        "values": {"last_arr_delay_min_24h": None, "last_at_24h": None, "count_24h": 0},
    }


def test_a_row_without_an_aircraft_has_the_empty_window_of_one() -> None:
    [row] = World().ask({**KEYS, "tail": None}, as_of=AS_OF)["rows"]

    statuses = {view: each["status"] for view, each in row.items()}
    assert {view for view, status in statuses.items() if status == "missing"} == {
        "aircraft_arrival.v1",
        "aircraft_departure.v1",
    }


def test_of_a_view_that_is_behind_neither_a_row_nor_its_absence_is_certain() -> None:
    world = World(watermark_us=NOW_US - HOUR_US)

    document = world.ask(KEYS, ELSEWHERE)

    assert {each["status"] for row in document["rows"] for each in row.values()} == {"stale"}
    assert {view["lag_s"] for view in document["views"].values()} == {3600.0}
    assert document["rows"][0]["origin_delay.v1"]["values"]["count_1h"] == 1
    assert document["rows"][1]["origin_delay.v1"]["event_timestamp"] is None


def test_without_as_of_it_is_now_and_a_view_within_its_max_lag_is_fresh() -> None:
    document = World().ask(KEYS)

    assert document["as_of"] == format_us(NOW_US)
    assert document["views"]["weather.v1"] == {"watermark": AS_OF, "lag_s": 600.0, "stale": False}
    assert document["rows"][0]["weather.v1"]["age_s"] == 4200.0


def test_all_rows_of_a_question_are_read_at_once() -> None:
    world = World()

    document = world.ask(KEYS, ELSEWHERE, KEYS, as_of=AS_OF)

    assert [len(rows) for rows in world.reader.asked] == [3]
    assert document["rows"][0] == document["rows"][2] != document["rows"][1]


@pytest.mark.parametrize(("asked", "status", "kind", "words"), REFUSED)
def test_a_refusal_names_field_got_and_wanted(asked: dict[str, Any], status: int, kind: str, words: str) -> None:
    body = {name: value for name, value in asked.items() if name != "service"}

    answer = World().send("POST", f"{PATH}/{asked.get('service', 'flight_delay')}", json=body)

    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"urn:headway:problem:{kind}")
    assert words in problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "media_type", "status", "words"),
    [
        (b"{", "application/json", 400, "truncated"),
        (b"[]", "application/json", 400, 'wanted {"rows": [...], "as_of": "..."}'),
        (b'{"rows": {}}', "application/json", 400, "got an object of ['rows']"),
        (b'{"rows": [], "features": []}', "application/json", 400, "got an object of ['features', 'rows']"),
        (b'{"rows": [3]}', "application/json", 400, "rows[0]: got a number, wanted an object"),
        (b'{"rows":' + b"[" * 3_000, "application/json", 400, "body: "),
        (b"{}", "text/plain", 415, "got 'text/plain', wanted application/json"),
        (b" " * 4_097, "application/json", 413, "body: more than 4096 bytes; ask in parts"),
    ],
)
def test_what_is_no_question_is_a_problem_that_says_why(body: bytes, media_type: str, status: int, words: str) -> None:
    answer = World().send("POST", URL, content=body, headers={"content-type": media_type})

    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("as_of", "words"),
    [("yesterday", "as_of: got 'yesterday'"), (3, "as_of: got 3"), ("0001-01-01T00:00:00Z", "wanted a year from 2")],
)
def test_an_instant_that_is_none_is_refused(as_of: object, words: str) -> None:
    answer = World().send("POST", URL, json={"rows": [KEYS], "as_of": as_of})

    assert (answer.status_code, words in answer.json()["detail"]) == (400, True), answer.text


@pytest.mark.parametrize("failure", [TransientFailure("online store: gone"), PermanentFailure("online store: NOAUTH")])
def test_a_store_that_is_away_is_told_and_never_taken_for_missing_entities(failure: Exception) -> None:
    world = World()
    world.reader.away = failure

    answer = world.send("POST", URL, json={"rows": [KEYS]})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "urn:headway:problem:store-unavailable"
    assert str(failure) in answer.json()["detail"]
    assert world.send("GET", "/readyz").status_code == 200


def test_bytes_nobody_writes_are_an_error_of_ours() -> None:
    world = World()
    world.reader.away = ContractViolation("online store: a value starts with tag 0x7")

    assert world.send("POST", URL, json={"rows": [KEYS]}).status_code == 500


@pytest.mark.parametrize("digest", [None, "another"])
def test_a_view_that_was_not_backfilled_as_it_is_defined_is_not_served(digest: str | None) -> None:
    """Its windows lack the past and look whole."""
    world = World()
    name = "origin_delay_v1"
    world.store._marks.pop(name)
    if digest is not None:
        world.store.mark_bootstrapped(name, digest=digest, until_us=ROW_US)

    answer = world.send("POST", URL, json={"rows": [KEYS]})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.json()["type"] == "urn:headway:problem:view-not-ready"
    assert "headway features bootstrap --view origin_delay.v1" in answer.json()["detail"]


def test_a_view_that_was_backfilled_meanwhile_is_served() -> None:
    world = World()
    world.store._marks.pop("weather_v1")
    held = world.send("POST", URL, json={"rows": [KEYS]}).status_code
    backfilled(world.store, world.store)

    assert (held, world.send("POST", URL, json={"rows": [KEYS]}).status_code) == (503, 200)


class Held(Reader):
    """Answers when it is let go."""

    def __init__(self, store: MemoryOnlineStore) -> None:
        super().__init__(store)
        self.go, self.came = asyncio.Event(), asyncio.Event()

    def over(self, views: Any) -> Any:
        found = super().over(views)

        async def read(rows: Any) -> OnlineRows:
            answer: OnlineRows = await found(rows)
            self.came.set()
            await self.go.wait()
            return answer

        return read


def held_world(limits: FeatureLimits) -> tuple[World, Held]:
    world = World()
    held = Held(world.store)
    answers = FeatureAnswers([SERVICE], held, FrozenClock(from_us(NOW_US)), limits)
    found = catalogue(all_domains().values(), all_products().values())
    world.api = FeatureApi(answers, found, start=_nothing, close=_nothing)
    return world, held


def test_what_is_beyond_the_rows_in_flight_is_refused_at_once_and_the_rest_is_answered() -> None:
    world, held = held_world(replace(LIMITS, rows_in_flight=3))

    async def three() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        first = asyncio.create_task(world.asend("POST", URL, json={"rows": [KEYS, KEYS]}))
        await held.came.wait()
        second = await world.asend("POST", URL, json={"rows": [KEYS, KEYS]})
        held.go.set()
        return await first, second, await world.asend("POST", URL, json={"rows": [KEYS, KEYS]})

    first, second, third = asyncio.run(three())

    assert (first.status_code, second.status_code, third.status_code) == (200, 503, 200)
    assert second.json()["type"] == "urn:headway:problem:overloaded"
    assert (second.headers["retry-after"], "2 rows are being read, at most 3" in second.text) == ("1", True)


def test_one_question_larger_than_all_that_may_be_in_flight_is_still_answered() -> None:
    """Else a small bound would refuse it for good while the replica idles."""
    world = World(replace(LIMITS, rows_in_flight=1))

    world.ask(KEYS, ELSEWHERE, as_of=AS_OF)


def test_a_read_beyond_its_budget_is_ended_and_told() -> None:
    world, held = held_world(replace(LIMITS, budget_s=0.01, rows_in_flight=1))

    slow = world.send("POST", URL, json={"rows": [KEYS]})
    held.go = asyncio.Event()
    held.go.set()

    assert (slow.status_code, slow.json()["type"]) == (503, "urn:headway:problem:too-slow")
    assert world.send("POST", URL, json={"rows": [KEYS]}).status_code == 200


def test_services_are_listed_with_keys_features_and_meanings() -> None:
    [service] = World().send("GET", PATH).json()["services"]

    assert (service["service"], service["keys"]) == ("flight_delay", list(KEYS))
    assert [view["view"] for view in service["views"]] == [served.name for served in SERVICE.served]
    first = service["views"][0]
    assert first["stale_after_s"] == 900.0
    assert first["features"][1]["name"] == "mean_dep_delay_min_1h"
    assert (first["features"][1]["dtype"], first["features"][1]["unit"]) == ("float64", "min")


def test_the_document_describes_exactly_what_is_answered() -> None:
    world = World()
    answer = world.ask(KEYS, as_of=AS_OF)

    operation = world.send("GET", f"{PATH}/openapi.json").json()["paths"][URL]["post"]

    described = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert set(described) == set(answer)
    row = described["rows"]["items"]["properties"]
    assert {view: set(each["properties"]["values"]["properties"]) for view, each in row.items()} == {
        view: set(each["values"]) for view, each in answer["rows"][0].items()
    }
    asked = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert (set(asked["rows"]["items"]["required"]), asked["rows"]["maxItems"]) == (set(KEYS), LIMITS.rows)


def test_other_methods_and_paths_are_told_what_there_is() -> None:
    world = World()

    wrong = world.send("DELETE", URL)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, POST")
    assert "wanted /livez" in world.send("GET", "/v1/else").json()["detail"]


def test_a_replica_that_leaves_is_alive_and_not_ready() -> None:
    world = World()
    world.api.draining = True

    assert world.send("GET", "/livez").status_code == 200
    assert world.send("GET", "/readyz").status_code == 503


def test_metrics_count_answers_by_outcome_and_rows_by_view() -> None:
    world = World()
    world.ask(KEYS, ELSEWHERE, as_of=AS_OF)
    world.send("POST", f"{PATH}/nobody", json={"rows": [KEYS]})
    world.send("POST", URL, content=b"{", headers={"content-type": "application/json"})

    page = world.send("GET", "/metrics").text

    for line in (
        'headway_feature_answers_total{outcome="ok",protocol="http",service="flight_delay"} 1.0',
        'headway_feature_answers_total{outcome="no-such-service",protocol="http",service="unknown"} 1.0',
        'headway_feature_answers_total{outcome="invalid-question",protocol="http",service="unknown"} 1.0',
        'headway_feature_rows_total{found="missing",service="flight_delay",view="weather.v1"} 1.0',
        'headway_feature_lag_seconds{service="flight_delay",view="weather.v1"} 0.0',
    ):
        assert line in page


def test_a_young_row_within_producers_skew_moves_now_and_a_younger_one_is_refused() -> None:
    world = World()
    fill(world.store, ELSEWHERE, at_us=NOW_US + SECOND_US)
    moved = world.ask(ELSEWHERE)
    fill(world.store, ELSEWHERE, at_us=NOW_US + 6 * SECOND_US)

    assert moved["as_of"] == format_us(NOW_US + SECOND_US)
    assert world.ask(ELSEWHERE, status=409)["type"] == "urn:headway:problem:as-of-in-the-past"
