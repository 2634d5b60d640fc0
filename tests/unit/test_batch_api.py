"""What a product application sees of batch results, over a small database."""

import asyncio
import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from headway.adapters.results_database import ResultsDatabase
from headway.clock import HOUR_US, format_us
from headway.drift import Window
from headway.errors import InputRejected, TransientFailure
from headway.results import REFUSED_COLUMNS, RESULT_COLUMNS, Place, Result, read_place, write_place
from serving.batch_openapi import batch_openapi
from serving.batch_results import PATH, BatchApi

WEEK = Window(from_us=0, until_us=24 * HOUR_US)
ALL = {"from": format_us(WEEK.from_us), "until": format_us(WEEK.until_us)}
URL = f"{PATH}/delay"


@pytest.fixture
def results(tmp_path: Path) -> Iterator[ResultsDatabase]:
    made = ResultsDatabase(f"sqlite:///{tmp_path / 'results.sqlite'}")
    rows = [(h * HOUR_US, f"f/{h}", 2, "digest", "run-9", f"batch-{h}", h / 7, 1) for h in range(5)]
    answered = pl.DataFrame(rows, schema=list(RESULT_COLUMNS), orient="row")
    refused = pl.DataFrame(
        [(HOUR_US, "f/odd", 2, "run-9", "dest: got 'XXX'")], schema=list(REFUSED_COLUMNS), orient="row"
    )
    made.replace("delay", WEEK, [answered], [refused])
    yield made
    made.close()


def send(api: BatchApi, method: str, path: str, **request: Any) -> httpx.Response:
    async def sent() -> httpx.Response:
        app: Any = api
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            return await client.request(method, path, **request)

    return asyncio.run(sent())


@pytest.fixture
def api(results: ResultsDatabase) -> BatchApi:
    return BatchApi(results, ["delay", "ranking"], batch_openapi(["delay", "ranking"]))


def test_an_answer_names_its_model_its_run_and_its_receipt(api: BatchApi) -> None:
    document = send(api, "GET", URL, params=ALL).json()

    assert document["product"] == "delay"
    assert document["next"] is None
    assert document["results"][3] == {
        "subject": "f/3",
        "as_of": format_us(3 * HOUR_US),
        "probability": 3 / 7,
        "model": {"name": "delay", "version": 2, "digest": "digest"},
        "run_id": "run-9",
        "receipt": "batch-3",
    }


def test_pages_follow_one_another_to_the_end(api: BatchApi) -> None:
    found, asked = [], {**ALL, "limit": "2"}
    for _ in range(3):
        page = send(api, "GET", URL, params=asked).json()
        found += [row["subject"] for row in page["results"]]
        asked["after"] = page["next"] or ""

    assert found == [f"f/{hour}" for hour in range(5)]
    assert asked["after"] == ""


def test_an_interval_is_half_open_and_a_version_can_be_asked(api: BatchApi) -> None:
    some = send(api, "GET", URL, params={"from": format_us(HOUR_US), "until": format_us(3 * HOUR_US)}).json()

    assert [row["subject"] for row in some["results"]] == ["f/1", "f/2"]
    assert send(api, "GET", URL, params={**ALL, "model_version": "1"}).json()["results"] == []
    assert send(api, "GET", f"{PATH}/ranking", params=ALL).json()["results"] == []


def test_what_was_not_answered_is_told_with_its_reason(api: BatchApi) -> None:
    [refused] = send(api, "GET", f"{URL}/refused", params=ALL).json()["refused"]

    assert refused == {
        "subject": "f/odd",
        "as_of": format_us(HOUR_US),
        "model_version": 2,
        "run_id": "run-9",
        "reason": "dest: got 'XXX'",
    }


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"from": ""}, "from: got ''"),
        ({"from": "2013-01-01"}, "from: got '2013-01-01'"),
        ({"until": ALL["from"]}, "until: got 1970-01-01T00:00:00Z, wanted an instant after from"),
        ({"limit": "0"}, "limit: got '0', wanted a whole number from 1 to 1000"),
        ({"limit": "1001"}, "limit: got '1001'"),
        ({"limit": "²"}, "limit: got"),
        ({"model_version": "-1"}, "model_version: got '-1'"),
        ({"after": "zz"}, "after: got 'zz', wanted 'next' of the page before"),
        ({"colour": "blue"}, "query: got ['from', 'until', 'colour']"),
    ],
)
def test_a_question_that_is_wrong_is_told_what_is(api: BatchApi, changed: dict[str, str], says: str) -> None:
    answer = send(api, "GET", URL, params={**ALL, **changed})

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert says in answer.json()["detail"]


def test_a_missing_bound_a_repeated_one_and_another_method_are_refused(api: BatchApi) -> None:
    assert "until: missing" in send(api, "GET", URL, params={"from": ALL["from"]}).json()["detail"]
    assert send(api, "GET", f"{URL}?from=1&from=2").status_code == 400
    assert send(api, "GET", f"{URL}/refused", params={**ALL, "model_version": "2"}).status_code == 400
    answer = send(api, "POST", URL)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", f"{PATH}/nobody", f"{URL}/other", f"{URL}/refused/x", f"{PATH}x"])
def test_an_unknown_path_names_the_products(api: BatchApi, path: str) -> None:
    answer = send(api, "GET", path, params=ALL)

    assert answer.status_code == 404
    assert "delay, ranking" in answer.json()["detail"]


def test_a_database_that_is_away_is_503_and_not_an_empty_page() -> None:
    class Away:
        def page(self, *_: object, **__: object) -> list[Result]:
            raise TransientFailure("results database: connection refused")

    api = BatchApi(Away(), ["delay"], {})  # type: ignore[arg-type]  # only read

    answer = send(api, "GET", URL, params=ALL)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "connection refused" in answer.json()["detail"]


def test_every_path_of_the_document_answers_its_own_example(api: BatchApi) -> None:
    document = send(api, "GET", f"{PATH}/openapi.json").json()

    assert len(document["paths"]) == 4
    for path, operations in document["paths"].items():
        given = {p["name"]: p["example"] for p in operations["get"]["parameters"] if "example" in p}
        assert send(api, "GET", path, params=given).status_code == 200
        for parameter in operations["get"]["parameters"]:
            assert parameter.get("required", False) == (parameter["name"] in ("from", "until"))


@pytest.mark.parametrize("path", ["/docs", f"{PATH}/docs"])
def test_the_page_for_people_shows_commands_that_answer_and_says_what_may_be_asked(api: BatchApi, path: str) -> None:
    page = send(api, "GET", path, headers={"host": "door:18000"})
    asked = [html.unescape(command) for command in re.findall(r"<pre>curl -s (.+?)</pre>", page.text)]

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(asked) == 4
    for command in asked:
        [address] = shlex.split(command)
        assert send(api, "GET", address.removeprefix("http://door:18000")).status_code == 200
    assert "<td>limit</td><td>integer</td><td></td><td>rows of a page, 100 unless told; 1 to 1000</td>" in page.text
    assert "<td>from</td><td>string (date-time)</td><td>needed</td><td>first as-of</td>" in page.text
    assert re.findall("data-path='(.+?)'", page.text) == list(send(api, "GET", "/openapi.json").json()["paths"])
    assert "<input name='until' value='2013-07-08T00:00:00Z'>" in page.text


def test_examples_have_the_shape_of_answers(api: BatchApi) -> None:
    paths = send(api, "GET", "/openapi.json").json()["paths"]
    for path, key in ((URL, "results"), (f"{URL}/refused", "refused")):
        example = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["example"]
        answer = send(api, "GET", path, params=ALL).json()

        assert example.keys() == answer.keys()
        assert example[key][0].keys() == answer[key][0].keys()


def test_health_follows_the_process_and_metrics_count_answers(api: BatchApi) -> None:
    assert send(api, "GET", "/livez").status_code == 200
    assert send(api, "GET", "/readyz").json()["products"] == ["delay", "ranking"]
    assert send(api, "GET", PATH).json()["products"] == ["delay", "ranking"]
    send(api, "GET", URL, params=ALL)
    page = send(api, "GET", "/metrics").text
    assert 'headway_batch_rows_total{product="delay"} 5.0' in page
    assert 'headway_batch_answers_total{status="200"} 4.0' in page
    api.draining = True
    assert send(api, "GET", "/readyz").status_code == 503


def test_a_place_survives_its_address_and_what_no_database_takes_is_none() -> None:
    place = Place(5, "flight/é?&=#", 3)

    assert read_place(write_place(place)) == place
    beyond = (Place(2**63, "f/1", 3), Place(5, "f\0", 3), Place(5, "f/1", 2**31), Place(5, "f/1", -1))
    for wrong in ("", "7b7d", "zz", write_place(place)[:-2], *map(write_place, beyond)):
        with pytest.raises(InputRejected, match="after"):
            read_place(wrong)
