"""Single claims about the aggregator; the properties are in test_windows_properties."""

from collections.abc import Mapping

import pytest

from headway.clock import MINUTE_US
from headway.errors import ContractViolation
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.tiles import empty_values, is_present
from headway.features.windows import Row, ViewTask, is_too_late
from tests.strategies import START_US, minutes, view_of

COUNT = Aggregate(function="count", window=minutes(10))
VIEW = view_of(COUNT, Aggregate(function="last", field="delay", window=minutes(10)), lateness_min=20)
JFK = ("JFK",)


def at(minute: float) -> int:
    return START_US + round(minute * MINUTE_US)


def event(
    task: ViewTask,
    event_id: str,
    minute: float,
    *,
    delay: Value = 1,
    tick_before: float | None = None,
    revision: int = 1,
    key: tuple[str, ...] = JFK,
) -> list[Row]:
    values: Mapping[str, Value] = {"delay": delay, "gust": None}
    before_us = None if tick_before is None else at(tick_before)
    return task.on_event(key, event_id, at(minute), values, tick_before_us=before_us, revision=revision)


def told(rows: list[Row]) -> list[tuple[float, Value]]:
    return [((row.event_time_us - START_US) / MINUTE_US, row.values["count_10m"]) for row in rows]


def test_an_event_on_a_boundary_belongs_to_the_tile_that_ends_there() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "on", 5)
    event(task, "after", 5.01)

    assert told(task.on_tick(0, at(30), revision=2)) == [(15, 1), (20, 0)]


def test_the_watermark_is_the_slowest_partition() -> None:
    task = ViewTask(VIEW, [0, 1])
    event(task, "a", 1)

    assert task.on_tick(0, at(60), revision=2) == []
    assert task.watermark_us is None
    assert told(task.on_tick(1, at(15), revision=3)) == [(15, 0)]
    assert task.watermark_us == at(15)


def test_a_tick_that_repeats_or_goes_back_says_nothing() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1)
    task.on_tick(0, at(15), revision=2)

    assert task.on_tick(0, at(15), revision=3) == []
    assert task.on_tick(0, at(5), revision=4) == []
    assert task.watermark_us == at(15)


def test_a_late_event_corrects_every_row_from_its_instant_on() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1)
    event(task, "b", 7)
    task.on_tick(0, at(20), revision=3)

    rows = event(task, "late", 3, tick_before=20, revision=4)

    assert told(rows) == [(3, 2), (7, 3), (15, 1), (20, 0)]
    assert {row.revision for row in rows} == {4}
    assert {row.known_at_us for row in rows} == {at(20)}


def test_an_event_at_the_limit_counts_and_one_before_it_is_refused_and_counted() -> None:
    task = ViewTask(VIEW, [0])
    task.on_tick(0, at(40), revision=1)

    assert told(event(task, "limit", 20, tick_before=40)) == [(20, 1), (30, 0)]
    assert event(task, "beyond", 19.99, tick_before=40) == []
    assert task.refused.too_late == 1


def test_late_is_judged_by_the_events_own_partition() -> None:
    assert not is_too_late(at(0), tick_before_us=None, lateness_us=0)
    assert not is_too_late(at(0), tick_before_us=at(5), lateness_us=5 * MINUTE_US)
    assert is_too_late(at(0), tick_before_us=at(5), lateness_us=4 * MINUTE_US)


def test_a_caller_that_forgets_the_tick_is_stopped_not_believed() -> None:
    task = ViewTask(VIEW, [0])
    task.on_tick(0, at(40), revision=1)

    with pytest.raises(ContractViolation, match="Stage 1 must pass"):
        event(task, "old", 1)


def test_a_repeated_id_is_ignored_even_with_other_values() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1, delay=5)

    assert event(task, "a", 1, delay=99) == []
    assert task.refused.duplicates == 1
    assert event(task, "b", 1, delay=None)[0].values == {"count_10m": 2, "last_delay_10m": 5}


def test_an_expiry_at_the_instant_of_an_event_is_one_row() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1)

    assert told(event(task, "b", 15)) == [(15, 1)]
    assert told(task.on_tick(0, at(15), revision=3)) == []


def test_refusals_survive_a_restart() -> None:
    task = ViewTask(VIEW, [0])
    task.on_tick(0, at(40), revision=1)
    event(task, "beyond", 1, tick_before=40)

    again = ViewTask.restore(VIEW, [0], task.dirty_state())

    assert again.refused == task.refused
    assert again.watermark_us == at(40)


def test_state_is_handed_out_once() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1)

    assert len(task.dirty_state()) == 1
    assert task.dirty_state() == []


def test_a_dropped_tile_leaves_a_tombstone() -> None:
    task = ViewTask(VIEW, [0])
    event(task, "a", 1)
    ((tile, _),) = task.dirty_state()

    task.on_tick(0, at(36), revision=2)

    assert (tile, None) in task.dirty_state()


@pytest.mark.parametrize(
    ("view", "partitions"),
    [(VIEW, [0, 1]), (view_of(COUNT, lateness_min=20), [0])],
    ids=["partitions", "meaning"],
)
def test_the_state_of_another_meaning_is_refused(view: FeatureView, partitions: list[int]) -> None:
    task = ViewTask(VIEW, [0])
    task.on_tick(0, at(5), revision=1)

    with pytest.raises(ContractViolation, match="Give the view a new version"):
        ViewTask.restore(view, partitions, task.dirty_state())


def test_a_tick_of_an_unknown_partition_is_refused() -> None:
    with pytest.raises(ContractViolation, match="source partition 7"):
        ViewTask(VIEW, [0]).on_tick(7, at(5), revision=1)


def test_after_a_bootstrap_the_past_is_ignored_and_a_late_stranger_of_the_open_past_counts() -> None:
    values: Mapping[str, Value] = {"delay": 1, "gust": None}
    task = ViewTask.bootstrap(VIEW, [0], [(JFK, "a", at(55), values), (JFK, "b", at(61), values)], until_us=at(60))

    assert event(task, "a", 55) == []
    assert event(task, "ancient", 1) == []
    assert (task.refused.duplicates, task.refused.before_bootstrap) == (1, 1)
    assert told(event(task, "stranger", 56)) == [(56, 2)]
    assert told(event(task, "b", 61)) == [(61, 3)]


def test_a_row_of_empty_windows_reads_like_no_row() -> None:
    assert empty_values(VIEW) == {"count_10m": 0, "last_delay_10m": None}
    assert not is_present(VIEW, empty_values(VIEW))
    assert is_present(VIEW, {"count_10m": 1, "last_delay_10m": None})
