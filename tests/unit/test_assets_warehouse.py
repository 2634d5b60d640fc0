"""The warehouse as Dagster runs it: repeatable to the byte, every event accounted for, faults named and not passed on."""

import shutil
import warnings
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
from assets.resources import LakeResource
from assets.shown import columns_of
from assets.warehouse import COMPLETE, VALIDITY, warehouse_assets
from domains.flights.contracts import ARRIVED, DEPARTED
from domains.flights.curated import DELAYS, FLIGHTS, WEATHER_HOURS
from domains.flights.dimensions import DIMENSIONS, PLANES
from domains.flights.domain import DOMAIN
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.delta_exact import content_digest
from headway.lake import INSTANT
from headway.warehouse import DAY, EVENTS, QUALITY, CuratedTable
from orchestration.curation import curation_sensor
from products.flight_delay.labels import examples
from tests.assets_world import World
from tests.unit_lake import january

DAYS = ("2012-12-31", "2013-01-10")  # of all flights the lake knows
THIRD = "2013-01-03"
AROUND = ("2013-01-02", "2013-01-04")
CURATED, REPORT = [curated_key(FLIGHTS), curated_key(WEATHER_HOURS)], report_key(DELAYS)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the events of early January and everything made from them."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(january().path("events"), root / "events")
    with dg.DagsterInstance.ephemeral() as instance:
        assert make(World(root, instance)).success
    return root


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A lake of its own with the events alone, as tests here change them."""
    shutil.copytree(january().path("events"), tmp_path / "events")
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


@pytest.fixture
def made(made_once: Path, tmp_path: Path) -> Iterator[World]:
    """A lake of its own in which everything is made already; the instance knows of no run."""
    shutil.copytree(made_once, tmp_path / "lake")
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path / "lake", instance)


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
    assert dict(counts.rows()) == {
        day: value for day, metadata in by_day.items() if (value := metadata["dagster/partition_row_count"].value)
    }


def test_flights_are_what_labels_say_they_are(made: World) -> None:
    wanted = examples(made.lake.read("events")).select(
        "subject", "outcome", pl.col("label").alias("late"), "carrier", "sched_dep", "sched_arr"
    )
    found = made.lake.read(FLIGHTS.table.name).select(wanted.columns).sort("subject")
    # A flight of the edge may have a departure there and its schedule not: it is a flight all the same.
    found = found.join(wanted, on="subject", how="semi")
    assert found.equals(wanted.sort("subject"))
    assert found["outcome"].n_unique() == 4


def test_a_repeat_writes_nothing_and_other_runs_give_the_same_bytes(made: World) -> None:
    tables = [FLIGHTS.table.name, WEATHER_HOURS.table.name, QUALITY.name, DELAYS.table.name]
    before = {name: (made.lake.version(name), made.lake.file_paths(name)) for name in tables}
    digests = {name: content_digest(made.lake, name) for name in tables}

    again = make(made)

    assert shown(again, curated_key(FLIGHTS))["days_changed"] == 0
    assert {name: (made.lake.version(name), made.lake.file_paths(name)) for name in tables} == before
    for name in tables:
        shutil.rmtree(made.lake.path(name))
    make(made, "2013-01-04", DAYS[1])
    make(made, DAYS[0], "2013-01-03")
    assert {name: content_digest(made.lake, name) for name in tables} == digests


@pytest.mark.long
def test_bulk_and_stream_give_the_same_bytes(made: World) -> None:
    bulk = content_digest(made.lake, FLIGHTS.table.name)
    rows = made.lake.read("events").sample(fraction=1.0, shuffle=True, seed=3)
    numbered = streamed(rows).with_columns(
        partition=(pl.col("subject").hash(seed=1) % 4).cast(pl.Int64), offset=pl.int_range(pl.len())
    )
    made.lake.overwrite_partition("events", numbered, "true")

    result = make(made)

    assert result.success
    assert shown(result, curated_key(FLIGHTS))["days_changed"] == 0
    assert content_digest(made.lake, FLIGHTS.table.name) == bulk


def test_duplicates_late_and_too_late_events_are_counted_and_change_only_their_day(made: World) -> None:
    files = {file.parent.name: file for file in made.lake.file_paths(FLIGHTS.table.name)}
    found = arrivals(made.lake, THIRD)
    known, lost, slow = found[:5], found[5:7], found[7:10]
    gone = ", ".join(f"'{event}'" for event in [*lost["id"], *slow["id"]])
    made.lake.delete("events", f"id IN ({gone})")
    made.lake.append("events", streamed(known))  # bulk has them already
    made.lake.append("events", streamed(known, offset=8))
    made.lake.append("events", streamed(lost, too_late=True, tick_before=datetime(2013, 1, 8, tzinfo=UTC)))
    made.lake.append("events", streamed(slow, tick_before=datetime(2013, 1, 4, 12, tzinfo=UTC)))

    result = make(made)

    assert result.success
    assert checks(result)["flights", RECONCILED]
    told = shown(result, curated_key(FLIGHTS))
    assert (told["duplicates"], told["late"], told["too_late"]) == (10, 3, 2)
    [row] = made.lake.read(QUALITY.name, predicate=(pl.col(DAY) == THIRD) & (pl.col("type") == ARRIVED)).to_dicts()
    assert (row[EVENTS], row["on_time"], row["late"], row["too_late"], row["duplicates"]) == (
        found.height + 10, found.height - 5, 3, 2, 10
    )  # fmt: skip
    rows = made.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == THIRD).filter(pl.col("too_late_events") > 0)
    assert set(rows["subject"]) == set(lost["subject"])
    assert set(rows["outcome"]) == {"arrived"}, "what came too late for features is true all the same"
    after = {file.parent.name: file for file in made.lake.file_paths(FLIGHTS.table.name)}
    assert {day for day in after if after[day] != files[day]} == {f"{DAY}={THIRD}"}


@pytest.mark.long
def test_a_day_whose_events_are_gone_is_emptied(made: World) -> None:
    made.lake.delete("events", f"sched_dep >= '{THIRD}T00:00:00Z' AND sched_dep < '2013-01-04T00:00:00Z'")

    result = make(made, THIRD, THIRD)

    assert result.success
    assert made.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == THIRD).is_empty()
    assert made.lake.read(FLIGHTS.table.name, predicate=pl.col(DAY) == "2013-01-04").height > 800


@pytest.mark.long
def test_days_that_got_events_since_are_named_and_are_no_fault(made: World) -> None:
    made.lake.append("events", streamed(arrivals(made.lake, THIRD).head(1)))

    result = make(made, "2013-01-05", "2013-01-05")

    [found] = [
        e for e in result.get_asset_check_evaluations() if e.check_name == RECONCILED and "flights" in e.asset_key.path
    ]
    assert (found.passed, found.metadata["to_be_made"].value) == (True, [THIRD])
    assert checks(make(made, THIRD, THIRD))["flights", RECONCILED]


@pytest.mark.long
def test_an_event_that_no_run_reads_is_a_warning(world: World) -> None:
    """It happened further from its flight's day than the table says events do; unread, it would be missing for ever."""
    event = arrivals(world.lake, THIRD).head(1)
    odd = event.with_columns(
        pl.lit("odd").alias("id"), (pl.col("time") + timedelta(days=9)).cast(INSTANT).alias("time")
    )
    world.lake.append("events", streamed(odd))

    result = make(world, *AROUND)

    [found] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (found.check_name, found.severity) == (RECONCILED, dg.AssetCheckSeverity.WARN)
    assert (found.metadata["strays"].value, found.metadata["wrong"].value) == (1, "no rows")
    assert result.asset_materializations_for_node(REPORT.to_python_identifier()), "one odd event stops nobody's report"


def test_a_run_that_reads_less_than_there_is_fails_the_check_and_stops_the_report(world: World) -> None:
    """The planted bug: departures are forgotten. The check has the table as declared, and counts the lake itself."""
    blind = replace(FLIGHTS, event_types=tuple(t for t in FLIGHTS.event_types if t != DEPARTED))
    wrong = warehouse_assets(replace(DOMAIN, curated=(blind, WEATHER_HOURS)))
    right = warehouse_assets(DOMAIN)
    assets = [a for a in wrong if not isinstance(a, dg.AssetChecksDefinition)]
    judges = [a for a in right if isinstance(a, dg.AssetChecksDefinition)]

    result = world.run([*assets, *judges], select=[CURATED[0], REPORT], checked=[CURATED[0]], partitions=AROUND)

    assert not result.success
    [found] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (found.check_name, found.severity) == (RECONCILED, dg.AssetCheckSeverity.ERROR)
    wrong_days = found.metadata["wrong"]
    assert isinstance(wrong_days, dg.TableMetadataValue)
    first: dict[str, Any] = dict(wrong_days.records[0].data)
    departures = world.lake.read("events", predicate=pl.col("type") == DEPARTED)["sched_dep"].dt.strftime("%Y-%m-%d")
    assert first["in_lake"] - first["counted"] == (departures == first[DAY]).sum()
    assert result.asset_materializations_for_node(REPORT.to_python_identifier()) == []


@pytest.mark.long
def test_rows_that_somebody_changed_by_hand_are_found(made: World) -> None:
    table = FLIGHTS.table.name
    kept = made.lake.read(table, predicate=pl.col(DAY) == THIRD).tail(-1)
    made.lake.overwrite_partition(table, kept, f"{DAY} = '{THIRD}'")

    result = make(made, "2013-01-05", "2013-01-05")

    assert not checks(result)["flights", RECONCILED]
    assert checks(make(made, THIRD, THIRD))["flights", RECONCILED], "making the day again mends it"


@pytest.mark.long
def test_a_flight_of_two_days_is_found_by_its_key(world: World) -> None:
    event = arrivals(world.lake, THIRD).head(1)
    odd = event.with_columns(pl.lit("odd").alias("id"), (pl.col("sched_dep") + timedelta(days=1)).cast(INSTANT))
    world.lake.append("events", streamed(odd))

    result = make(world, *AROUND)

    found = checks(result)
    assert (found["flights", RECONCILED], found["flights", UNIQUE], found["weather", UNIQUE]) == (True, False, True)
    assert result.success, "one producer's fault does not keep everybody from the report"


@pytest.mark.long
def test_assets_show_where_columns_come_from_and_a_picture(world: World) -> None:
    result = make(world, THIRD, THIRD)

    told, report = shown(result, curated_key(FLIGHTS)), shown(result, REPORT)
    lineage = told["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key, d.column_name) for d in lineage["late"]] == [(LAKE_EVENTS, "arr_delay_min")]
    assert set(lineage) == set(FLIGHTS.columns)
    [source] = report["dagster/column_lineage"].deps_by_column["p90_arr_delay_min"]
    assert (source.asset_key, source.column_name) == (curated_key(FLIGHTS), "arr_delay_min")
    assert told["events by day"].startswith("![events by day](data:image/png;base64,")
    assert report["delays"].startswith("![delays](data:image/png;base64,")


@pytest.mark.parametrize("table", [FLIGHTS, WEATHER_HOURS], ids=lambda each: each.name)
def test_every_column_of_a_curated_table_says_what_it_means(table: CuratedTable) -> None:
    [schema] = columns_of(table.table, table.columns).values()

    assert [column.name for column in schema.columns if not column.description] == []


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


@pytest.mark.long
def test_a_dimension_that_overlaps_feeds_nothing(world: World) -> None:
    load(world, "2013-01-01T00:00:00Z")
    table = PLANES.table.name
    twice = world.lake.read(table).head(1).with_columns(pl.col("valid_from") + timedelta(days=1))
    world.lake.append(table, twice.with_columns(seats=pl.lit(1, pl.Int64)))

    result = world.run(warehouse_assets(DOMAIN), select=[features_key(AIRCRAFT)], checked=[dimension_key(PLANES)])

    assert checks(result) == {("planes", VALIDITY): False}


def look(world: World, cursor: str | None = None) -> Any:
    job = dg.define_asset_job("curate", selection=CURATED)
    context = dg.build_sensor_context(
        instance=world.instance, cursor=cursor, resources={"lake": LakeResource(root=str(world.root))}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return curation_sensor(DOMAIN, job).evaluate_tick(context)


def test_the_sensor_asks_for_days_that_are_over_once_and_for_those_that_got_events_since(world: World) -> None:
    first = look(world)

    [asked] = first.run_requests
    wanted = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    # The newest event is of 9 January; flights of the 3rd are over, of the 4th may still arrive, weather of the 8th is over.
    assert [asked.tags[name] for name in wanted] == ["2013-01-01", "2013-01-08"]
    assert look(world, first.cursor).skip_message.startswith("no events since version 1")

    make(world)
    assert look(world).skip_message == "every day that is over has been made from all its events"

    world.lake.append("events", streamed(arrivals(world.lake, THIRD).head(1)))
    [again] = look(world, first.cursor).run_requests
    assert [again.tags[name] for name in wanted] == [THIRD, THIRD]
    assert again.run_key != asked.run_key


def test_one_event_of_a_wrong_year_keeps_no_day_from_being_made(world: World) -> None:
    """Its day is no partition, so a run that were asked for it could not be launched, and nothing were made any more."""
    event = arrivals(world.lake, THIRD).head(1)
    then = pl.col("time", "sched_dep") - timedelta(days=700)
    odd = event.with_columns(then.cast(INSTANT), pl.lit("odd").alias("id"), pl.lit("2011-02").alias("month"))
    world.lake.append("events", streamed(odd))

    [asked] = look(world).run_requests

    wanted = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    assert [asked.tags[name] for name in wanted] == ["2013-01-01", "2013-01-08"]
