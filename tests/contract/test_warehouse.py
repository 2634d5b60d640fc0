"""The warehouse on real Delta tables, asked by a real DuckDB."""

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.warehouse import make_report
from domains.flights.contracts import LATE_MIN
from domains.flights.curated import DELAYS, FLIGHTS
from headway.adapters.delta import Lake
from headway.adapters.delta_exact import content_digest, replace_all, replace_days
from headway.adapters.duckdb import query
from headway.cli import main
from headway.errors import InputRejected, TransientFailure
from headway.lake import INSTANT, LakeTable
from headway.warehouse import DAY

NUMBERS = LakeTable(
    name="curated.numbers",
    columns={"n": pl.Int64(), "seen": INSTANT, "note": pl.String(), DAY: pl.String()},
    partition_by=(DAY,),
    required=("n", DAY),
)
FIRST = date(2013, 1, 1)
SEEN = datetime(2013, 1, 1, 5, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    lake.create(NUMBERS)
    return lake


def named(day: int) -> str:
    return (FIRST + timedelta(days=day)).isoformat()


def numbers(by_day: dict[int, list[int]]) -> pl.DataFrame:
    rows = [(n, SEEN, None, named(day)) for day, ns in sorted(by_day.items()) for n in sorted(ns)]
    return pl.DataFrame(rows, schema=dict(NUMBERS.columns), orient="row")


def replace(lake: Lake, by_day: dict[int, list[int]], *, days: list[int], version: int | None = None) -> list[str]:
    at = lake.version(NUMBERS.name) if version is None else version
    return replace_days(lake, NUMBERS, numbers(by_day), order=["n"], days=[named(day) for day in days], version=at)


def test_equal_rows_make_no_version(lake: Lake) -> None:
    replace(lake, {0: [1, 2], 1: [3]}, days=[0, 1])
    before = lake.version(NUMBERS.name)

    assert replace(lake, {0: [1, 2], 1: [3]}, days=[0, 1]) == []
    assert lake.version(NUMBERS.name) == before


def test_only_days_that_changed_get_a_new_file(lake: Lake) -> None:
    replace(lake, {0: [1, 2], 1: [3], 2: [4]}, days=[0, 1, 2])
    before = set(lake.file_paths(NUMBERS.name))

    assert replace(lake, {0: [1, 2], 1: [30], 3: [5]}, days=[0, 1, 2, 3]) == [named(1), named(2), named(3)]
    assert {file.parent.name for file in before & set(lake.file_paths(NUMBERS.name))} == {f"{DAY}={named(0)}"}
    assert sorted(lake.read(NUMBERS.name)["n"]) == [1, 2, 5, 30]


BY_DAY = st.dictionaries(st.integers(0, 5), st.lists(st.integers(-(2**40), 2**40), unique=True, max_size=5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BY_DAY, BY_DAY, st.integers(1, 6))
def test_the_bytes_follow_from_the_rows_whatever_was_there_and_however_it_came(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[int, list[int]], before: dict[int, list[int]], step: int
) -> None:
    at_once, by_steps = (Lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
    for each in (at_once, by_steps):
        each.create(NUMBERS)
    replace(at_once, wanted, days=list(range(6)))

    replace(by_steps, before, days=list(range(6)))
    for start in range(0, 6, step):
        part = [day for day in range(start, start + step) if day < 6]
        replace(by_steps, {day: wanted[day] for day in part if day in wanted}, days=part)

    assert content_digest(by_steps, NUMBERS.name) == content_digest(at_once, NUMBERS.name)


def test_the_digest_sees_every_bit_and_no_name(lake: Lake, tmp_path: Path) -> None:
    replace(lake, {0: [1, 2], 1: [3]}, days=[0, 1])
    digest = content_digest(lake, NUMBERS.name)

    replace(lake, {1: [4]}, days=[1])
    other = content_digest(lake, NUMBERS.name)
    replace(lake, {1: [3]}, days=[1])

    assert other != digest
    assert content_digest(lake, NUMBERS.name) == digest


def test_whoever_read_first_does_not_overwrite_whoever_wrote_first(lake: Lake) -> None:
    """Two runs of one day: the one whose events are older comes last, and must not take the day back."""
    replace(lake, {day: [day] for day in range(40)}, days=list(range(40)))
    read_at = lake.version(NUMBERS.name)
    replace(lake, {3: [30]}, days=[3])

    with pytest.raises(TransientFailure, match="another writer came first"):
        replace(lake, {3: [3, 4]}, days=[3], version=read_at)
    assert lake.read(NUMBERS.name, predicate=pl.col(DAY) == named(3))["n"].to_list() == [30]


def test_runs_of_other_days_do_not_disturb_each_other(lake: Lake) -> None:
    """Also where a run has more days than Delta takes in a list, and some of them unchanged."""
    replace(lake, {day: [day] for day in range(80)}, days=list(range(80)))
    read_at = lake.version(NUMBERS.name)
    replace(lake, {day: [day, 1000] for day in range(40)}, days=list(range(40)))

    changed = replace(
        lake, {day: [day] if day % 3 else [-day] for day in range(40, 80)}, days=list(range(40, 80)), version=read_at
    )

    assert len(changed) == 13
    assert lake.read(NUMBERS.name).height == 120


def test_two_runs_at_once_leave_the_rows_of_one_of_them(lake: Lake) -> None:
    both = threading.Barrier(2)
    read_at = lake.version(NUMBERS.name)
    outcomes: list[object] = []

    class Racing(Lake):
        def overwrite_partition(self, *arguments: object, **named: object) -> None:
            both.wait(timeout=20)
            super().overwrite_partition(*arguments, **named)  # type: ignore[arg-type]  # handed through

    def run(n: int) -> None:
        racing = Racing(lake.path("x").parent)
        try:
            outcomes.append(replace(racing, {0: [n, n + 1]}, days=[0], version=read_at))
        except TransientFailure as failure:
            outcomes.append(failure)

    runs = [threading.Thread(target=run, args=(n,)) for n in (10, 20)]
    for each in runs:
        each.start()
    for each in runs:
        each.join(timeout=30)

    assert sorted(isinstance(outcome, TransientFailure) for outcome in outcomes) == [False, True]
    assert lake.read(NUMBERS.name)["n"].to_list() in ([10, 11], [20, 21])


def test_sql_sees_what_delta_says_is_there_and_nothing_deleted(lake: Lake) -> None:
    """A glob over the folder would find the rows of every version."""
    replace(lake, {0: [1, 2], 1: [3]}, days=[0, 1])
    replace(lake, {0: [5]}, days=[0])
    lake.delete(NUMBERS.name, f"{DAY} = '{named(1)}'")

    found = query(lake, "SELECT n, seen, note, day FROM curated.numbers")

    assert len(list(lake.path(NUMBERS.name).rglob("*.parquet"))) == 3
    assert found.equals(lake.read(NUMBERS.name))
    assert dict(found.schema) == dict(NUMBERS.columns)


def test_an_empty_table_has_its_columns_and_a_table_that_grew_has_nulls(lake: Lake) -> None:
    empty = query(lake, "SELECT * FROM curated.numbers")
    replace(lake, {0: [1]}, days=[0])
    grown = LakeTable(
        name=NUMBERS.name, columns={**NUMBERS.columns, "more": pl.Float64()}, partition_by=(DAY,), required=("n", DAY)
    )
    lake.create(grown)

    found = query(lake, "SELECT n, more FROM curated.numbers")
    lake.append(NUMBERS.name, numbers({1: [2]}).with_columns(more=pl.lit(0.5)))

    assert (empty.height, dict(empty.schema)) == (0, dict(NUMBERS.columns))
    assert found.rows() == [(1, None)]
    assert query(lake, "SELECT n, more FROM curated.numbers ORDER BY n").rows() == [(1, None), (2, 0.5)]


@pytest.fixture
def elsewhere() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_instants_are_utc_whatever_the_machines_zone(lake: Lake, elsewhere: None) -> None:
    replace(lake, {0: [1]}, days=[0])

    found = query(lake, "SELECT seen, hour(seen) AS hour, seen::DATE AS day FROM curated.numbers")

    assert found.schema["seen"] == INSTANT
    assert found.select("hour", "day").row(0) == (5, FIRST)


def test_tables_are_named_as_in_the_lake(lake: Lake) -> None:
    plain = LakeTable(name="events", columns={"id": pl.String()})
    dotted = LakeTable(name="features.origin_delay.v1", columns={"id": pl.String()})
    for table in (plain, dotted):
        lake.create(table)
        lake.append(table.name, pl.DataFrame({"id": [table.name]}))

    found = query(lake, 'SELECT * FROM events UNION ALL SELECT * FROM features."origin_delay.v1"')

    assert sorted(found["id"]) == ["events", "features.origin_delay.v1"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM curated.nobody", r"(?s)nobody.*tables: curated\.numbers"),
        ("SELECT m FROM curated.numbers", "m"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM delta_scan('x')", "delta"),  # would be fetched from a host when it is first used
        ("SELECT seen - seen AS wait FROM curated.numbers", r"got columns {'wait': 'INTERVAL'}.*date_diff\('minute'"),
    ],
)
def test_a_statement_that_does_not_work_says_why(lake: Lake, sql: str, said: str) -> None:
    with pytest.raises(InputRejected, match=said):
        query(lake, sql)


def test_a_sum_of_integers_is_an_integer_also_as_json(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To DuckDB it is a number of 128 bits, which arrives as a decimal, and in JSON as a text."""
    replace(lake, {0: [1, 2]}, days=[0])
    monkeypatch.setenv("HEADWAY_LAKE", str(lake.path("x").parent))

    assert main(["lake", "query", "SELECT day, sum(n) AS n FROM curated.numbers GROUP BY ALL", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"day": named(0), "n": 3}]
    beyond = query(lake, f"SELECT sum(n) * {10**30}::HUGEINT AS n FROM curated.numbers")
    assert beyond["n"].item() == 3 * 10**30, "what does not fit stays exact"


def test_an_answer_is_a_table_for_people_and_says_what_it_leaves_out(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(lake, {0: list(range(103))}, days=[0])
    monkeypatch.setenv("HEADWAY_LAKE", str(lake.path("x").parent))

    assert main(["lake", "query", "SELECT n, seen FROM curated.numbers ORDER BY n"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["|", "n", "|", "seen", "|"]
    assert lines[2].split()[1:-1] == ["0", "|", "2013-01-01", "05:00:00", "UTC"]
    assert (len(lines), lines[-2:]) == (2 + 100 + 2, ["... 3 more rows", "103 rows"])
    assert main(["lake", "query"]) == 1
    assert "lake query, SQL: got none, wanted a statement" in capsys.readouterr().err


def flown(rows: list[tuple[int, str, str, int | None, int | None, str]]) -> pl.DataFrame:
    """Flights of (day, airline, airport, delay at departure, at arrival, outcome)."""
    made = [
        {
            "subject": f"{number}",
            "carrier": carrier,
            "flight": 1,
            "origin": origin,
            "dest": "IAH",
            "distance_mi": 1,
            "local_day": FIRST + timedelta(days=day),
            DAY: named(day),
            "dep_delay_min": departed,
            "outcome": outcome,
            "arr_delay_min": arrived,
            "late": None if arrived is None else arrived > LATE_MIN,
            "events": 1,
            "too_late_events": 0,
        }
        for number, (day, carrier, origin, departed, arrived, outcome) in enumerate(rows)
    ]
    at = pl.lit(SEEN).cast(INSTANT)
    known = pl.DataFrame(made, schema_overrides=dict(FLIGHTS.table.columns), infer_schema_length=None)
    rest = [
        (at if name in ("sched_dep", "sched_arr") else pl.lit(None, dtype)).alias(name)
        for name, dtype in FLIGHTS.table.columns.items()
        if name not in known.columns
    ]
    return known.with_columns(rest).select(list(FLIGHTS.table.columns))


FLOWN = st.tuples(
    st.integers(0, 20),
    st.sampled_from(["AA", "UA"]),
    st.sampled_from(["EWR", "JFK"]),
    st.none() | st.integers(-20, 200),
    st.integers(-60, 200),
    st.sampled_from(["arrived"] * 4 + ["cancelled", "diverted", "unknown"]),
).map(lambda row: row if row[5] == "arrived" else (*row[:4], None, row[5]))


@settings(max_examples=12, deadline=None)
@given(st.lists(FLOWN, min_size=1, max_size=60))
def test_the_report_says_what_counting_says(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.create(FLIGHTS.table)
    lake.append(FLIGHTS.table.name, flown(rows))

    found = make_report(lake, DELAYS)

    groups: dict[tuple[date, str, str], list[tuple[Any, ...]]] = {}
    for row in rows:
        day = FIRST + timedelta(days=row[0])
        groups.setdefault((day - timedelta(days=day.weekday()), row[1], row[2]), []).append(row)
    wanted = []
    for (week, carrier, origin), flights in sorted(groups.items()):
        departed = [row[3] for row in flights if row[3] is not None]
        arrived = sorted(row[4] for row in flights if row[4] is not None)
        cancelled = sum(row[5] == "cancelled" for row in flights)
        on_time = sum(delay <= LATE_MIN for delay in arrived)
        wanted.append(
            (
                week,
                carrier,
                origin,
                len(flights),
                len(arrived),
                cancelled,
                sum(row[5] == "diverted" for row in flights),
                on_time / len(arrived) if arrived else None,
                sum(arrived) / len(arrived) if arrived else None,
                arrived[math.ceil(len(arrived) * 9 / 10) - 1] if arrived else None,
                sum(departed) / len(departed) if departed else None,
                cancelled / len(flights),
            )
        )
    assert found.rows() == wanted


def test_a_report_is_written_once_and_then_only_when_it_says_something_else(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create(FLIGHTS.table)
    lake.append(
        FLIGHTS.table.name, flown([(0, "AA", "EWR", 1, 2, "arrived"), (1, "UA", "JFK", None, None, "cancelled")])
    )

    first = make_report(lake, DELAYS)
    version, digest = lake.version(DELAYS.table.name), content_digest(lake, DELAYS.table.name)
    make_report(lake, DELAYS)

    assert lake.version(DELAYS.table.name) == version
    assert lake.read(DELAYS.table.name).equals(first)
    lake.append(FLIGHTS.table.name, flown([(0, "B6", "LGA", 1, 2, "arrived")]))
    assert make_report(lake, DELAYS).height == 3
    assert content_digest(lake, DELAYS.table.name) != digest
    replace_all(lake, DELAYS.table, first, order=DELAYS.keys, version=lake.version(DELAYS.table.name))
    assert content_digest(lake, DELAYS.table.name) == digest
