"""Batch results in each kind of database: SQLite always, PostgreSQL where the machine has it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from headway.adapters.results_database import ResultsDatabase
from headway.clock import HOUR_US
from headway.drift import Window
from headway.errors import Overtaken, PermanentFailure, TransientFailure
from headway.results import REFUSED_COLUMNS, RESULT_COLUMNS, Place, Result, place_of
from tests.free_ports import free_port
from tests.postgres_server import running_postgres

WEEK = Window(from_us=0, until_us=1_000 * HOUR_US)


@pytest.fixture(scope="module", params=("sqlite", "postgresql"))
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('results') / 'folder' / 'results.sqlite'}"
    else:
        with running_postgres() as found:
            yield found


@pytest.fixture
def database(url: str) -> Iterator[ResultsDatabase]:
    made = ResultsDatabase(url)
    yield made
    for product in ("delay", "other"):
        made.replace(product, WEEK, [], [])
    made.close()


def answers(*hours: int, run: str = "run-1", version: int = 1, requested_us: int = 1, by: str = "") -> pl.DataFrame:
    rows = [
        {
            "as_of_us": hour * HOUR_US,
            "subject": f"flight/{place:04}{by}",
            "model_version": version,
            "model_digest": f"digest-{version}",
            "run_id": run,
            "receipt": f"{run}-{version}-{place}",
            "probability": 1 / (3 + place + version),
            "requested_at_us": requested_us,
        }
        for place, hour in enumerate(hours)
    ]
    return pl.DataFrame(rows, schema_overrides={"probability": pl.Float64}).select(RESULT_COLUMNS)


def refusals(*hours: int) -> pl.DataFrame:
    rows = [
        {
            "as_of_us": hour * HOUR_US,
            "subject": f"odd/{hour}",
            "model_version": 1,
            "run_id": "run-1",
            "reason": "dest: é",
        }
        for hour in hours
    ]
    return pl.DataFrame(rows).select(REFUSED_COLUMNS)


def read(database: ResultsDatabase, window: Window = WEEK, *, version: int | None = None) -> list[Result]:
    return database.page("delay", window, rows=10_000, after=None, version=version)


def test_what_is_written_is_read_to_the_last_bit_in_the_order_of_time(database: ResultsDatabase) -> None:
    rows = answers(5, 3, 4)

    count = database.replace("delay", WEEK, [rows[:2], rows[2:]], [refusals(9)])

    found = read(database)
    assert count == 3
    assert [row.as_of_us // HOUR_US for row in found] == [3, 4, 5]
    assert {row.subject: row.probability for row in found} == dict(rows.select("subject", "probability").iter_rows())
    assert found[0] == Result(
        as_of_us=3 * HOUR_US,
        subject="flight/0001",
        model_version=1,
        model_digest="digest-1",
        run_id="run-1",
        receipt="run-1-1-1",
        probability=1 / 5,
    )
    [refused] = database.refused("delay", WEEK, rows=10, after=None)
    assert (refused.subject, refused.reason) == ("odd/9", "dest: é")


def test_a_repeat_leaves_the_same_rows(database: ResultsDatabase) -> None:
    for _ in range(2):
        database.replace("delay", WEEK, [answers(1, 2, 3)], [refusals(4)])

    assert len(read(database)) == 3
    assert len(database.refused("delay", WEEK, rows=10, after=None)) == 1


def test_only_the_products_rows_of_the_window_are_replaced(database: ResultsDatabase) -> None:
    database.replace("delay", WEEK, [answers(1, 5, 9)], [refusals(1, 9)])
    database.replace("other", WEEK, [answers(5)], [])

    database.replace("delay", Window(from_us=5 * HOUR_US, until_us=9 * HOUR_US), [answers(6, by="b")], [])

    assert [row.as_of_us // HOUR_US for row in read(database)] == [1, 6, 9]
    assert len(database.page("other", WEEK, rows=10, after=None, version=None)) == 1
    assert len(database.refused("delay", WEEK, rows=10, after=None)) == 2


def test_a_replacement_that_breaks_is_never_seen(database: ResultsDatabase) -> None:
    database.replace("delay", WEEK, [answers(1, 2)], [refusals(3)])
    before = read(database)

    def breaks() -> Iterator[pl.DataFrame]:
        yield answers(*range(900), by="new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.replace("delay", WEEK, breaks(), [])

    assert read(database) == before


def test_readers_see_the_rows_from_before_until_all_of_the_new_ones_are_there(
    database: ResultsDatabase, url: str
) -> None:
    database.replace("delay", WEEK, [answers(1, 2)], [])
    half, goes_on = threading.Event(), threading.Event()
    other = ResultsDatabase(url)

    def slowly() -> Iterator[pl.DataFrame]:
        yield answers(*range(900), by="new")
        half.set()
        assert goes_on.wait(30)

    writer = threading.Thread(target=database.replace, args=("delay", WEEK, slowly(), []))
    writer.start()
    assert half.wait(30)
    seen = read(other)
    goes_on.set()
    writer.join()

    assert [row.as_of_us // HOUR_US for row in seen] == [1, 2]
    assert len(read(other)) == 900
    other.close()


def test_pages_hold_every_row_once_whatever_their_size(database: ResultsDatabase) -> None:
    database.replace("delay", WEEK, [answers(7, 7, 7, 2, 9, 9, 1)], [refusals(1, 2, 3)])
    whole = read(database)

    for size in (1, 2, 3, 7):
        found: list[Result] = []
        after: Place | None = None
        while page := database.page("delay", WEEK, rows=size, after=after, version=None):
            assert len(page) <= size
            found += page
            after = place_of(page[-1])
        assert found == whole
    first = database.refused("delay", WEEK, rows=2, after=None)
    assert len(database.refused("delay", WEEK, rows=9, after=place_of(first[-1]))) == 1


def test_of_several_versions_the_newest_run_speaks_unless_one_is_asked(database: ResultsDatabase) -> None:
    old, new = answers(1, 2, requested_us=5), answers(1, run="run-2", version=2, requested_us=6)

    database.replace("delay", WEEK, [old, new], [])

    assert [(row.as_of_us // HOUR_US, row.model_version, row.run_id) for row in read(database)] == [
        (1, 2, "run-2"),
        (2, 1, "run-1"),
    ]
    assert [row.model_version for row in read(database, version=1)] == [1, 1]
    assert read(database, version=3) == []


def test_the_same_rows_twice_in_one_replacement_are_refused_and_nothing_changes(database: ResultsDatabase) -> None:
    database.replace("delay", WEEK, [answers(1)], [])

    with pytest.raises(Overtaken, match="repeat"):
        database.replace("delay", WEEK, [answers(2), answers(2)], [])

    assert len(read(database)) == 1


def test_a_database_that_is_away_is_no_empty_answer() -> None:
    with pytest.raises(TransientFailure, match="results database"):
        ResultsDatabase(f"postgresql+psycopg2://me:secret@127.0.0.1:{free_port()}/db")


@pytest.mark.parametrize("wrong", ["nonsense", "oracle+nothing://x/y"])
def test_an_address_that_is_none_says_how_to_write_one(wrong: str) -> None:
    with pytest.raises(PermanentFailure, match="HEADWAY_RESULTS_URL"):
        ResultsDatabase(wrong)


def test_a_password_is_never_shown(database: ResultsDatabase, tmp_path: Path) -> None:
    assert "@" not in ResultsDatabase(f"sqlite:///{tmp_path / 'x.sqlite'}").address
    shown = sa.make_url("postgresql+psycopg2://me:secret@db/x").render_as_string(hide_password=True)
    assert "secret" not in shown
    assert database.address.split(":")[0] in ("sqlite", "postgresql+psycopg2")
