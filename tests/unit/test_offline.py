"""The vectorised engine against brute force and against what the aggregator had online."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import MINUTE_US
from headway.errors import ContractViolation
from headway.features import bruteforce, offline
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.tiles import Key, empty_values, is_present
from headway.features.windows import ViewTask
from tests.strategies import (
    START_US,
    Arrival,
    Judged,
    Restart,
    Stream,
    Tick,
    counted,
    keys_of,
    lake_frame,
    last_tick,
    lockstep_streams,
    minutes,
    quick,
    run,
    streams,
    view_of,
)

FOREVER_US = START_US + 10**6 * MINUTE_US
asked_minutes = st.lists(st.integers(-40, 300), max_size=12)


def queries_of(view: FeatureView, asked: list[tuple[Key, int, int]]) -> pl.DataFrame:
    rows = [(*key, as_of_us, served_us) for key, as_of_us, served_us in asked]
    schema = dict.fromkeys(view.keys, pl.String()) | {"as_of_us": pl.Int64(), "served_watermark_us": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def values_of(view: FeatureView, frame: pl.DataFrame) -> list[dict[str, Value]]:
    return frame.select(list(view.columns)).rows(named=True)


@quick
@given(streams(), asked_minutes)
def test_values_at_is_the_brute_force_in_the_order_of_the_queries(stream: Stream, asked: list[int]) -> None:
    view, lake = stream.view, [Judged(arrival=j.arrival, tick_before_us=None, too_late=False) for j in run(stream).lake]
    events = counted(view, lake)
    wanted = [
        (key, START_US + m * MINUTE_US, FOREVER_US) for m in asked for key in [*keys_of(view), ("?",) * len(view.keys)]
    ]

    got = offline.values_at(lake_frame(view, lake), view, queries_of(view, wanted), mode="truth")

    assert got.select(view.keys).rows() == [key for key, _, _ in wanted]
    assert got["as_of_us"].to_list() == [at_us for _, at_us, _ in wanted]
    assert values_of(view, got) == [bruteforce.values_at(view, events.get(key, []), at) for key, at, _ in wanted]
    assert got["present"].to_list() == [is_present(view, values) for values in values_of(view, got)]
    assert got["row_time_us"].to_list() == [
        max(bruteforce.row_instants(view, events.get(key, []), until_us=at), default=None) for key, at, _ in wanted
    ]


@quick
@given(streams())
def test_the_changelog_of_history_is_the_final_rows_of_the_stream(stream: Stream) -> None:
    outcome, watermark_us = run(stream), last_tick(stream) or 0

    got = offline.changelog(lake_frame(stream.view, outcome.lake), stream.view, start_us=0, until_us=watermark_us)

    final = {(r.key, r.event_time_us): r.values for r in outcome.rows if r.event_time_us <= watermark_us}
    keys, instants = got.select(stream.view.keys).rows(), got["event_timestamp"].dt.timestamp("us")
    rows = list(zip(keys, instants, strict=True))
    assert rows == sorted(final)
    assert values_of(stream.view, got) == [final[at] for at in rows]


@quick
@given(streams(), st.integers(-20, 60), st.integers(0, 60))
def test_a_changelog_in_two_pieces_is_the_changelog(stream: Stream, cut: int, length: int) -> None:
    events, view = lake_frame(stream.view, run(stream).lake), stream.view
    cut_us, end_us = START_US + cut * MINUTE_US, START_US + (cut + length) * MINUTE_US

    whole = offline.changelog(events, view, start_us=0, until_us=end_us)
    pieces = [
        offline.changelog(events, view, start_us=0, until_us=cut_us),
        offline.changelog(events, view, start_us=cut_us, until_us=end_us),
    ]

    assert pl.concat(pieces).sort(*view.keys, "event_timestamp").equals(whole)


@quick
@given(lockstep_streams(), st.integers(0, 40))
def test_as_served_is_what_was_online_under_that_watermark_stale_or_not(stream: Stream, stale: int) -> None:
    outcome, view = run(stream), stream.view
    wanted, want = [], []
    for watermark_us, final in outcome.online:
        for key in keys_of(view):
            as_of_us = watermark_us + stale * MINUTE_US
            newest = max((at for (k, at) in final if k == key and at <= as_of_us), default=None)
            wanted.append((key, as_of_us, watermark_us))
            want.append(empty_values(view) if newest is None else final[key, newest].values)

    got = offline.values_at(lake_frame(view, outcome.lake), view, queries_of(view, wanted), mode="as_served")

    assert values_of(view, got) == want


@quick
@given(lockstep_streams(), asked_minutes)
def test_truth_counts_what_came_too_late(stream: Stream, asked: list[int]) -> None:
    view, lake = stream.view, run(stream).lake
    events = counted(view, [Judged(arrival=j.arrival, tick_before_us=None, too_late=False) for j in lake])
    wanted = [(key, START_US + m * MINUTE_US, 0) for m in asked for key in keys_of(view)]

    got = offline.values_at(lake_frame(view, lake), view, queries_of(view, wanted), mode="truth")

    assert values_of(view, got) == [bruteforce.values_at(view, events.get(key, []), at) for key, at, _ in wanted]


@quick
@given(lockstep_streams())
def test_the_last_rows_are_what_is_online(stream: Stream) -> None:
    outcome, view = run(stream), stream.view
    watermark_us, final = outcome.online[-1]

    got = offline.last_rows(lake_frame(view, outcome.lake), view, until_us=watermark_us)

    newest = {key: at for (key, at) in sorted(final) if at <= watermark_us}
    instants = got["event_timestamp"].dt.timestamp("us").to_list()
    assert list(zip(got.select(view.keys).rows(), instants, strict=True)) == sorted(newest.items())
    assert values_of(view, got) == [final[at].values for at in sorted(newest.items())]


@quick
@given(lockstep_streams(), st.data())
def test_a_bootstrapped_task_continues_as_if_it_had_seen_everything(stream: Stream, data: st.DataObject) -> None:
    """The past is sent again after the cut, as a consumer that starts at offset 0 would: it is ignored (S11)."""
    ticks = sorted({step.tick_us for step in stream.steps if isinstance(step, Tick)})
    until_us = data.draw(st.sampled_from(ticks))
    cut = max(n for n, step in enumerate(stream.steps, 1) if isinstance(step, Tick) and step.tick_us == until_us)
    past = tuple(s for s in stream.steps[:cut] if isinstance(s, Tick) or s.time_us <= until_us)  # type: ignore[union-attr]
    rest = stream.steps[cut:]
    seen = run(Stream(view=stream.view, partitions=stream.partitions, steps=past))
    steady = run(Stream(view=stream.view, partitions=stream.partitions, steps=past + rest))

    history = offline.bootstrap_history(lake_frame(stream.view, seen.lake), stream.view, until_us=until_us)
    task = ViewTask.bootstrap(stream.view, range(stream.partitions), history, until_us=until_us)
    again = run(Stream(view=stream.view, partitions=stream.partitions, steps=(Restart(), *past, *rest)), task=task)

    late = [r for r in again.rows if r.revision <= len(past) + 1]
    assert late == []
    assert [(r.key, r.event_time_us, r.known_at_us, r.values) for r in again.rows] == [
        (r.key, r.event_time_us, r.known_at_us, r.values) for r in steady.rows if r.revision > len(past)
    ]
    assert {k: v for k, v in again.state.items() if k != b'["task"]'} == {
        k: v for k, v in steady.state.items() if k != b'["task"]'
    }


def test_a_bootstrap_knows_the_last_value_from_before_a_late_event() -> None:
    """The newest value of all hid the one before it; a late event between them read null (found by the property)."""
    view = view_of(Aggregate(function="last_ever", field="delay"), lateness_min=60)
    sent = [
        Arrival(
            partition=0,
            key=("JFK",),
            event_id=name,
            time_us=START_US + m * MINUTE_US,
            values={"delay": d, "gust": None},
        )
        for name, m, d in [("old", 0, 1), ("new", 190, 2)]
    ]
    lake = lake_frame(view, [Judged(arrival=a, tick_before_us=None, too_late=False) for a in sent])
    until_us = START_US + 200 * MINUTE_US
    history = offline.bootstrap_history(lake, view, until_us=until_us)
    task = ViewTask.bootstrap(view, [0], history, until_us=until_us)

    late_us = START_US + 180 * MINUTE_US
    rows = task.on_event(("JFK",), "late", late_us, {"delay": None}, tick_before_us=until_us, revision=1)

    assert [row.values["last_ever_delay"] for row in rows] == [1, 2]


def test_a_frame_that_is_not_the_lakes_is_refused_by_name() -> None:
    view = view_of(Aggregate(function="count", window=minutes(5)))

    with pytest.raises(ContractViolation, match="no column \\['tick_before', 'too_late'\\]"):
        offline.last_rows(lake_frame(view, []).drop("tick_before", "too_late"), view, until_us=0)


def test_an_id_that_the_lake_has_twice_counts_once_and_the_first_copy_wins() -> None:
    """Beyond 48 h of event time the Enricher lets a repeat pass (S12); the query for it panicked inside polars."""
    view = view_of(Aggregate(function="sum", field="delay", window=minutes(5)))
    sent = [
        Judged(
            arrival=Arrival(partition=0, key=("EWR",), event_id=f"e{n}", time_us=START_US, values={"delay": n}),
            tick_before_us=None,
            too_late=False,
        )
        for n in (1, 2)
    ]
    lake = lake_frame(view, sent).with_columns(pl.col("id").str.replace("e2", "e1"))

    answer = offline.values_at(lake, view, queries_of(view, [(("EWR",), START_US, FOREVER_US)]), mode="truth")

    assert values_of(view, answer) == [{"sum_delay_5m": 1}]


def test_sums_are_exact_beyond_the_integers_of_floats() -> None:
    view = view_of(Aggregate(function="sum", field="delay", window=minutes(5)))
    odd = 2**53 + 1
    sent = [
        Arrival(
            partition=0, key=("JFK",), event_id=f"e{n}", time_us=START_US + n, values={"delay": value, "gust": None}
        )
        for n, value in enumerate([odd, 2, -odd])
    ]
    lake = [Judged(arrival=a, tick_before_us=None, too_late=False) for a in sent]

    got = offline.changelog(lake_frame(view, lake), view, start_us=0, until_us=START_US + MINUTE_US)

    assert got["sum_delay_5m"].to_list() == [odd, 2 + odd, 2]
