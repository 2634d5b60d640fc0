"""The past of a view in slices and parts is the past of the view, whoever makes it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.spark_backfill import PartWriter, commit_parts
from headway.backfill import backfill, backfill_together, table_of
from headway.backfill_engine import backfill_engine
from headway.backfill_events import event_columns, plan_slices
from headway.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant_us
from headway.drift import Window
from headway.features import order
from headway.features.changelog import changelog_table
from headway.features.definitions import Aggregate, FeatureView
from headway.features.offline import Mode, changelog
from headway.features.slices import Slice, reach_us, slices
from headway.features.streamed import streamed_rows
from headway.settings import Settings
from streaming.backfill_command import Compared
from tests.strategies import START_US, minutes, quick, view_of
from tests.unit_lake import january

WINDOW = Window(
    from_us=parse_instant_us("2013-01-02T07:03:00Z", field="from"),
    until_us=parse_instant_us("2013-01-09T00:00:00Z", field="until"),
)
FOREVER = FeatureView(
    name="forever",
    version=1,
    keys=("tail",),
    source="flight.departed.v1",
    fields={"dep_delay_min": "int64"},
    aggregates=(
        Aggregate(function="last_ever", field="dep_delay_min"),
        Aggregate(function="min", field="dep_delay_min", window=timedelta(hours=24)),
    ),
    owner="tests",
    description="Remembers for good.",
)
VIEWS = [*DOMAIN.views, FOREVER]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake of its own with January's events."""
    (tmp_path / "events").symlink_to(january().path("events"), target_is_directory=True)
    return Lake(tmp_path)


def wanted(view: FeatureView, *, mode: Mode = "as_served") -> pl.DataFrame:
    rows = changelog(
        january().read("events"), view, start_us=WINDOW.from_us - 1, until_us=WINDOW.until_us - 1, mode=mode
    )
    return rows.select(*view.keys, "event_timestamp", *view.columns)


def written(lake: Lake, view: FeatureView, *, mode: Mode = "as_served") -> pl.DataFrame:
    columns = [*view.keys, "event_timestamp", *view.columns]
    return lake.read(table_of(view, mode).name, columns=columns).sort(*view.keys, "event_timestamp")


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_backfill_in_slices_and_parts_is_the_changelog(lake: Lake, view: FeatureView) -> None:
    rare = view.source not in ("flight.departed.v1", "flight.arrived.v1")
    done = backfill(lake, view, WINDOW, mode="as_served", limit=30 if rare else 700)

    assert done.slices > 1 or view == FOREVER
    assert written(lake, view).equals(wanted(view))
    assert done.rows == wanted(view).height > 0


@pytest.mark.parametrize("limit", [2_000, 10_000], ids=["in parts", "in one part"])
def test_views_are_made_from_events_that_are_read_once(lake: Lake, limit: int) -> None:
    """One reaches back an hour and one for good, and both are what they are alone."""
    done = backfill_together(lake, VIEWS, WINDOW, mode="as_served", limit=limit, at_once=2)

    assert [each.view for each in done] == [view.qualified for view in VIEWS]
    for view, each in zip(VIEWS, done, strict=True):
        assert written(lake, view).equals(wanted(view))
        assert each.rows == wanted(view).height > 0


def test_the_engine_in_process_gives_all_views_in_their_order(lake: Lake, tmp_path: Path) -> None:
    with backfill_engine("process", Settings(state=tmp_path)) as run:
        done = list(run(VIEWS, WINDOW, lake=lake, mode="as_served"))

    assert [each.view for each in done] == [view.qualified for view in VIEWS]
    for view in VIEWS:
        assert written(lake, view).equals(wanted(view))


def test_a_repeat_changes_nothing_and_streamed_rows_stay(lake: Lake) -> None:
    view = DOMAIN.view("dest_delay.v1")
    table = changelog_table(view).name
    backfill(lake, view, WINDOW, mode="as_served", limit=700)
    streamed = lake.read(table).tail(3).with_columns(source=pl.lit("stream"), revision=pl.lit(7, dtype=pl.Int64))
    lake.append(table, streamed)
    once = lake.read(table)

    backfill(lake, view, WINDOW, mode="as_served", limit=700)

    assert lake.read(table).sort(once.columns).equals(once.sort(once.columns))


def test_a_backfill_takes_away_rows_that_events_imply_no_more(lake: Lake) -> None:
    """Parts without events leave no file; the rows that were there before have to go all the same."""
    view = DOMAIN.view("origin_delay.v1")
    table = changelog_table(view).name
    backfill(lake, view, WINDOW, mode="as_served")
    empty = Window(from_us=WINDOW.until_us + 30 * DAY_US, until_us=WINDOW.until_us + 40 * DAY_US)
    stray = (
        lake.read(table)
        .head(1)
        .with_columns(event_timestamp=pl.lit(empty.from_us).cast(pl.Datetime("us", "UTC")), month=pl.lit("2013-02"))
    )
    lake.append(table, stray)

    done = backfill(lake, view, empty, mode="as_served")

    assert done.rows == 0
    assert lake.read(table).height == wanted(view).height


def test_truth_counts_what_came_too_late_in_a_table_of_its_own(tmp_path: Path) -> None:
    view, lake = DOMAIN.view("origin_delay.v1"), Lake(tmp_path)
    events = january().read("events")
    late = events.filter(pl.col("type") == view.source).sort("time", "id")["id"][2_000]
    marked = events.with_columns(too_late=pl.when(pl.col("id") == late).then(pl.lit(value=True)))
    lake.bulk_load(DOMAIN, events.head(0), start_us=WINDOW.from_us, end_us=WINDOW.until_us)
    lake.append("events", marked)
    for mode in ("as_served", "truth"):
        backfill(lake, view, WINDOW, mode=mode)

    served, truth = written(lake, view), written(lake, view, mode="truth")
    assert truth.equals(wanted(view, mode="truth"))
    assert not served.equals(truth)
    assert lake.read("truth.origin_delay.v1")["known_at"].null_count() == truth.height
    assert lake.read("features.origin_delay.v1")["known_at"].null_count() == 0


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_streams_aggregator_makes_the_same_rows(view: FeatureView) -> None:
    events = january().read("events")

    rows = streamed_rows(events, view, WINDOW, mode="as_served")

    compared = Compared.of(view, {"process": wanted(view), "stream": rows})
    assert compared.equal, compared.first_difference
    assert compared.rows > 0


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_parts_made_by_workers_are_the_changelog_once_they_are_committed(
    lake: Lake, tmp_path: Path, view: FeatureView
) -> None:
    """What Spark's workers and its driver do, with the shuffle done here; one part is made twice, one has no events."""
    events = january().read("events", columns=event_columns([view]))
    planned = [replace(piece, parts=3) for piece in plan_slices(january().scan("events"), [view], WINDOW, limit=3_000)]
    windows = [piece.window for piece in planned for _ in range(3)]
    writer = PartWriter(view=view, mode="as_served", windows=windows, folder=str(tmp_path))
    at_us, entity = pl.col("time").dt.timestamp("us"), pl.concat_str(list(view.keys)).hash()
    for number, piece in enumerate(planned):
        since = pl.lit(value=True) if piece.since_us is None else at_us > piece.since_us
        reached = events.filter(pl.col("type") == view.source, since & (at_us < piece.window.until_us))
        for part in range(3):
            mine = reached.filter(entity % 3 == part).with_columns(part=pl.lit(3 * number + part, dtype=pl.Int32))
            batches = mine.select("part", *event_columns([view])).to_arrow().to_batches(max_chunksize=1_000)
            assert list(writer(batches)) == list(writer(batches))
            assert bool(list(tmp_path.glob(f"*/part-{3 * number + part:05}.parquet"))) == (mine.height > 0)
    table = changelog_table(view)
    lake.create(table)

    assert commit_parts(lake, table.name, planned, tmp_path) == wanted(view).height
    assert written(lake, view).equals(wanted(view))


def test_a_comparison_names_the_first_row_that_differs() -> None:
    view = DOMAIN.view("origin_delay.v1")
    rows = wanted(view)
    wrong = rows.with_columns(count_1h=pl.col("count_1h") + (pl.int_range(pl.len()) == 5).cast(pl.Int64))

    compared = Compared.of(view, {"process": rows, "spark": wrong})
    lacking = Compared.of(view, {"process": rows, "spark": rows.slice(1)})

    assert not compared.equal
    assert not lacking.equal
    assert f"'count_1h': {rows['count_1h'][5]}" in str(compared.first_difference)
    assert "1 rows lack, 0 too many" in str(lacking.first_difference)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_history_whose_places_do_not_fit_in_one_word_gives_the_same_rows(
    view: FeatureView, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = wanted(view)
    monkeypatch.setattr(order, "_LARGEST", 0)
    monkeypatch.setattr(order, "_DENSE", 0)

    assert wanted(view).equals(want)


days = st.integers(0, 120).map(lambda day: START_US // DAY_US * DAY_US + day * DAY_US)


@quick
@given(
    st.dictionaries(days, st.integers(1, 5_000)),
    st.integers(-50, 50 * 24 * 60),
    st.integers(1, 100 * 24 * 60),
    st.sampled_from([5, 60, 24 * 60]),
    st.sampled_from([100, 3_000, 100_000]),
)
def test_slices_cover_the_window_and_hold_no_more_than_the_limit(
    by_day: dict[int, int], start: int, length: int, widest: int, limit: int
) -> None:
    view = view_of(Aggregate(function="count", window=minutes(widest)))
    window = Window(from_us=START_US + start * MINUTE_US, until_us=START_US + (start + length) * MINUTE_US)

    found = list(slices(view, window, by_day, limit=limit))

    assert [window.from_us, *(piece.window.until_us for piece in found)] == [
        *(piece.window.from_us for piece in found),
        window.until_us,
    ]
    for piece in found:
        assert piece.since_us == piece.window.from_us - (reach_us(view) or 0)
        assert piece.events <= piece.parts * limit
        touched = [day for day in by_day if piece.since_us < day + DAY_US and day < piece.window.until_us]
        assert piece.events >= sum(by_day[day] for day in touched) - sum(
            by_day[day] for day in touched if day + DAY_US <= piece.since_us
        )


def test_a_month_too_large_is_cut_by_days_and_a_day_too_large_by_entities() -> None:
    view = view_of(Aggregate(function="count", window=timedelta(hours=1)))
    first = START_US // DAY_US * DAY_US
    by_day = {first: 10, first + DAY_US: 10, first + 2 * DAY_US: 350, first + 40 * DAY_US: 10}

    found = list(slices(view, Window(from_us=first, until_us=first + 60 * DAY_US), by_day, limit=100))

    # The third looks back on an hour of the large day, and is counted as if on all of it.
    assert [piece.parts for piece in found] == [1, 4, 4]
    assert found[1].window == Window(from_us=first + 2 * DAY_US, until_us=first + 3 * DAY_US)
    assert found[1].since_us == first + 2 * DAY_US - HOUR_US - 5 * MINUTE_US


def test_what_remembers_for_good_is_cut_by_entities_alone() -> None:
    window = Window(from_us=START_US, until_us=START_US + 90 * DAY_US)
    by_day = dict.fromkeys(range(START_US - 10 * DAY_US, window.until_us, DAY_US), 100)

    assert list(slices(FOREVER, window, by_day, limit=2_000)) == [
        Slice(window=window, since_us=None, events=10_000, parts=5)
    ]
