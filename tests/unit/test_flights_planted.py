import polars as pl

from domains.flights.contracts import ARRIVED
from domains.flights.planted import LABEL, PaddingRemoved
from domains.flights.source import events_between, iter_events
from headway.clock import HOUR_US, MINUTE_US, parse_instant_us

NOON_US = parse_instant_us("2013-07-01T16:00:00Z", field="test")
START_US, END_US = NOON_US - 6 * HOUR_US, NOON_US + 12 * HOUR_US
CHANGE = PaddingRemoved(from_us=NOON_US, carriers=frozenset({"B6", "EV"}))


def test_events_and_frame_are_changed_alike() -> None:
    """The interval is wider than the change by its own shift, so that no event crosses its borders unseen."""
    shift_us = CHANGE.added_min * MINUTE_US
    one_by_one = [CHANGE.event(e) for e in iter_events(START_US - shift_us, END_US)]
    inside = sorted((e for e in one_by_one if START_US <= e.time_us < END_US), key=lambda e: (e.time_us, e.id))

    assert inside == list(iter_events(START_US, END_US, transform=CHANGE))


def test_only_arrivals_of_the_named_airlines_scheduled_from_the_instant_on_change() -> None:
    before = {e.id: e for e in iter_events(START_US, END_US)}
    after = {e.id: e for e in iter_events(START_US, END_US, transform=CHANGE)}
    changed = {i for i in before.keys() & after.keys() if before[i] != after[i]}

    assert changed == {
        i
        for i in before.keys() & after.keys()
        if before[i].type == ARRIVED
        and before[i].data["carrier"] in {"B6", "EV"}
        and before[i].data["sched_dep"] >= "2013-07-01T16:00:00Z"
    }
    assert len(changed) > 100
    for i in changed:
        assert after[i].time_us - before[i].time_us == 20 * MINUTE_US
        assert after[i].data["arr_delay_min"] - before[i].data["arr_delay_min"] == 20


def test_every_changed_event_says_so_and_no_other_does() -> None:
    before = events_between(START_US, END_US).select("id", pl.col("arr_delay_min").alias("was"))
    after = events_between(START_US, END_US, transform=CHANGE).join(before, on="id", how="inner")

    assert set(after.filter(pl.col("planted") == LABEL)["id"]) == set(
        after.filter(pl.col("arr_delay_min") != pl.col("was"))["id"]
    )


def test_a_changed_event_that_leaves_the_interval_is_not_in_it() -> None:
    events = list(iter_events(START_US, END_US, transform=CHANGE))

    assert all(START_US <= e.time_us < END_US for e in events)
    assert [(e.time_us, e.id) for e in events] == sorted((e.time_us, e.id) for e in events)
