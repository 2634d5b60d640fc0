"""A load adds what changed, at its own instant; what was true before stays true of before."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.flights.domain import DOMAIN
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import OnlineRequest
from headway.clock import DAY_US
from headway.errors import ContractViolation
from headway.features.catalogue import catalogue
from headway.features.changelog import changelog_table
from headway.features.dimension import changed_rows, newest_rows
from headway.features.readiness import unready
from headway.features.static import StaticView
from headway.meanings import Meaning
from streaming.refreshing import refresh_static
from tests.strategies import START_US, quick

NOTHING = pl.DataFrame(schema=dict(changelog_table(AIRCRAFT).columns))
Fleet = dict[str, tuple[int | None, int | None]]


def fleet(**planes: tuple[int | None, int | None]) -> pl.DataFrame:
    rows = [(tail, *plane) for tail, plane in planes.items()]
    return pl.DataFrame(rows, schema={"tail": pl.String, "built_year": pl.Int64, "seats": pl.Int64}, orient="row")


def loads(*fleets: Fleet) -> pl.DataFrame:
    """The table after loads on successive days."""
    table = NOTHING
    for day, planes in enumerate(fleets):
        known = newest_rows(AIRCRAFT, table)
        table = pl.concat([table, changed_rows(AIRCRAFT, known, fleet(**planes), at_us=START_US + day * DAY_US)])
    return table


def as_of(table: pl.DataFrame, tail: str, at_us: int) -> tuple[Any, ...] | None:
    rows = table.filter((pl.col("tail") == tail) & (pl.col("event_timestamp").dt.timestamp("us") <= at_us))
    newest = newest_rows(AIRCRAFT, rows)
    return newest.select("built_year", "seats").row(0) if newest.height else None


def test_a_first_load_has_a_row_per_entity_in_the_tables_layout() -> None:
    table = loads({"A": (1999, 149), "B": (None, 20)})

    assert table.schema == NOTHING.schema
    assert table.select("tail", "built_year", "seats", "revision", "source").rows() == [
        ("A", 1999, 149, 0, "warehouse"),
        ("B", None, 20, 0, "warehouse"),
    ]


def test_a_load_that_finds_nothing_new_adds_nothing() -> None:
    """A null that stays null is no change either."""
    assert loads({"A": (None, 149)}, {"A": (None, 149)}).height == 1


def test_only_what_changed_is_added_new_and_gone_entities_included() -> None:
    table = loads(
        {"A": (1999, 149), "B": (2001, 20), "C": (None, None)}, {"A": (1999, 150), "B": (2001, 20), "D": (1, 1)}
    )

    second = table.filter(pl.col("event_timestamp").dt.timestamp("us") > START_US)
    assert second.select("tail", "built_year", "seats").rows() == [("A", 1999, 150), ("D", 1, 1)]


def test_an_entity_that_is_gone_reads_null_and_once() -> None:
    table = loads({"A": (1999, 149)}, {}, {}, {"A": (1999, 149)})

    assert [as_of(table, "A", START_US + day * DAY_US) for day in range(4)] == [
        (1999, 149),
        (None, None),
        (None, None),
        (1999, 149),
    ]
    assert table.height == 3


def test_a_correction_of_the_same_instant_is_a_higher_revision() -> None:
    first = loads({"A": (1999, 149)})

    again = changed_rows(AIRCRAFT, newest_rows(AIRCRAFT, first), fleet(A=(1999, 150)), at_us=START_US)

    assert again.select("seats", "revision").rows() == [(150, 1)]
    assert newest_rows(AIRCRAFT, pl.concat([first, again]))["seats"].to_list() == [150]


FLEETS = st.dictionaries(
    st.sampled_from("ABC"), st.tuples(st.none() | st.integers(1, 2), st.none() | st.integers(1, 2)), max_size=3
)


@quick
@given(st.lists(FLEETS, min_size=1, max_size=5))
def test_every_instant_reads_what_the_last_load_before_it_said(fleets: list[Fleet]) -> None:
    table = loads(*fleets)

    for day, planes in enumerate(fleets):
        for tail in "ABC":
            said = planes.get(tail, (None, None))
            for at_us in (START_US + day * DAY_US, START_US + (day + 1) * DAY_US - 1):
                assert (as_of(table, tail, at_us) or (None, None)) == said


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (fleet(A=(1, 1)).drop("seats"), "load, columns: got"),
        (fleet(A=(1, 1)).cast({"seats": pl.Float64}), "load, columns: got"),
        (pl.concat([fleet(A=(1, 1)), fleet(A=(2, 2))]), "0 without a key, 1 repeated"),
        (fleet(A=(1, 1)).with_columns(tail=pl.lit(None, pl.String)), "1 without a key"),
    ],
)
def test_a_load_that_does_not_fit_is_refused(loaded: pl.DataFrame, said: str) -> None:
    with pytest.raises(ContractViolation, match=rf"static view aircraft\.v1, .*{said}"):
        changed_rows(AIRCRAFT, NOTHING, loaded, at_us=START_US)


def test_a_load_of_the_past_is_refused() -> None:
    with pytest.raises(ContractViolation, match="loads go forward"):
        changed_rows(AIRCRAFT, loads({"A": (1, 1)}), fleet(A=(2, 2)), at_us=START_US - 1)


def test_a_refresh_reaches_lake_and_store_and_makes_the_view_ready(tmp_path: Path) -> None:
    lake, store = Lake(tmp_path), MemoryOnlineStore()
    state = {"fleet": fleet(A=(1999, 149), B=(2001, 20))}
    view = replace(AIRCRAFT, load=lambda: state["fleet"])

    first = refresh_static(view, lake=lake, online=store, marks=store, at_us=START_US)
    state["fleet"] = fleet(A=(1999, 150), B=(2001, 20))
    second = refresh_static(view, lake=lake, online=store, marks=store, at_us=START_US + DAY_US)
    again = refresh_static(view, lake=lake, online=store, marks=store, at_us=START_US + 2 * DAY_US)

    assert [(each.entities, each.changed) for each in (first, second, again)] == [(2, 2), (2, 1), (2, 0)]
    assert lake.read(changelog_table(view).name).height == 3
    [answer] = asyncio.run(
        store.read([OnlineRequest(view="aircraft_v1", keys={"tail": "A"}, features=("built_year", "seats"))])
    )
    assert (answer.values, answer.event_timestamp_us) == ((1999, 150), START_US + DAY_US)
    assert answer.watermark_ms == (START_US + 2 * DAY_US) // 1000
    assert unready([view], store.states(["aircraft_v1"])) == {}


def test_a_refresh_that_died_before_the_lake_had_it_is_done_again(tmp_path: Path) -> None:
    lake, store = Lake(tmp_path), MemoryOnlineStore()
    view = replace(AIRCRAFT, load=lambda: fleet(A=(1999, 149)))

    class Dies(Lake):
        def append(self, table: str, frame: pl.DataFrame) -> None:
            del table, frame
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        refresh_static(view, lake=Dies(tmp_path), online=store, marks=store, at_us=START_US)
    assert (
        "was never backfilled: headway features refresh"
        in unready([view], store.states(["aircraft_v1"]))["aircraft.v1"]
    )
    refresh_static(view, lake=lake, online=store, marks=store, at_us=START_US + 1)

    assert lake.read(changelog_table(view).name).height == 1
    assert unready([view], store.states(["aircraft_v1"])) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Aircraft"}, "static view, name: got 'Aircraft'"),
        ({"version": 0}, "static view aircraft, version: got 0"),
        ({"keys": ()}, r"static view aircraft\.v1, keys: got \(\)"),
        ({"columns": {}}, r"columns: got \{\}, wanted at least one"),
        ({"columns": {"seats": "string"}}, r"columns\['seats'\]: got 'string', wanted one of"),
        ({"columns": {"month": "int64"}}, r"columns: got \['month'\], wanted names that its table has not yet"),
        ({"columns": {"tail": "int64"}}, r"columns: got \['tail'\]"),
        ({"meanings": {}}, r"meanings: got \[\], .*differ in \['built_year', 'seats'\]"),
        ({"max_lag": timedelta(0)}, "max_lag: got '0:00:00', wanted whole minutes"),
        ({"owner": ""}, "owner: got '', wanted a text"),
    ],
)
def test_a_static_view_that_breaks_a_rule_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(AIRCRAFT, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"keys": ("plane",)},
        {"columns": {"built_year": "int64", "seats": "float64"}},
        {"meanings": {**AIRCRAFT.meanings, "seats": Meaning(unit="rows", description="of the aircraft")}},
    ],
)
def test_its_hash_covers_what_gives_a_value_its_meaning(change: dict[str, Any]) -> None:
    assert replace(AIRCRAFT, **change).digest != AIRCRAFT.digest


def test_static_and_streamed_views_share_one_space_of_names() -> None:
    clash: StaticView = replace(AIRCRAFT, name=DOMAIN.views[0].name)

    with pytest.raises(ContractViolation, match="view version declared twice"):
        replace(DOMAIN, statics=(clash,))


def test_the_catalogue_tells_it_as_one_from_the_warehouse() -> None:
    entry = catalogue([DOMAIN], []).views[-1]

    assert (entry.view, entry.source, entry.hop, entry.stale_after) == ("aircraft.v1", "warehouse", None, "2d")
    assert [(f.name, f.unit) for f in entry.features] == [("built_year", "year"), ("seats", "seats")]


def test_the_fleet_of_the_flights_loads() -> None:
    rows = changed_rows(AIRCRAFT, NOTHING, AIRCRAFT.load(), at_us=START_US)

    assert rows.height == 3322
    assert rows.filter(pl.col("tail") == "N14228").select("built_year", "seats").row(0) == (1999, 149)
