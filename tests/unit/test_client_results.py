"""Batch results by the client, over a server that answers as it is told: pages, types, and pages that are not answered."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from headway.client_call import Model, NotAnswered, RequestRefused
from headway.client_results import BatchRefused, BatchResult
from headway.errors import InputRejected
from tests.told_server import Ask, Server, Told, both, patient, told_server

JULY, AUGUST = datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 8, 1, tzinfo=UTC)
MODEL = {"name": "flight_delay", "version": 3, "digest": "d"}


def results(*subjects: str, after: str | None) -> Told:
    rows = [
        {
            "subject": s,
            "as_of": "2013-07-01T14:00:00.5Z",
            "probability": 0.25,
            "model": MODEL,
            "run_id": "r",
            "receipt": s,
        }
        for s in subjects
    ]
    return Told(body={"product": "flight_delay", "results": rows, "next": after})


@pytest.fixture
def server() -> Iterator[Server]:
    with told_server(results("a", "b", after="6162"), results("c", after=None)) as found:
        yield found


def read(found: Any) -> Any:
    """All rows of what either client gives."""

    async def gathered() -> list[Any]:
        return [row async for row in found]

    return gathered() if isinstance(found, AsyncIterator) else list(found)


def asked(server: Server) -> list[tuple[str, dict[str, str]]]:
    return [(urlsplit(path).path, dict(parse_qsl(urlsplit(path).query))) for path, _, _ in server.asked]


@both
def test_all_pages_come_as_typed_rows(server: Server, ask: Ask) -> None:
    found = ask(server.url, patient(), lambda client: read(client.batch_results(JULY, AUGUST)))

    assert [row.subject for row in found] == ["a", "b", "c"]
    assert found[0] == BatchResult(
        subject="a",
        as_of=datetime(2013, 7, 1, 14, 0, 0, 500_000, tzinfo=UTC),
        probability=0.25,
        model=Model(name="flight_delay", version=3, digest="d"),
        run_id="r",
        receipt="a",
    )
    first = {"from": "2013-07-01T00:00:00Z", "until": "2013-08-01T00:00:00Z", "limit": "1000"}
    path = "/v1/batches/flight_delay"
    assert asked(server) == [(path, first), (path, {**first, "after": "6162"})]


@both
def test_a_version_goes_with_every_page_and_any_zone_is_understood(server: Server, ask: Ask) -> None:
    start = datetime(2013, 7, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    ask(server.url, patient(), lambda client: read(client.batch_results(start, AUGUST, model_version=2)))

    assert [(query["from"], query["model_version"]) for _, query in asked(server)] == [
        ("2013-07-01T00:00:00Z", "2"),
        ("2013-07-01T00:00:00Z", "2"),
    ]


@both
def test_what_was_not_answered_comes_with_its_reason(server: Server, ask: Ask) -> None:
    row = {"subject": "x", "as_of": "2013-07-01T14:00:00Z", "model_version": 3, "run_id": "r", "reason": "dest: no"}
    server.tells = [Told(body={"product": "flight_delay", "refused": [row], "next": None})]

    [found] = ask(server.url, patient(), lambda client: read(client.batch_refused(JULY, AUGUST)))

    assert found == msgspec.convert(row, BatchRefused)
    assert found.as_of == datetime(2013, 7, 1, 14, tzinfo=UTC)
    assert [path for path, _ in asked(server)] == ["/v1/batches/flight_delay/refused"]


@both
def test_a_page_that_was_not_answered_is_asked_for_again(server: Server, ask: Ask) -> None:
    server.tells = [results("a", after="61"), Told(status=503, body={"title": "away"}), results("b", after=None)]

    found = ask(server.url, patient(), lambda client: read(client.batch_results(JULY, AUGUST)))

    assert [row.subject for row in found] == ["a", "b"]
    assert [query.get("after") for _, query in asked(server)] == [None, "61", "61"]


@both
def test_rows_end_with_an_error_and_never_early(server: Server, ask: Ask) -> None:
    """A reader that took an outage for the end would take half of a month for all of it."""
    server.tells = [results("a", after="61"), Told(status=503, body={"title": "away"})]

    with pytest.raises(NotAnswered, match="HTTP 503: away"):
        ask(server.url, patient(), lambda client: read(client.batch_results(JULY, AUGUST)))


@both
def test_a_question_that_is_refused_says_why(server: Server, ask: Ask) -> None:
    server.tells = [Told(status=404, body={"detail": "wanted a product"})]

    with pytest.raises(RequestRefused, match="wanted a product"):
        ask(server.url, patient(), lambda client: read(client.batch_results(JULY, AUGUST)))


@both
def test_an_instant_without_a_zone_is_refused_before_anything_is_asked(server: Server, ask: Ask) -> None:
    with pytest.raises(InputRejected, match=r"until: got .* time zone"):
        ask(server.url, patient(), lambda client: client.batch_results(JULY, AUGUST.replace(tzinfo=None)))

    assert server.asked == []
