import random

import pytest

from headway.adapters.memory import SimulatedCrash
from headway.features.windows import Row
from headway.features.wire import decode_row
from headway.ticks import is_watermark, tick_us_of
from headway.topics import features_topic
from tests.streaming_world import DELAY, World, departed, instant

CHANGELOG = features_topic(DELAY.qualified)


def rows(world: World) -> list[Row]:
    return [decode_row(m.value or b"") for m in world.messages(CHANGELOG) if not is_watermark(m)]


def final(world: World) -> dict[tuple[str, int], dict[str, object]]:
    """Of equal instants the greatest revision counts."""
    newest: dict[tuple[str, int], Row] = {}
    for row in rows(world):
        seen = newest.get((row.key[0], row.event_time_us))
        if seen is None or row.revision > seen.revision:
            newest[row.key[0], row.event_time_us] = row
    return {place: dict(row.values) for place, row in newest.items()}


def test_an_event_becomes_a_row_of_its_entity() -> None:
    world = World()
    world.send(departed("a", at="10:02", delay_min=7))

    world.run()

    assert final(world) == {("EWR", instant("10:02")): {"count_1h": 1, "sum_dep_delay_min_1h": 7}}


def test_a_window_expires_at_a_tick_without_another_event() -> None:
    world = World()
    world.send(departed("a", at="10:02", delay_min=7))
    world.tick("11:05")

    world.run()

    assert final(world)["EWR", instant("11:05")] == {"count_1h": 0, "sum_dep_delay_min_1h": None}


def test_the_watermark_waits_for_all_source_partitions() -> None:
    world = World()
    world.tick("10:05")
    world.run()

    watermarks = [tick_us_of(m) for m in world.messages(CHANGELOG) if is_watermark(m)]

    assert watermarks == [instant("10:05")] * 4  # one per partition of the changelog, each after four ticks


def test_a_late_event_corrects_the_rows_after_it_with_a_higher_revision() -> None:
    world = World()
    world.send(departed("a", at="10:30", delay_min=5))
    world.tick("10:35")
    world.run()
    world.send(departed("late", at="10:10", delay_min=100))

    world.run()

    assert final(world)["EWR", instant("10:30")] == {"count_1h": 2, "sum_dep_delay_min_1h": 105}
    assert final(world)["EWR", instant("10:10")] == {"count_1h": 1, "sum_dep_delay_min_1h": 100}


@pytest.mark.parametrize("seed", range(5))
def test_restarts_and_crashes_at_random_points_change_no_value(seed: int) -> None:
    shuffle = random.Random(seed)
    undisturbed, disturbed = World(), World()
    for step in range(12):
        clock = f"{10 + step // 6}:{step % 6 * 10:02d}"
        for number in range(shuffle.randrange(4)):
            event = departed(
                f"{step}-{number}", at=clock, origin=shuffle.choice(["EWR", "JFK"]), delay_min=shuffle.randrange(60)
            )
            undisturbed.send(event)
            disturbed.send(event)
        undisturbed.tick(clock)
        disturbed.tick(clock)
        if shuffle.random() < 0.5:
            disturbed.broker.crash_before_commit = shuffle.random() < 0.5
            try:
                disturbed.run()
            except SimulatedCrash:
                disturbed.run()

    undisturbed.run()
    disturbed.broker.crash_before_commit = False
    disturbed.run()

    assert final(disturbed) == final(undisturbed)
