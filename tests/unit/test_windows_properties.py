"""The aggregator against ten lines of brute force, over streams as disorderly as Kafka may deliver them."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.features import bruteforce, state
from headway.features.bruteforce import Seen
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.tiles import Key, tile_of
from headway.features.windows import Row
from tests.strategies import (
    FIELDS,
    HOP,
    LATENESS_MIN,
    Arrival,
    Restart,
    Stream,
    Tick,
    counted,
    last_tick,
    lockstep_streams,
    minutes,
    mutant_hunt,
    quick,
    run,
    streams,
    view_of,
    views,
)

ValuesAt = Callable[[FeatureView, Iterable[Seen], int], dict[str, Value]]


def final_rows(rows: Iterable[Row]) -> dict[tuple[Key, int], dict[str, Value]]:
    final: dict[tuple[Key, int], Row] = {}
    for row in rows:
        known = final.get((row.key, row.event_time_us))
        assert known is None or row.revision >= known.revision
        final[row.key, row.event_time_us] = row
    return {at: row.values for at, row in final.items()}


def expiries(view: FeatureView, events: Iterable[Seen]) -> set[int]:
    ends = {tile_of(e.time_us, view.hop_us) * view.hop_us for e in events}
    return {end + window for end in ends for window in view.windows_us}


def check_final_rows(
    stream: Stream, *, values_at: ValuesAt = bruteforce.values_at, expiries: Callable[..., set[int]] = expiries
) -> None:
    outcome = run(stream)
    watermark_us = last_tick(stream)

    want = {}
    for key, events in counted(stream.view, outcome.lake).items():
        due = {at for at in expiries(stream.view, events) if watermark_us is not None and at <= watermark_us}
        for at_us in {e.time_us for e in events} | due:
            want[key, at_us] = values_at(stream.view, events, at_us)
    assert final_rows(outcome.rows) == want


@quick
@given(streams())
def test_final_rows_are_the_brute_force_at_every_event_and_every_expiry(stream: Stream) -> None:
    check_final_rows(stream)


def starts_between_hops(view: FeatureView, events: Iterable[Seen], at_us: int) -> dict[str, Value]:
    """Mutant: the window starts exactly W before T, not at a hop."""
    events = list(events)
    return {
        a.name: bruteforce.values_at(
            view,
            [e for e in events if a.window is None or e.time_us > at_us - a.window_us],
            at_us,
        )[a.name]
        for a in view.aggregates
    }


def ties_by_arrival(view: FeatureView, events: Iterable[Seen], at_us: int) -> dict[str, Value]:
    """Mutant: of events at one instant, the one that arrived last is the newest."""
    renamed = [Seen(time_us=e.time_us, event_id=f"{n:04}", values=e.values) for n, e in enumerate(events)]
    return bruteforce.values_at(view, renamed, at_us)


def expiries_a_hop_late(view: FeatureView, events: Iterable[Seen]) -> set[int]:
    """Mutant: a window lets go of a tile one hop too late."""
    return {at + view.hop_us for at in expiries(view, events)}


@pytest.mark.parametrize(
    "mutant",
    [
        {"values_at": starts_between_hops},
        {"values_at": ties_by_arrival},
        {"expiries": expiries_a_hop_late},
    ],
    ids=["start-not-floored", "ties-by-arrival", "expiry-a-hop-late"],
)
def test_the_property_goes_red_for_a_mutant(mutant: dict[str, Callable[..., object]]) -> None:
    @mutant_hunt
    @given(streams())
    def prop(stream: Stream) -> None:
        check_final_rows(stream, **mutant)  # type: ignore[arg-type]  # one of two keywords

    with pytest.raises(AssertionError):
        prop()


EVERYTHING = tuple(
    Aggregate(function=function, field=field, window=window)
    for function, fields in FIELDS.items()
    for field in fields
    for window in ((None,) if function == "last_ever" else (minutes(HOP), minutes(6 * HOP)))
)


@quick
@given(st.data(), LATENESS_MIN)
def test_every_aggregate_there_is_holds_at_once(data: st.DataObject, lateness_min: int) -> None:
    view = view_of(*EVERYTHING, lateness_min=lateness_min)

    check_final_rows(data.draw(streams(view=view)))


@quick
@given(streams())
def test_a_task_keeps_the_tiles_that_an_event_within_lateness_can_reach_and_no_other(stream: Stream) -> None:
    """Memory is bounded by live tiles: what is kept is told by events and watermark alone, however long it ran."""
    outcome, view = run(stream), stream.view
    watermark_us = last_tick(stream)

    ends = {
        (key, tile_of(event.time_us, view.hop_us))
        for key, events in counted(view, outcome.lake).items()
        for event in events
    }
    live = {
        (key, k)
        for key, k in ends
        if watermark_us is None or k * view.hop_us + view.max_window_us >= watermark_us - view.lateness_us
    }
    kept = {state.parse_key(raw) for raw in outcome.state}
    assert {(each.key, each.tile) for each in kept if isinstance(each, state.TileKey)} == live


@quick
@given(streams())
def test_a_task_restored_from_its_state_continues_as_if_it_had_never_stopped(stream: Stream) -> None:
    without = replace(stream, steps=tuple(s for s in stream.steps if not isinstance(s, Restart)))
    often = replace(stream, steps=tuple(s for step in without.steps for s in (step, Restart())))

    steady, restarted = run(without), run(often)

    assert [replace_revision(r) for r in restarted.rows] == [replace_revision(r) for r in steady.rows]
    assert restarted.state == steady.state


def replace_revision(row: Row) -> tuple[object, ...]:
    return (row.key, row.event_time_us, row.known_at_us, row.values)


@quick
@given(streams())
def test_rows_of_a_tick_come_in_time_and_key_order_and_not_after_the_watermark(stream: Stream) -> None:
    rows = run(stream).rows

    for revision, step in enumerate(stream.steps, 1):
        caused = [(row.event_time_us, row.key) for row in rows if row.revision == revision]
        assert caused == sorted(caused)
        if isinstance(step, Tick):
            assert all(at_us <= step.tick_us for at_us, _ in caused)


@quick
@given(lockstep_streams())
def test_the_online_row_is_the_brute_force_at_the_watermark(stream: Stream) -> None:
    outcome = run(stream)

    for tick_us, final in outcome.online:
        lake = [j for j in outcome.lake if j.tick_before_us is None or j.tick_before_us < tick_us]
        for key, events in counted(stream.view, lake).items():
            if not any(e.time_us <= tick_us for e in events):
                continue
            newest = max(at_us for (k, at_us) in final if k == key and at_us <= tick_us)
            assert final[key, newest].values == bruteforce.values_at(stream.view, events, tick_us)


@quick
@given(st.data(), views(lateness_min=st.just(600)), st.integers(0, 1000))
def test_permuting_arrival_inside_lateness_changes_no_final_row(
    data: st.DataObject, view: FeatureView, seed: int
) -> None:
    stream = data.draw(streams(view=view))
    sent = [s for s in stream.steps if isinstance(s, Arrival)]
    first = list({s.event_id: s for s in sent}.values())  # which copy of a repeated event wins depends on order
    ticks = [s for s in stream.steps if isinstance(s, Tick)]
    shuffled = random.Random(seed).sample(first, len(first))
    cut = seed % (len(shuffled) + 1)

    one = run(replace(stream, steps=(*first, *ticks)))
    other = run(replace(stream, steps=(*shuffled[:cut], *ticks, *shuffled[cut:])))

    assert final_rows(other.rows) == final_rows(one.rows)


@settings(quick, max_examples=60)
@given(streams())
def test_state_is_forgotten_once_no_event_can_reach_it(stream: Stream) -> None:
    far_us = max((s.tick_us for s in stream.steps if isinstance(s, Tick)), default=0) or 1_400_000_000_000_000
    far_us += stream.view.lateness_us + stream.view.max_window_us + 100 * stream.view.hop_us
    ticks = tuple(Tick(partition=p, tick_us=far_us) for p in range(stream.partitions))

    state = run(replace(stream, steps=(*stream.steps, *ticks))).state

    assert {raw[:6] for raw in state} <= {b'["task', b'["ever'}
