"""Of every entity one row for every stretch of time, and what it says is what the last load before it said."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.flights.dimensions import AIRPORTS, DIMENSIONS, PLANES
from domains.flights.reference import MISSING_AIRPORTS, load_reference
from headway.clock import DAY_US, from_us
from headway.errors import ContractViolation
from headway.validity import after_load, overlaps, valid_at
from headway.warehouse import Dimension
from tests.strategies import START_US, quick

SEATS = replace(PLANES, columns={name: PLANES.columns[name] for name in ("seats", "model")})
NOTHING = pl.DataFrame(schema=dict(SEATS.table.columns))
Planes = dict[str, tuple[int | None, str | None]]


def plane(loaded: Planes) -> pl.DataFrame:
    return pl.DataFrame([(tail, *said) for tail, said in loaded.items()], schema=SEATS.loaded, orient="row")


def day(number: int) -> int:
    return START_US + number * DAY_US


def loads(fleets: Sequence[Planes]) -> pl.DataFrame:
    rows = NOTHING
    for number, loaded in enumerate(fleets):
        rows = after_load(SEATS, rows, plane(loaded), at_us=day(number))
    return rows


def told(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    def number(instant: Any) -> int | None:
        return None if instant is None else (instant - from_us(START_US)).days

    return [(*row[:3], number(row[3]), number(row[4])) for row in rows.rows()]


def test_a_change_ends_a_row_and_begins_the_next_at_the_instant_of_the_load() -> None:
    rows = loads([{"A": (149, "737"), "B": (20, None)}, {"A": (150, "737"), "B": (20, None)}])

    assert told(rows) == [("A", 149, "737", 0, 1), ("A", 150, "737", 1, None), ("B", 20, None, 0, None)]


def test_what_is_gone_ends_and_what_comes_back_begins_anew() -> None:
    rows = loads([{"A": (149, "737")}, {}, {}, {"A": (149, "737")}])

    assert told(rows) == [("A", 149, "737", 0, 1), ("A", 149, "737", 3, None)]
    assert overlaps(SEATS, rows).is_empty()


def test_a_load_of_an_instant_replaces_what_was_loaded_then() -> None:
    """A wrong load is repeated right, and leaves no trace: neither a row of no duration nor two equal ones that meet."""
    first = loads([{"A": (149, "737"), "B": (20, None)}])
    wrong = after_load(SEATS, first, plane({"A": (1, "737"), "C": (1, None)}), at_us=day(1))

    mended = after_load(SEATS, wrong, plane({"A": (149, "737"), "B": (20, None)}), at_us=day(1))

    assert told(wrong) == [
        ("A", 149, "737", 0, 1),
        ("A", 1, "737", 1, None),
        ("B", 20, None, 0, 1),
        ("C", 1, None, 1, None),
    ]
    assert mended.equals(first)


SAID = st.tuples(st.none() | st.integers(1, 2), st.none() | st.sampled_from(["x", "y"]))
FLEETS = st.lists(st.dictionaries(st.sampled_from("ABC"), SAID, max_size=3), min_size=1, max_size=6)


@quick
@given(FLEETS)
def test_every_instant_says_what_the_last_load_before_it_said(fleets: list[Planes]) -> None:
    rows = loads(fleets)

    assert overlaps(SEATS, rows).is_empty()
    assert valid_at(rows, START_US - 1).is_empty()
    for number, loaded in enumerate(fleets):
        for at_us in (day(number), day(number + 1) - 1):
            holds = valid_at(rows, at_us)
            assert {tail: said for tail, *said in holds.select(list(SEATS.loaded)).rows()} == {
                tail: list(said) for tail, said in loaded.items()
            }


@quick
@given(FLEETS, st.data())
def test_rows_follow_from_what_was_loaded_when_and_from_nothing_else(fleets: list[Planes], data: st.DataObject) -> None:
    """Neither repeats nor the order of a load's rows nor a wrong load that was mended can be seen."""
    rows = NOTHING
    for number, loaded in enumerate(fleets):
        wrong = data.draw(st.dictionaries(st.sampled_from("ABC"), SAID, max_size=3))
        rows = after_load(SEATS, rows, plane(wrong), at_us=day(number))
        shuffled = dict(data.draw(st.permutations(list(loaded.items()))))
        for _ in range(2):
            rows = after_load(SEATS, rows, plane(shuffled), at_us=day(number))

    assert rows.equals(loads(fleets))


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([("A", 1, None, 0, 2), ("A", 2, None, 1, None)], 1),  # runs into the next
        ([("A", 1, None, 0, None), ("A", 2, None, 1, None)], 1),  # does not end
        ([("A", 1, None, 0, 1), ("A", 1, None, 1, None)], 1),  # two that meet and are equal
        ([("A", 1, None, 1, 1)], 1),  # of no duration
        ([("A", 1, None, 0, 1), ("A", 1, None, 2, None), ("B", 1, None, 0, None)], 0),
    ],
)
def test_what_breaks_the_promise_is_found(rows: list[tuple[str, int, None, int, int | None]], wrong: int) -> None:
    made = [
        (tail, seats, model, from_us(day(first)), None if last is None else from_us(day(last)))
        for tail, seats, model, first, last in rows
    ]

    assert overlaps(SEATS, pl.DataFrame(made, schema=dict(SEATS.table.columns), orient="row")).height == wrong


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (plane({"A": (1, "x")}).drop("seats"), "load, columns: got"),
        (plane({"A": (1, "x")}).cast({"seats": pl.Float64}), "load, columns: got"),
        (pl.concat([plane({"A": (1, "x")}), plane({"A": (2, "x")})]), "0 without a key, 1 repeated"),
        (plane({"A": (1, "x")}).with_columns(tail=pl.lit(None, pl.String)), "1 without a key"),
    ],
)
def test_a_load_that_does_not_fit_is_refused(loaded: pl.DataFrame, said: str) -> None:
    with pytest.raises(ContractViolation, match=rf"dimension planes, .*{said}"):
        after_load(SEATS, NOTHING, loaded, at_us=START_US)


def test_a_load_of_the_past_is_refused_also_when_the_last_only_ended_something() -> None:
    with pytest.raises(ContractViolation, match="there is one of 2013-07-02T00:00:00Z; loads go forward"):
        after_load(SEATS, loads([{"A": (1, "x")}, {}]), plane({}), at_us=day(1) - 1)


@pytest.mark.parametrize("dimension", DIMENSIONS, ids=lambda each: each.name)
def test_the_dimensions_of_the_flights_load(dimension: Dimension) -> None:
    rows = after_load(dimension, pl.DataFrame(schema=dict(dimension.table.columns)), dimension.load(), at_us=START_US)

    assert rows.height == {"planes": 3322, "airports": 1462, "airlines": 16}[dimension.name]
    assert overlaps(dimension, rows).is_empty()


def test_planes_and_airports_are_those_that_enrich_the_events() -> None:
    reference, planes, airports = load_reference(), PLANES.load(), AIRPORTS.load()

    assert {tail: (year, seats) for tail, year, seats in planes.select("tail", "built_year", "seats").rows()} == dict(
        reference.planes
    )
    assert {code: place for code, *place in airports.select("airport", "lat", "lon", "time_zone").rows()} == {
        code: list(place) for code, place in reference.airports.items()
    }
    missing = airports.filter(pl.col("airport").is_in(list(MISSING_AIRPORTS)))
    assert missing.height == 4
    assert missing["altitude_ft"].null_count() == 4
