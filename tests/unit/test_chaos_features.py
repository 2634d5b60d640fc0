"""The chaos tests of the feature job, as far as they are pure: what they send, how they compare, and what they name."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import orjson
import polars as pl
import pytest

from domains.flights import domain as flights
from domains.flights.contracts import SCHEDULED
from domains.flights.source import iter_events
from headway.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant_us
from headway.events import Event
from headway.features.columns import Column
from headway.features.offline import AS_OF
from headway.ports import Message, Record
from headway.settings import Settings
from headway.ticks import header, is_tick, tick_before_us, tick_us_of
from headway.topics import EVENTS_ENRICHED, FEATURES_INPUT, PARTITIONS
from orchestration.chaos import planted_features
from orchestration.chaos.disorder import FAR_TOO_LATE, LATE, REPEATED, plan_disorder
from orchestration.chaos.feed import STAGE_1, STEP_US, Item, Stamp, Tick, in_steps
from orchestration.chaos.fresh import half_of
from orchestration.chaos.load import Send, plan_sends
from orchestration.chaos.memory_watch import MemoryWatch, resident_mib
from orchestration.chaos.patience import wait_while_moving
from orchestration.chaos.probes import Probe, ProbedJournal, Watch, choose_probes
from orchestration.chaos.recompute import (
    Compared,
    answers_of,
    compare,
    draw_questions,
    entities_of,
    joined_answers,
    read_changelog,
    read_events,
)
from orchestration.chaos.replay_plan import plan_changes
from orchestration.chaos.replay_verdict import Told, ViewTold, differing_runs, fingerprint
from streaming.handlers.aggregate import AggregateHandler
from streaming.handlers.fan_out import FanOutHandler
from streaming.jobs import AGGREGATE
from tests.streaming_world import DELAY, DOMAIN, World, departed, instant

FROM_US = parse_instant_us("2013-03-08T00:00:00Z", field="start")


def flight(number: int, *, at_us: int, tail: str = "N1") -> Event:
    data = {"origin": "EWR", "tail": tail, "dep_delay_min": number % 60}
    return Event(
        id=f"{number:05}", source="/t", type="flight.departed.v1", subject=f"s-{number}", time_us=at_us, data=data
    )


def test_ticks_follow_their_steps_and_reach_the_end() -> None:
    events = [flight(1, at_us=STEP_US), flight(2, at_us=STEP_US + 1), flight(3, at_us=4 * STEP_US + 1)]

    items = list(in_steps(events, start_us=0, end_us=6 * STEP_US))

    said = [item.at_us // STEP_US if isinstance(item, Tick) else item.id for item in items]
    assert said == ["00001", 1, "00002", 2, 3, 4, "00003", 5, 6]


def as_message(record: Record) -> Message:
    assert record.partition is not None
    return Message(EVENTS_ENRICHED, record.partition, 0, record.key, record.value, record.headers, 0)


def test_what_is_fed_is_stamped_as_the_enricher_would_have() -> None:
    stamp = Stamp()
    items: Sequence[Item] = [flight(1, at_us=1), Tick(STEP_US), flight(1, at_us=2), flight(2, at_us=3)]
    messages = [as_message(record) for record in stamp.records(items)]

    ticks = [message for message in messages if is_tick(message)]
    assert sorted(message.partition for message in ticks) == list(range(PARTITIONS))
    assert {tick_us_of(message) for message in ticks} == {STEP_US}
    events = [message for message in messages if not is_tick(message)]
    assert [tick_before_us(message) for message in events] == [None, STEP_US, STEP_US]
    # Offsets count the records of each partition, ticks too.
    assert [header(message, "raw_offset") for message in events[:2]] == [b"0", b"2"]
    assert sum(stamp.next_offset.values()) == len(messages)


def base_events(count: int) -> list[Event]:
    shuffle = random.Random(1)
    return [flight(n, at_us=n * MINUTE_US, tail=f"N{shuffle.randrange(40)}") for n in range(1, count + 1)]


def test_a_plan_of_disorder_holds_its_shares_and_never_ticks_ahead_of_its_base() -> None:
    base = base_events(6_000)
    plan = plan_disorder(base, random.Random(7))

    assert plan.late / len(base) == pytest.approx(LATE, abs=0.02)
    assert plan.repeated / len(base) == pytest.approx(REPEATED, abs=0.02)
    assert plan.far_too_late / len(base) == pytest.approx(FAR_TOO_LATE, abs=0.005)
    assert plan.tied > len(base) * 0.03
    sent = [item for item in plan.items if isinstance(item, Event)]
    assert len(sent) == plan.updates
    assert sum(count - 1 for count in Counter(event.id for event in sent).values()) == plan.repeated
    same_time = Counter((event.data["tail"], event.time_us) for event in {event.id: event for event in sent}.values())
    assert sum(count > 1 for count in same_time.values()) > plan.tied / 2
    ticks = [item.at_us for item in plan.items if isinstance(item, Tick)]
    assert ticks == sorted(set(ticks))
    assert ticks[-1] == plan.end_us
    assert all(tick % STEP_US == 0 for tick in ticks)
    behind = _behind_us(plan.items)
    assert sum(late_us > 26 * HOUR_US for late_us in behind) == pytest.approx(plan.far_too_late, rel=0.5)
    assert sum(late_us > 0 for late_us in behind) > LATE * len(base) / 2


def _behind_us(items: Sequence[Item]) -> list[int]:
    """How far each event is behind the last tick before it."""
    tick_us, behind = 0, []
    for item in items:
        if isinstance(item, Tick):
            tick_us = item.at_us
        else:
            behind.append(tick_us - item.time_us)
    return behind


def test_a_plan_is_repeated_by_its_seed() -> None:
    base = base_events(500)

    assert plan_disorder(base, random.Random(3)) == plan_disorder(base, random.Random(3))
    assert plan_disorder(base, random.Random(3)) != plan_disorder(base, random.Random(4))


def test_a_replay_kills_both_stages_and_scales_up_and_down() -> None:
    changes = plan_changes(10, start_us=0, end_us=1_000_000, generator=random.Random(5))

    assert [change.at_us for change in changes] == sorted(change.at_us for change in changes)
    assert Counter(change.kill for change in changes if change.kill) == {STAGE_1: 5, AGGREGATE: 5}
    assert [change.instances for change in changes if change.instances] == [3, 2]


def test_waiting_ends_when_it_is_there_and_when_nothing_moves() -> None:
    steps = iter([None, 1, 1, 2, 3])
    assert wait_while_moving(lambda: next(steps), wanted=3, unmoved_s=60, every_s=0) == 3
    assert wait_while_moving(lambda: 2, wanted=3, unmoved_s=0.01, every_s=0.001) == 2
    assert wait_while_moving(lambda: None, wanted=3, unmoved_s=0.01, every_s=0.001) is None


def test_memory_is_the_most_of_all_instances_by_step() -> None:
    pids = {f"job{suffix}": {"pid": os.getpid()} for suffix in ("", "-1")}
    watch = MemoryWatch(lambda: {**pids, "other": {"pid": os.getpid()}}, "job", step_us=10)
    watch.look(100)
    watch.look(115)

    assert set(watch.mib) == {0, 1}
    assert watch.mib[0] == pytest.approx(2 * resident_mib(os.getpid()), rel=0.2)
    assert resident_mib(2**22 + 1) == 0.0


@pytest.fixture
def played() -> World:
    """Two hours of departures through the real handlers, with a late one, a repeat, and all windows gone at the end."""
    world = World()
    for number in range(24):
        clock = f"{10 + number // 12}:{number % 12 * 5:02d}"
        world.send(departed(f"e{number}", at=clock, origin=["EWR", "JFK", "LGA"][number % 3], delay_min=number))
        world.tick(clock)
    world.send(departed("late", at="11:02", delay_min=50))
    world.send(departed("e3", at="10:15", delay_min=3))
    world.tick("13:05")
    world.run()
    return world


def questions(world: World) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    rows = read_changelog(world.reader, DELAY)
    asked = draw_questions(rows, DELAY, count=400, start_us=instant("09:50"), end_us=instant("13:05"), seed=3)
    return rows, asked, read_events(world.reader, DOMAIN)


def compared(rows: pl.DataFrame, asked: pl.DataFrame, events: pl.DataFrame) -> Compared:
    answers = joined_answers(rows, DELAY, asked)
    return compare(DELAY, answers, events, until_us=instant("13:05"), who="changelog")


def test_a_changelog_agrees_with_its_events_at_random_instants(played: World) -> None:
    rows, asked, events = questions(played)

    told = compared(rows, asked, events)

    assert (told.wrong, told.named) == (0, [])
    assert (told.answers, told.entities, told.values) == (400, 3, 800)
    assert asked[AS_OF].n_unique() > 100
    assert set(asked[AS_OF]) & set(rows["event_timestamp"].dt.timestamp("us"))


def test_a_wrong_row_is_named_with_the_first_event_and_its_offset(played: World) -> None:
    rows, asked, events = questions(played)
    at = pl.col("event_timestamp").dt.timestamp("us") == instant("11:02")
    spoiled = rows.with_columns(pl.when(at).then(pl.lit(1)).otherwise(pl.col("count_1h")).alias("count_1h"))

    told = compared(spoiled, asked, events)

    assert told.wrong > 0
    assert all("count_1h of EWR" in line and "changelog 1, events say" in line for line in told.named)
    assert any("events.enriched[" in line for line in told.named)


def test_a_lost_expiry_is_a_difference(played: World) -> None:
    rows, asked, events = questions(played)
    times = events["time"].unique()

    assert compared(rows.filter(pl.col("event_timestamp").is_in(times.implode())), asked, events).wrong > 0


def test_an_entity_without_a_row_says_the_same_as_empty_windows(played: World) -> None:
    _, _, events = questions(played)
    entities = entities_of(events, DELAY)
    end_us = instant("13:05")

    nothing = answers_of(DELAY, entities, [(None, None)] * entities.height, as_of_us=end_us)
    told = compare(DELAY, nothing, events, until_us=end_us, who="online")

    assert entities["origin"].to_list() == ["EWR", "JFK", "LGA"]
    assert told.wrong == 0
    wrong = answers_of(DELAY, entities, [(1, 2)] * entities.height, as_of_us=end_us)
    assert compare(DELAY, wrong, events, until_us=end_us, who="online").wrong == 6


def told(rows: pl.DataFrame, file: Path) -> Told:
    rows.write_parquet(file)
    none = Compared(answers=0, entities=0, values=0, wrong=0, named=[])
    view = ViewTold(
        rows=rows.height,
        file=file,
        fingerprint=fingerprint(rows),
        doubled=0,
        changelog=none,
        online=none,
    )
    return Told(views={DELAY.qualified: view})


def test_two_runs_are_the_same_rows_in_any_order_or_the_first_that_differs_is_named(
    played: World, tmp_path: Path
) -> None:
    rows = read_changelog(played.reader, DELAY)
    one = told(rows, tmp_path / "one")

    assert differing_runs(one, told(rows.reverse(), tmp_path / "two")) == []
    last = max(rows["revision"].to_list())
    moved = pl.col("revision") == last
    other = rows.with_columns(pl.when(moved).then(pl.lit(99)).otherwise(pl.col("count_1h")).alias("count_1h"))
    lines = differing_runs(one, told(other, tmp_path / "three"))
    assert len(lines) == 2
    assert f"@{last - 1}" in lines[0]
    assert "only before" in lines[0]
    assert "only from zero" in lines[1]


def test_events_read_back_know_the_tick_before_them(played: World) -> None:
    events = read_events(played.reader, DOMAIN)

    assert events.filter(pl.col("id") == "late")["tick_before"].dt.timestamp("us").to_list() == [instant("11:55")]


def sends(count: int) -> list[Send]:
    return list(islice(plan_sends(run="probed", keys=50, mix={}, generator=random.Random(2)), count))


def test_probes_are_events_of_aircraft_of_which_no_other_is_sent_for_a_while() -> None:
    sent = sends(3_000)
    probes = choose_probes(sent, alone_for=400, most=100)

    assert 50 < len(probes) <= 100
    bodies = [(send.id, orjson.loads(send.body)) for send in sent]
    for place, (name, body) in enumerate(bodies):
        if name in probes:
            after = [other for _, other in bodies[place + 1 : place + 401] if other["type"] == body["type"]]
            assert body["data"]["tail"] not in {other["data"]["tail"] for other in after}
            assert probes[name].tail == body["data"]["tail"]


def test_half_of_a_capacity_is_offered() -> None:
    assert half_of(1_000).events_per_s == pytest.approx(500)


def test_a_probe_is_watched_from_its_acceptance_and_only_then(tmp_path: Path) -> None:
    probe = Probe(view=DELAY, tail="N1", time_us=1)
    watch = Watch(Settings(state=tmp_path), {"a": probe, "b": probe})
    journal = ProbedJournal(tmp_path / "journal", watch)
    numbers = {
        name: journal.intend(id=name, key="k", seq=1, kind="valid", digest=1, sent_s=0, batch=False) for name in "abc"
    }
    journal.told(numbers["a"], "acked", status=202, answered_s=1)
    journal.told(numbers["b"], "unknown", status=503, answered_s=1)
    journal.told(numbers["c"], "acked", status=202, answered_s=1)
    journal.close()

    assert watch.missing == ["a"]


def disturbed(seed: int) -> tuple[World, int]:
    """Six hundred events of history with every disturbance, through both stages, in memory."""
    base = [event for event in iter_events(FROM_US, FROM_US + DAY_US) if event.type != SCHEDULED]
    sent = plan_disorder(base[:600], random.Random(seed))
    world = World(domain=flights.DOMAIN)
    for record in Stamp().records(sent.items):
        world.broker.append(record)
    views, restore = flights.DOMAIN.views, world.reader.read_compacted
    world.run_job(FanOutHandler(views), "fan-out", EVENTS_ENRICHED)
    world.run_job(AggregateHandler(views, restore), "aggregate", FEATURES_INPUT)
    return world, sent.end_us


def wrong_views(world: World, end_us: int) -> list[str]:
    events = read_events(world.reader, flights.DOMAIN)
    found = []
    for view in flights.DOMAIN.views:
        rows = read_changelog(world.reader, view)
        if rows.is_empty():
            continue
        asked = draw_questions(rows, view, count=500, start_us=FROM_US, end_us=end_us, seed=1)
        if compare(view, joined_answers(rows, view, asked), events, until_us=end_us, who="changelog").wrong:
            found.append(view.qualified)
    return found


def test_the_flights_in_disorder_are_what_their_events_say() -> None:
    assert wrong_views(*disturbed(5)) == []


def test_ties_broken_by_arrival_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Column, "absorb", Column.absorb)  # puts back what the bug patches
    planted_features.break_ties_by_arrival()

    assert wrong_views(*disturbed(5))
