"""History in bulk and the changelogs made from it: repeatable, cut to the instant, and apart from the stream."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets.domain import domain_assets
from assets.lake_reads import changelog_values
from assets.names import LAKE_EVENTS, features_key
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.delta_gaps import why_incomplete
from headway.adapters.feast_services import register
from headway.backfill import backfill as backfill_view
from headway.batch_reads import months_of
from headway.clock import DAY_US, to_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.offline import changelog
from tests.assets_world import World

END = "2013-01-05T00:00:00Z"
MONTHS = ("2012-12-01", "2013-01-01")
VIEW = DOMAIN.view("origin_delay.v1")
TABLE = changelog_table(VIEW).name
STEP = features_key(VIEW).to_python_identifier()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


def load(world: World, **config: str) -> dg.ExecuteInProcessResult:
    return world.run(
        domain_assets(DOMAIN),
        select=[LAKE_EVENTS],
        checked=[LAKE_EVENTS],
        config={"lake__events": {"end": END, **config}},
        partitions=MONTHS,
    )


def backfill(world: World, **config: str) -> dg.ExecuteInProcessResult:
    return world.run(
        domain_assets(DOMAIN), select=[features_key(VIEW)], config={STEP: {"end": END, **config}}, partitions=MONTHS
    )


def sorted_rows(world: World, table: str) -> pl.DataFrame:
    rows = world.lake.read(table)
    return rows.sort(rows.columns)


def test_one_run_loads_all_its_months_up_to_the_instant(world: World) -> None:
    result = load(world)

    assert result.success
    assert [e.partition for e in result.get_asset_materialization_events()] == list(MONTHS)
    times = world.lake.read("events")["time"]
    assert times.min() < datetime(2013, 1, 1, tzinfo=UTC)  # type: ignore[operator]  # an instant
    assert times.max() < datetime(2013, 1, 5, tzinfo=UTC)  # type: ignore[operator]  # an instant


def test_each_month_tells_its_own_rows(world: World) -> None:
    events = load(world).get_asset_materialization_events()
    told = {e.partition: e.materialization.metadata["dagster/partition_row_count"].value for e in events}

    months = dict(world.lake.read("events").group_by("month").len().iter_rows())
    assert told == {f"{month}-01": rows for month, rows in months.items()}


def test_loading_twice_is_loading_once(world: World) -> None:
    load(world)
    once = sorted_rows(world, "events")
    load(world)

    assert sorted_rows(world, "events").equals(once)


def test_an_event_in_the_lake_twice_turns_the_check_red(world: World) -> None:
    load(world)
    copied = world.lake.read("events").head(1).with_columns(topic=pl.lit("events.enriched"))
    world.lake.append("events", copied)

    result = load(world, start="2013-01-04T00:00:00Z")

    [check] = [c for c in result.get_asset_check_evaluations() if c.check_name == "one_row_per_event"]
    assert not check.passed
    assert check.metadata["repeated"].value == 1


def test_a_planted_change_is_labelled_and_off_by_default(world: World) -> None:
    load(world)
    assert world.lake.read("events")["planted"].null_count() == world.lake.read("events").height

    load(world, planted_from="2013-01-03T05:00:00Z")

    planted = world.lake.read("events").filter(pl.col("planted").is_not_null())
    assert planted["sched_dep"].min() >= datetime(2013, 1, 3, 5, tzinfo=UTC)  # type: ignore[operator]  # an instant


def test_an_interval_outside_the_run_s_months_is_refused(world: World) -> None:
    assert not load(world, start="2013-02-01T00:00:00Z").success


def test_the_backfill_is_what_the_events_imply_by_month(world: World) -> None:
    load(world)
    assert backfill(world).success

    window = Window(from_us=to_us(datetime(2012, 12, 1, tzinfo=UTC)), until_us=to_us(datetime(2013, 1, 5, tzinfo=UTC)))
    wanted = changelog(world.lake.read("events"), VIEW, start_us=window.from_us - 1, until_us=window.until_us - 1)
    names = [*VIEW.keys, "event_timestamp", *VIEW.columns]
    assert wanted.height > 0
    assert sorted_rows(world, TABLE).select(names).sort(names).equals(wanted.select(names).sort(names))


def test_a_month_backfilled_alone_looks_back_on_the_month_before(world: World) -> None:
    load(world)
    backfill(world)
    whole = sorted_rows(world, TABLE)

    backfill(world, start="2013-01-03T00:00:00Z")

    assert sorted_rows(world, TABLE).equals(whole)


def test_backfilling_never_touches_streamed_rows(world: World) -> None:
    load(world)
    backfill(world)
    streamed = world.lake.read(TABLE).tail(3).with_columns(source=pl.lit("stream"), revision=pl.lit(7, dtype=pl.Int64))
    world.lake.append(TABLE, streamed)

    backfill(world)

    kept = world.lake.read(TABLE, predicate=pl.col("source") == "stream")
    assert kept.sort(kept.columns).equals(streamed.sort(streamed.columns))


def test_months_of_a_window_leave_out_its_end() -> None:
    window = Window(from_us=to_us(datetime(2013, 1, 31, tzinfo=UTC)), until_us=to_us(datetime(2013, 3, 1, tzinfo=UTC)))

    assert months_of(window) == ("2013-01", "2013-02")


def test_a_view_that_was_never_backfilled_is_not_read_as_nulls(tmp_path: Path) -> None:
    """The loader makes every table when it starts: a model would learn from columns in which nothing is known."""
    lake = Lake(tmp_path)
    lake.create(changelog_table(VIEW))
    window = Window(from_us=0, until_us=1)

    with pytest.raises(
        ContractViolation, match=r"features\.origin_delay\.v1: has no rows .* materialise .*origin_delay_v1"
    ):
        changelog_values(lake, [VIEW], window)


def test_a_version_that_is_streamed_and_was_not_backfilled_is_not_read_before_that(tmp_path: Path) -> None:
    """Its table has rows, of today: over the months before, it would be nulls."""
    lake = Lake(tmp_path)
    days = [to_us(datetime(2013, 1, day, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    assert DOMAIN.load_history is not None
    events = DOMAIN.load_history().events_between(days[0], days[3])
    lake.bulk_load(DOMAIN, events, start_us=days[0], end_us=days[3])
    backfill_view(lake, VIEW, Window(from_us=days[2], until_us=days[3]), mode="as_served")

    with pytest.raises(ContractViolation, match=r"no rows .* on 2 days that have events \(2013-01-01, 2013-01-02\)"):
        changelog_values(lake, [VIEW], Window(from_us=days[1], until_us=days[3]))
    held = register(DOMAIN, [], lake).held[VIEW.qualified]
    assert held.endswith("(2013-01-01, 2013-01-02): backfill it first (asset features/origin_delay_v1)")

    backfill_view(lake, VIEW, Window(from_us=days[0], until_us=days[2]), mode="as_served")
    changelog_values(lake, [VIEW], Window(from_us=days[1], until_us=days[3]))
    assert VIEW.qualified not in register(DOMAIN, [], lake).held


def test_a_view_without_events_on_a_day_lacks_nothing_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    start_us = to_us(datetime(2013, 1, 1, tzinfo=UTC))
    assert DOMAIN.load_history is not None
    events = DOMAIN.load_history().events_between(start_us, start_us + 2 * DAY_US)
    lake.bulk_load(
        DOMAIN,
        events.filter((pl.col("type") != VIEW.source) | (pl.col("time") < pl.lit(datetime(2013, 1, 2, tzinfo=UTC)))),
        start_us=start_us,
        end_us=start_us + 2 * DAY_US,
    )
    backfill_view(lake, VIEW, Window(from_us=start_us, until_us=start_us + DAY_US), mode="as_served")

    assert why_incomplete(lake, VIEW) is None
