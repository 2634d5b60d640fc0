"""Batch results through the load balancer: the page's own example, pages of real rows, and a process that is killed."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import httpx
import polars as pl
import pytest

from headway.adapters.haproxy import HaproxyAdmin
from headway.adapters.results_database import ResultsDatabase
from headway.client import AsyncClient, Client
from headway.client_call import Policy
from headway.client_results import BatchResult
from headway.clock import HOUR_US, format_us, from_us, parse_instant_us
from headway.drift import Window
from headway.local import lifecycle
from headway.results import RESULT_COLUMNS
from headway.settings import Settings, project_root
from tests.page_examples import differences, examples
from tests.serving_world import free_settings, short_folder

pytestmark = [pytest.mark.integration]

PAGE = project_root() / "docs" / "batch.md"
JULY_US = parse_instant_us("2013-07-01T00:00:00Z", field="at")
WEEK = Window(from_us=JULY_US, until_us=JULY_US + 7 * 24 * HOUR_US)
ROWS = 2_500
WITHIN_S = 60.0
# Not what is tried here, and the machine may be busy.
POLICY = Policy(deadline_s=WITHIN_S)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with short_folder() as folder:
        found = free_settings(folder)
        try:
            lifecycle.up(found, only=["batch-api"], say=quiet)
            admin = HaproxyAdmin(found.sockets / "lb" / "admin.sock", timeout_s=WITHIN_S)
            admin.wait_l7ok("batches", "batch-api", timeout_s=WITHIN_S)
            fill(found)
            yield found
        finally:
            lifecycle.down(found, say=quiet)


def fill(settings: Settings) -> None:
    """Publish a week beside the process that reads it."""
    step = (WEEK.until_us - WEEK.from_us) // ROWS
    rows = [
        (WEEK.from_us + place * step, f"flight/{place}", 3, "digest", "run-1", f"batch-{place}", place / ROWS, 1)
        for place in range(ROWS)
    ]
    database = ResultsDatabase(settings.results_url)
    database.replace("flight_delay", WEEK, [pl.DataFrame(rows, schema=list(RESULT_COLUMNS), orient="row")], [])
    database.close()


def get(settings: Settings, path: str, **params: str) -> httpx.Response:
    return httpx.get(f"{settings.load_balancer_url}{path}", params=params, timeout=10)


@pytest.mark.parametrize("language", ["console", "python"])
def test_the_page_shows_what_its_example_prints(settings: Settings, language: str) -> None:
    [example] = [each for each in examples(PAGE) if each.language == language]

    printed = example.run({"18000": settings.ports.load_balancer})

    assert differences(example, printed) == []


def test_all_rows_of_a_week_come_page_by_page(settings: Settings) -> None:
    asked = {"from": format_us(WEEK.from_us), "until": format_us(WEEK.until_us), "limit": "1000"}
    found: list[float] = []
    for _ in range(3):
        page = get(settings, "/v1/batches/flight_delay", **asked).json()
        found += [row["probability"] for row in page["results"]]
        asked["after"] = page["next"] or ""

    assert asked["after"] == ""
    assert found == [place / ROWS for place in range(ROWS)]
    assert get(settings, "/v1/batches/openapi.json").json()["openapi"] == "3.1.0"


def test_a_client_reads_all_rows_of_a_week(settings: Settings) -> None:
    start, until = from_us(WEEK.from_us), from_us(WEEK.until_us)

    async def gathered() -> list[BatchResult]:
        async with AsyncClient(settings.load_balancer_url, "flight_delay", policy=POLICY) as client:
            return [row async for row in client.batch_results(start, until)]

    with Client(settings.load_balancer_url, "flight_delay", policy=POLICY) as client:
        found = list(client.batch_results(start, until))
        refused = list(client.batch_refused(start, until))

    assert [row.probability for row in found] == [place / ROWS for place in range(ROWS)]
    assert (found[0].as_of, found[0].model.version, refused) == (start, 3, [])
    assert asyncio.run(gathered()) == found


def test_a_killed_process_comes_back_and_reads_on(settings: Settings) -> None:
    [process] = [each for each in lifecycle.status(settings)["processes"] if each["name"] == "batch-api"]
    os.kill(process["pid"], signal.SIGKILL)

    deadline_s, answer = time.monotonic() + WITHIN_S, None
    while answer is None or answer.status_code != 200:
        assert time.monotonic() < deadline_s, "the batch API did not come back"
        time.sleep(0.2)
        answer = get(settings, "/v1/batches")

    assert "flight_delay" in answer.json()["products"]
