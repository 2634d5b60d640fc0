"""The warehouse as Dagster runs it: repeatable to the byte, every event accounted for, faults named and not passed on."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.curated import RECONCILED, UNIQUE
from assets.names import LAKE_EVENTS, curated_key, dimension_key, features_key, report_key
from assets.warehouse import COMPLETE, VALIDITY, warehouse_assets
from domains.flights.contracts import ARRIVED
from domains.flights.curated import DELAYS, FLIGHTS, WEATHER_HOURS
from domains.flights.dimensions import DIMENSIONS, PLANES
from domains.flights.domain import DOMAIN
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.delta_exact import content_digest
from headway.lake import INSTANT
from headway.warehouse import DAY, EVENTS, QUALITY
from products.flight_delay.labels import examples
from tests.assets_world import World
from tests.unit_lake import january

DAYS = ("2012-12-31", "2013-01-10")  # of all flights the lake knows
THIRD = "2013-01-03"
CURATED, REPORT = [curated_key(FLIGHTS), curated_key(WEATHER_HOURS)], report_key(DELAYS)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A lake of its own with the events of early January, as tests here change them."""
    shutil.copytree(january().path("events"), tmp_path / "events")
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


def make(world: World, first: str = DAYS[0], last: str = DAYS[1]) -> dg.ExecuteInProcessResult:
    keys = [*CURATED, REPORT]
    return world.run(warehouse_assets(DOMAIN), select=keys, checked=keys, partitions=(first, last))


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {(e.asset_key.path[-1], e.check_name): e.passed for e in result.get_asset_check_evaluations()}


def shown(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    event = result.asset_materializations_for_node(key.to_python_identifier())[-1]
    return {name: value.value for name, value in event.metadata.items()}


def streamed(events: pl.DataFrame, **change: Any) -> pl.DataFrame:
    """The same events as if the loader had taken them from the log."""
    transport = {"topic": "events.enriched", "partition": 0, "offset": 7, "too_late": False} | change
    dtypes = events.schema
    return events.with_columns(pl.lit(value, dtypes[name]).alias(name) for name, value in transport.items())


def arrivals(lake: Lake, day: str) -> pl.DataFrame:
    of = (pl.col("type") == ARRIVED) & (pl.col("sched_dep").dt.date() == date.fromisoformat(day))
    return lake.read("events", predicate=of).sort("id")


def test_one_run_makes_its_days_and_the_report_and_everything_adds_up(world: World) -> None:
    result = make(world)

    assert result.success
    assert checks(result) == {
        ("flights", RECONCILED): True,
        ("flights", UNIQUE): True,
        ("weather", RECONCILED): True,
        ("weather", UNIQUE): True,
        ("delays", COMPLETE): True,
    }
    told = shown(result, curated_key(FLIGHTS))
    in_lake = world.lake.read("events")
    assert told[EVENTS] == told["on_time"] == in_lake.filter(pl.col("type") != "weather.observed.v1").height
    assert (told["duplicates"], told["late"], told["too_late"]) == (0, 0, 0)
    counts = world.lake.read(FLIGHTS.table.name).group_by(DAY).len()
    by_day = {
        e.partition: e.step_materialization_data.materialization.metadata
        for e in result.all_node_events
        if e.is_step_materialization and e.asset_key == curated_key(FLIGHTS)
    }
    assert {day: n for day, n in counts.rows()} == {
        day: value for day, metadata in by_day.items() if (value := metadata["dagster/partition_row_count"].value)
    }


def test_flights_are_what_labels_say_they_are(world: World) -> None:
    make(world)

    wanted = examples(world.lake.read("events")).select(
        "subject", "outcome", pl.col("label").alias("late"), "carrier", "sched_dep", "sched_arr"
    )
    found = world.lake.read(FLIGHTS.table.name).select(wanted.columns).sort("subject")
    # A flight of the edge may have a departure there and its schedule not: it is a flight all the same.
    found = found.join(wanted, on="subject", how="semi")
    assert found.equals(wanted.sort("subject"))
    assert found["outcome"].n_unique() == 4


def test_a_repeat_writes_nothing_and_other_runs_give_the_same_bytes(world: World, tmp_path: Path) -> None:
    make(world)
    tables = [FLIGHTS.table.name, WEATHER_HOURS.table.name, QUALITY.name, DELAYS.table.name]
    before = {name: (world.lake.version(name), world.lake.file_paths(name)) for name in tables}
    digests = {name: content_digest(world.lake, name) for name in tables}

    again = make(world)

    assert shown(again, curated_key(FLIGHTS))["days_changed"] == 0
    assert {name: (world.lake.version(name), world.lake.file_paths(name)) for name in tables} == before
    for name in tables:
        shutil.rmtree(world.lake.path(name))
    make(world, "2013-01-04", DAYS[1])
    make(world, DAYS[0], "2013-01-03")
    assert {name: content_digest(world.lake, name) for name in tables} == digests


def test_bulk_and_stream_give_the_same_bytes(world: World) -> None:
    make(world)
    bulk = content_digest(world.lake, FLIGHTS.table.name)
    rows = world.lake.read("events").sample(fraction=1.0, shuffle=True, seed=3)
    numbered = streamed(rows).with_columns(
        partition=(pl.col("subject").hash(seed=1) % 4).cast(pl.Int64), offset=pl.int_range(pl.len())
    )
    world.lake.overwrite_partition("events", numbered, "true")

    result = make(world)

    assert result.success
    assert shown(result, curated_key(FLIGHTS))["days_changed"] == 0
    assert content_digest(world.lake, FLIGHTS.table.name) == bulk


def test_duplicates_late_and_too_late_events_are_counted_and_change_only_their_day(world: World) -> None:
    make(world)
    files = {file.parent.name: file for file in world.lake.file_paths(FLIGHTS.table.name)}
    found = arrivals(world.lake, THIRD)
    known, lost, slow = found[:5], found[5:7], found[7:10]
    gone = ", ".join(f"'{event}'" for event in [*lost["id"], *slow["id"]])
    world.lake.delete("events", f"id IN ({gone})")
    world.lake.append("events", streamed(known))  # bulk has them already
    world.lake.append("events", streamed(known, offset=8))
    world.lake.append("events", streamed(lost, too_late=True, tick_before=datetime(2013, 1, 8, tzinfo=UTC)))
    world.lake.append("events", streamed(slow, tick_before=datetime(2013, 1, 4, 12, tzinfo=UTC)))

    result = make(world)

    assert result.success
    assert checks(result)["flights", RECONCILED]
    told = shown(result, curated_key(FLIGHTS))
    assert (told["duplicates"], told["late"], told["too_late"]) == (10, 3, 2)
    [row] = world.lake.read(QUALITY.name, predicate=(pl.col(DAY) == THIRD) & (pl.col("type") == ARRIVED)).to_dicts()
    assert (row[EVENTS], row["on_time"], row["late"], row["too_late"], row["duplicates"]) == (
        found.height + 10, found.height - 5, 3, 2, 10
    )  # fmt: skip
    rows = world.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == THIRD).filter(pl.col("too_late_events") > 0)
    assert set(rows["subject"]) == set(lost["subject"])
    assert set(rows["outcome"]) == {"arrived"}, "what came too late for features is true all the same"
    after = {file.parent.name: file for file in world.lake.file_paths(FLIGHTS.table.name)}
    assert {day for day in after if after[day] != files[day]} == {f"{DAY}={THIRD}"}


def test_a_day_whose_events_are_gone_is_emptied(world: World) -> None:
    make(world)
    world.lake.delete("events", f"sched_dep >= '{THIRD}T00:00:00Z' AND sched_dep < '2013-01-04T00:00:00Z'")

    result = make(world, THIRD, THIRD)

    assert result.success
    assert world.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == THIRD).is_empty()
    assert world.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == "2013-01-04").height > 800


def test_days_that_got_events_since_are_named_and_are_no_fault(world: World) -> None:
    make(world)
    world.lake.append("events", streamed(arrivals(world.lake, THIRD).head(1)))

    result = make(world, "2013-01-05", "2013-01-05")

    [found] = [
        e for e in result.get_asset_check_evaluations() if e.check_name == RECONCILED and "flights" in e.asset_key.path
    ]
    assert (found.passed, found.metadata["to_be_made"].value) == (True, [THIRD])
    assert checks(make(world, THIRD, THIRD))["flights", RECONCILED]


def test_an_event_that_no_run_reads_fails_the_check_and_stops_the_report(world: World) -> None:
    """It happened further from its flight's day than the table says events do; unread, it would be missing for ever."""
    event = arrivals(world.lake, THIRD).head(1)
    odd = event.with_columns(
        pl.lit("odd").alias("id"), (pl.col("time") + timedelta(days=9)).cast(INSTANT).alias("time")
    )
    world.lake.append("events", streamed(odd))

    result = make(world)

    assert not result.success
    assert not checks(result)["flights", RECONCILED]
    [found] = [e for e in result.get_asset_check_evaluations() if e.check_name == RECONCILED and not e.passed]
    [wrong] = found.metadata["wrong"].value.records
    assert (wrong.data[DAY], wrong.data["in_lake"] - wrong.data["counted"]) == (THIRD, 1)
    assert result.asset_materializations_for_node(REPORT.to_python_identifier()) == []


def test_rows_that_somebody_changed_by_hand_are_found(world: World) -> None:
    make(world)
    table = FLIGHTS.table.name
    kept = world.lake.read(table, predicate=pl.col(DAY) == THIRD).tail(-1)
    world.lake.overwrite_partition(table, kept, f"{DAY} = '{THIRD}'")

    result = make(world, "2013-01-05", "2013-01-05")

    assert not checks(result)["flights", RECONCILED]
    assert checks(make(world))["flights", RECONCILED], "making the day again mends it"


def test_a_flight_of_two_days_is_found_by_its_key(world: World) -> None:
    event = arrivals(world.lake, THIRD).head(1)
    odd = event.with_columns(pl.lit("odd").alias("id"), (pl.col("sched_dep") + timedelta(days=1)).cast(INSTANT))
    world.lake.append("events", streamed(odd))

    result = make(world)

    found = checks(result)
    assert (found["flights", RECONCILED], found["flights", UNIQUE], found["weather", UNIQUE]) == (True, False, True)
    assert result.success, "one producer's fault does not keep everybody from the report"


def test_assets_show_where_columns_come_from_and_a_picture(world: World) -> None:
    result = make(world)

    told, report = shown(result, curated_key(FLIGHTS)), shown(result, REPORT)
    lineage = told["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key, d.column_name) for d in lineage["late"]] == [(LAKE_EVENTS, "arr_delay_min")]
    assert set(lineage) == set(FLIGHTS.columns)
    [source] = report["dagster/column_lineage"].deps_by_column["p90_arr_delay_min"]
    assert (source.asset_key, source.column_name) == (curated_key(FLIGHTS), "arr_delay_min")
    assert told["events by day"].startswith("![events by day](data:image/png;base64,")
    assert report["delays"].startswith("![delays](data:image/png;base64,")


DIMENSION_KEYS = [*(dimension_key(each) for each in DIMENSIONS), features_key(AIRCRAFT)]
STEPS = [dimension_key(each).to_python_identifier() for each in DIMENSIONS]


def load(world: World, at: str, **changed: Any) -> dg.ExecuteInProcessResult:
    dimensions = tuple(replace(each, load=changed.get(each.name, each.load)) for each in DIMENSIONS)
    return world.run(
        warehouse_assets(replace(DOMAIN, dimensions=dimensions)),
        select=DIMENSION_KEYS,
        checked=DIMENSION_KEYS,
        config={step: {"at": at} for step in STEPS},
    )


def test_dimensions_load_and_feed_the_static_views(world: World) -> None:
    first = load(world, "2013-01-01T00:00:00Z")
    versions = {name: world.lake.version(name) for name in world.lake.tables()}
    again = load(world, "2013-02-01T00:00:00Z")

    assert first.success
    assert checks(first) == {(each.name, VALIDITY): True for each in DIMENSIONS}
    assert (shown(first, dimension_key(PLANES))["entities"], shown(first, features_key(AIRCRAFT))["added"]) == (
        3322,
        3322,
    )
    assert (shown(again, dimension_key(PLANES))["changed"], shown(again, features_key(AIRCRAFT))["added"]) == (0, 0)
    assert {name: world.lake.version(name) for name in world.lake.tables()} == versions

    refitted = PLANES.load().with_columns(seats=pl.when(pl.col("tail") == "N14228").then(1).otherwise("seats"))
    changed = load(world, "2013-07-01T00:00:00Z", planes=lambda: refitted)
    assert (shown(changed, dimension_key(PLANES))["changed"], shown(changed, features_key(AIRCRAFT))["added"]) == (2, 1)
    assert shown(changed, dimension_key(PLANES))["dagster/row_count"] == 3323


def test_a_dimension_that_overlaps_feeds_nothing(world: World) -> None:
    load(world, "2013-01-01T00:00:00Z")
    table = PLANES.table.name
    twice = world.lake.read(table).head(1).with_columns(pl.col("valid_from") + timedelta(days=1))
    world.lake.append(table, twice.with_columns(seats=pl.lit(1, pl.Int64)))

    result = world.run(warehouse_assets(DOMAIN), select=[features_key(AIRCRAFT)], checked=[dimension_key(PLANES)])

    assert checks(result) == {("planes", VALIDITY): False}
