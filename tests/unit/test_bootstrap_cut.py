"""What falls between the bootstrapped past and the stream is refused by name, before anything is written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from headway.adapters.memory import MemoryPublisher
from headway.adapters.memory_online import MemoryOnlineStore
from headway.errors import PermanentFailure, TransientFailure
from headway.features.changelog import streamed_changelog
from headway.features.definitions import Aggregate
from headway.lake import INSTANT
from headway.ports import TopicPartition
from headway.topics import EVENTS_ENRICHED, features_topic
from streaming.bootstrap import began_from_nothing, bootstrap_view
from streaming.cut import check_cut, check_loaded, check_whole_past, cut_us
from tests.streaming_world import DELAY, World, departed, instant

FIRST, SECOND = TopicPartition(EVENTS_ENRICHED, 0), TopicPartition(EVENTS_ENRICHED, 1)


def lake(*rows: dict[str, Any]) -> pl.DataFrame:
    schema: dict[str, pl.DataType] = {"type": pl.String(), "time": INSTANT, "origin": pl.String()}
    schema |= {"too_late": pl.Boolean(), "topic": pl.String(), "partition": pl.Int64(), "offset": pl.Int64()}
    event = {"type": DELAY.source, "origin": "EWR", "too_late": False, "topic": EVENTS_ENRICHED, "partition": 0}
    return pl.DataFrame([{**event, "offset": 0, **row} for row in rows], schema=schema)


def at(clock: str, **columns: Any) -> dict[str, Any]:
    return {"time": datetime.fromtimestamp(instant(clock) / 1e6, UTC), **columns}


def test_the_cut_is_at_the_newest_that_is_known() -> None:
    assert cut_us(instant("10:02"), [instant("10:00"), None]) == instant("10:02")
    assert cut_us(instant("10:02"), [instant("10:05"), instant("10:10"), None]) == instant("10:05")
    assert cut_us(None, [instant("10:05")]) == instant("10:05")
    with pytest.raises(PermanentFailure, match="--until: got none, and the lake has no events"):
        cut_us(None, [None])


def test_a_lake_that_lacks_what_stage_1_has_read_is_waited_for() -> None:
    check_loaded({FIRST: 5, SECOND: 3}, {FIRST: 5, SECOND: 9})

    with pytest.raises(TransientFailure, match="lacks up to 4 records"):
        check_loaded({FIRST: 5, SECOND: 3}, {FIRST: 4})


def test_an_event_behind_the_cut_that_stage_1_has_read_is_refused_with_the_cut_that_holds() -> None:
    """It is in no window: not in the past, which ends before it, and not in the stream, which has passed it."""
    behind = lake(at("10:03", offset=7), at("10:04", offset=8), at("10:06", offset=9))

    with pytest.raises(PermanentFailure, match=r"got 2013-07-01T10:00:00Z, .* read 2 events .* up to 2013-07-01T10:04"):
        check_cut(behind, {FIRST: 9}, until_us=instant("10:00"))
    check_cut(behind, {FIRST: 7, SECOND: 100}, until_us=instant("10:00"))


def test_events_that_were_loaded_in_bulk_behind_the_cut_are_no_loss() -> None:
    """The stream has not brought them, and may yet: history beside a stream that starts in its middle."""
    bulk = {"topic": None, "partition": None, "offset": None}

    check_cut(lake(at("10:03", **bulk)), {FIRST: 9}, until_us=instant("10:00"))


def test_a_version_that_was_streamed_without_its_past_is_refused_for_good() -> None:
    events = lake(at("09:30"), at("09:40"), at("10:02"))

    with pytest.raises(PermanentFailure, match=r"delay\.v1 was streamed from .*10:02.* 2 events .* delay version 2"):
        check_whole_past(DELAY, events, first_row_us=instant("10:02"))


@pytest.mark.parametrize(
    "event",
    [
        at("08:55"),
        at("09:30", type="flight.arrived.v1"),
        at("09:30", origin=None),
        at("09:30", too_late=True),
        at("10:02"),
    ],
)
def test_what_its_windows_could_not_hold_is_no_past_of_a_version(event: dict[str, Any]) -> None:
    check_whole_past(DELAY, lake(event), first_row_us=instant("10:02"))


def test_what_has_no_window_has_all_of_the_past() -> None:
    ever = replace(DELAY, aggregates=(Aggregate(function="last_ever", field="dep_delay_min"),))

    with pytest.raises(PermanentFailure, match="1 events of its windows"):
        check_whole_past(ever, lake(at("00:10")), first_row_us=instant("10:02"))


def test_a_job_that_was_bootstrapped_began_from_something() -> None:
    world, store = World(), MemoryOnlineStore()
    restore = world.reader.read_compacted
    assert not began_from_nothing(DELAY, restore)

    bootstrap_view(
        DELAY,
        lake().with_columns(
            id=pl.lit(None, pl.String), dep_delay_min=pl.lit(None, pl.Int64), tick_before=pl.col("time")
        ),
        until_us=instant("10:00"),
        restore=restore,
        publisher=MemoryPublisher(world.broker),
        online=store,
        marks=store,
    )
    world.send(departed("a", at="10:02"))
    world.run()
    assert not began_from_nothing(DELAY, restore)


def test_a_job_that_nobody_bootstrapped_began_from_nothing_and_its_first_rows_lack_the_past() -> None:
    """Why such a version is refused: a backfill computes other values, and the streamed revision wins."""
    world = World()
    world.send(departed("b", at="10:02"))
    world.tick("10:05")
    world.run()

    rows = streamed_changelog(DELAY, list(world.reader.read(features_topic(DELAY.qualified))))
    assert began_from_nothing(DELAY, world.reader.read_compacted)
    assert rows["count_1h"].to_list() == [1]
    assert rows["revision"].min() > 0  # type: ignore[operator] # a number, as the column is
    first_us = int(rows["event_timestamp"].dt.timestamp("us")[0])
    with pytest.raises(PermanentFailure, match="was streamed"):
        check_whole_past(DELAY, lake(at("09:30"), at("10:02")), first_row_us=first_us)


def test_the_past_of_a_window_begins_where_its_first_row_looks_back_to() -> None:
    """10:02 looks back to 09:00, which is 10:02 - 1 h on the hop: 09:01 counts."""
    reach = timedelta(hours=1)
    assert DELAY.aggregates[0].window == reach

    with pytest.raises(PermanentFailure, match="1 events"):
        check_whole_past(DELAY, lake(at("09:01")), first_row_us=instant("10:02"))
