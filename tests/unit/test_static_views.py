"""A static view has what its dimension says changed, at its own instant; what was true before stays true of before."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.flights.dimensions import PLANES
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
from headway.validity import after_load
from headway.warehouse import Dimension
from streaming.refreshing import refresh_static
from tests.strategies import START_US, quick

NOTHING = pl.DataFrame(schema=dict(changelog_table(AIRCRAFT).columns))
FLEET = replace(PLANES, columns={name: PLANES.columns[name] for name in ("built_year", "seats")})
NO_FLEET = pl.DataFrame(schema=dict(FLEET.table.columns))
SEATS = OnlineRequest(view="aircraft_v1", keys={"tail": "A"}, features=("seats",))
Fleet = dict[str, tuple[int | None, int | None]]


def fleet(**planes: tuple[int | None, int | None]) -> pl.DataFrame:
    rows = [(tail, *plane) for tail, plane in planes.items()]
    return pl.DataFrame(rows, schema={"tail": pl.String, "built_year": pl.Int64, "seats": pl.Int64}, orient="row")


def after(rows: pl.DataFrame, planes: Fleet, *, day: int) -> pl.DataFrame:
    return after_load(FLEET, rows, fleet(**planes), at_us=START_US + day * DAY_US)


def loads(*fleets: Fleet) -> pl.DataFrame:
    """The view's table after loads on successive days."""
    rows, table = NO_FLEET, NOTHING
    for day, planes in enumerate(fleets):
        rows = after(rows, planes, day=day)
        table = pl.concat([table, changed_rows(AIRCRAFT, table, FLEET, rows)])
    return table


def of(loaded: pl.DataFrame) -> Dimension:
    """The dimension whose source says this."""
    return replace(FLEET, load=lambda: loaded)


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

    again = changed_rows(AIRCRAFT, first, FLEET, after(NO_FLEET, {"A": (1999, 150)}, day=0))

    assert again.select("seats", "revision").rows() == [(150, 1)]
    assert newest_rows(AIRCRAFT, pl.concat([first, again]))["seats"].to_list() == [150]


def test_a_change_that_was_loaded_by_mistake_is_taken_back_by_a_higher_revision() -> None:
    """The dimension forgets it; the view cannot, because somebody may have read it."""
    table = loads({"A": (1999, 149)}, {"A": (1999, 150)})
    mended = after(after(NO_FLEET, {"A": (1999, 149)}, day=0), {"A": (1999, 149)}, day=1)

    again = changed_rows(AIRCRAFT, table, FLEET, mended)

    assert mended.height == 1
    assert again.select("seats", "revision").rows() == [(149, 1)]
    assert as_of(pl.concat([table, again]), "A", START_US + DAY_US) == (1999, 149)


def test_a_new_view_gets_its_past_from_the_dimension() -> None:
    rows = after(after(NO_FLEET, {"A": (1999, 149), "B": (2001, 20)}, day=0), {"A": (1999, 150)}, day=1)

    table = changed_rows(AIRCRAFT, NOTHING, FLEET, rows)

    assert table.select("tail", "built_year", "seats").rows() == [
        ("A", 1999, 149),
        ("A", 1999, 150),
        ("B", 2001, 20),
        ("B", None, None),
    ]
    assert changed_rows(AIRCRAFT, table, FLEET, rows).is_empty()


def test_a_change_of_what_the_view_does_not_show_is_none() -> None:
    wide = pl.DataFrame({"tail": ["A"], "built_year": [1999], "seats": [149]})
    rows = after_load(FLEET, NO_FLEET, wide, at_us=START_US)
    rows = after_load(FLEET, rows, wide.with_columns(built_year=pl.lit(2000, pl.Int64)), at_us=START_US + DAY_US)
    seats = replace(AIRCRAFT, columns={"seats": "int64"}, meanings={"seats": AIRCRAFT.meanings["seats"]})
    nothing = pl.DataFrame(schema=dict(changelog_table(seats).columns))

    assert rows.height == 2
    assert changed_rows(seats, nothing, FLEET, rows)["seats"].to_list() == [149]


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


def test_a_refresh_reaches_lake_and_store_and_makes_the_view_ready(tmp_path: Path) -> None:
    lake, store = Lake(tmp_path), MemoryOnlineStore()
    first, second = fleet(A=(1999, 149), B=(2001, 20)), fleet(A=(1999, 150), B=(2001, 20))
    view = AIRCRAFT

    done = [
        refresh_static(view, of(loaded), lake=lake, online=store, marks=store, at_us=START_US + day * DAY_US)
        for day, loaded in enumerate((first, second, second))
    ]

    assert [(each.entities, each.changed) for each in done] == [(2, 2), (2, 1), (2, 0)]
    assert lake.read(changelog_table(view).name).height == 3
    [answer] = asyncio.run(
        store.read([OnlineRequest(view="aircraft_v1", keys={"tail": "A"}, features=("built_year", "seats"))])
    )
    assert (answer.values, answer.event_timestamp_us) == ((1999, 150), START_US + DAY_US)
    assert answer.watermark_ms == (START_US + 2 * DAY_US) // 1000
    assert unready([view], store.states(["aircraft_v1"])) == {}


@pytest.mark.parametrize("dies_at", ["dimension", "lake", "online"])
def test_a_refresh_that_died_on_the_way_is_done_again(tmp_path: Path, dies_at: str) -> None:
    lake, store, planes = Lake(tmp_path), MemoryOnlineStore(), of(fleet(A=(1999, 149)))

    class Dies(Lake):
        def append(self, table: str, frame: pl.DataFrame) -> None:
            if dies_at == "lake":
                raise RuntimeError("killed")
            super().append(table, frame)

        def overwrite_partition(self, *arguments: Any, **named: Any) -> None:
            if dies_at == "dimension":
                raise RuntimeError("killed")
            super().overwrite_partition(*arguments, **named)

    class Away(MemoryOnlineStore):
        def write(self, rows: Any) -> Any:
            raise RuntimeError(f"killed before {len(rows)} rows")

    online = Away() if dies_at == "online" else store
    with pytest.raises(RuntimeError, match="killed"):
        refresh_static(AIRCRAFT, planes, lake=Dies(tmp_path), online=online, marks=store, at_us=START_US)
    reason = unready([AIRCRAFT], store.states(["aircraft_v1"]))["aircraft.v1"]
    assert "was never backfilled: headway features refresh" in reason
    refresh_static(AIRCRAFT, planes, lake=lake, online=store, marks=store, at_us=START_US + 1)

    assert lake.read(changelog_table(AIRCRAFT).name).height == 1
    assert asyncio.run(store.read([SEATS]))[0].values == (149,)
    assert unready([AIRCRAFT], store.states(["aircraft_v1"])) == {}


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
        ({"dimension": "Planes"}, "dimension: got 'Planes', wanted a name like planes"),
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimension": "boats"}, r"no dimension 'boats' \(found: \['planes', 'airports', 'airlines'\]\)"),
        ({"keys": ("tail", "carrier")}, r"keys: got \('tail', 'carrier'\), wanted one for each of \('tail',\)"),
        (
            {"columns": {"seats": "float64"}, "meanings": {"seats": AIRCRAFT.meanings["seats"]}},
            r"wanted columns of dimension planes; it has \{'seats': 'int64'\}",
        ),
        ({"dimension": "airlines"}, r"it has \{'built_year': None, 'seats': None\}"),
    ],
)
def test_a_static_view_that_its_dimension_cannot_feed_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(DOMAIN, statics=(replace(AIRCRAFT, **change),))
