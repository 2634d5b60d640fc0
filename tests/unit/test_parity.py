"""Parity finds a planted fault at its exact offset, and nothing where nothing is wrong (SEMANTICS S8)."""

import ast
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given

from headway.clock import HOUR_US, MINUTE_US
from headway.errors import ContractViolation
from headway.features import cases, offence, parity
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.parity import ParityReport, ServedView, check_parity
from headway.features.tiles import Key, empty_values
from tests.strategies import (
    START_US,
    Arrival,
    Judged,
    Outcome,
    Step,
    Stream,
    Tick,
    keys_of,
    lake_frame,
    lockstep_streams,
    minutes,
    quick,
    run,
    view_of,
)

VIEW = view_of(
    Aggregate(function="count", window=minutes(15)),
    Aggregate(function="mean", field="delay", window=minutes(30)),
    Aggregate(function="count", window=minutes(60)),
    Aggregate(function="last_at", window=minutes(60)),
)
JFK: Key = ("JFK",)


def served_by(view: FeatureView) -> list[ServedView]:
    return [
        ServedView(
            view=view,
            keys={key: f"asked_{key}" for key in view.keys},
            features={name: f"v_{name}" for name in view.columns},
            watermark="watermark_us",
        )
    ]


def log_of(view: FeatureView, online: Sequence[tuple[int, dict[tuple[Key, int], dict[str, Value]]]]) -> pl.DataFrame:
    """Ask every entity at every watermark, as the replayer does, and log what was online."""
    rows = []
    for watermark_us, final in online:
        for key in keys_of(view):
            newest = max((at for (k, at) in final if k == key and at <= watermark_us), default=None)
            values = empty_values(view) if newest is None else final[key, newest]
            asked = {f"asked_{name}": part for name, part in zip(view.keys, key, strict=True)}
            logged = {f"v_{name}": value for name, value in values.items()}
            receipt = f"{watermark_us}-{key}"
            rows.append({"receipt": receipt, "as_of_us": watermark_us, "watermark_us": watermark_us, **asked, **logged})
    schema: dict[str, pl.DataType] = {"receipt": pl.String(), "as_of_us": pl.Int64(), "watermark_us": pl.Int64()}
    schema |= {f"asked_{key}": pl.String() for key in view.keys}
    schema |= {f"v_{name}": pl.Int64() if kind == "int64" else pl.Float64() for name, kind in view.columns.items()}
    return pl.DataFrame(rows, schema=schema)


def logged(outcome: Outcome, view: FeatureView = VIEW) -> pl.DataFrame:
    return log_of(view, [(at, {k: row.values for k, row in final.items()}) for at, final in outcome.online])


def departures(times: Iterable[int], *, key: Key = JFK) -> list[Arrival]:
    return [
        Arrival(
            partition=0,
            key=key,
            event_id=f"e{minute:03}",
            time_us=START_US + minute * MINUTE_US,
            values={"delay": minute % 7 * 11, "gust": None},
        )
        for minute in times
    ]


def replayed(events: Iterable[Arrival], *, late: dict[str, int] | None = None, until: int = 120) -> Stream:
    """Send events in order with a tick every hop; ``late`` events come that many minutes after their time."""
    steps: list[tuple[int, int, Step]] = [
        (e.time_us + (late or {}).get(e.event_id, 0) * MINUTE_US, 0, e) for e in events
    ]
    steps += [
        (START_US + m * MINUTE_US, 1, Tick(partition=0, tick_us=START_US + m * MINUTE_US)) for m in range(0, until, 5)
    ]
    ordered = sorted(steps, key=lambda step: step[:2])
    return Stream(view=VIEW, partitions=1, steps=tuple(step for _, _, step in ordered))


SENT = departures([2, 5, 9, 14, 21, 21 + 5, 33, 38, 47, 52, 61, 75])


def without(stream: Stream, event_id: str) -> Stream:
    return replace(stream, steps=tuple(s for s in stream.steps if getattr(s, "event_id", None) != event_id))


def offset_of(outcome: Outcome, event_id: str) -> int:
    return [j.arrival.event_id for j in outcome.lake].index(event_id)


def report_of(log: pl.DataFrame, outcome: Outcome) -> ParityReport:
    return check_parity(log, lake_frame(VIEW, outcome.lake), served_by(VIEW))


@quick
@given(lockstep_streams())
def test_an_honest_store_has_no_mismatch_whatever_came_late(stream: Stream) -> None:
    outcome = run(stream)

    report = check_parity(logged(outcome, stream.view), lake_frame(stream.view, outcome.lake), served_by(stream.view))

    assert report.held
    assert report.mismatches == ()
    assert report.checked == len(outcome.online) * len(keys_of(stream.view)) * len(stream.view.columns)


@pytest.mark.parametrize("dropped", ["e005", "e026", "e061"])
def test_an_event_the_feature_job_dropped_is_named_by_its_offset(dropped: str) -> None:
    stream = replayed(SENT)
    honest, broken = run(stream), run(without(stream, dropped))

    report = report_of(logged(broken), honest)

    assert not report.held
    assert {m.first.cause for m in report.mismatches} == {"not-counted"}
    assert {m.first.position.offset for m in report.mismatches if m.first.position} == {offset_of(honest, dropped)}
    assert {m.key for m in report.mismatches} == {JFK}
    assert report.mismatches[0].feature in VIEW.columns


@pytest.mark.parametrize("dropped", ["e005", "e026", "e061"])
def test_an_event_the_lake_lost_is_named_by_the_missing_offset(dropped: str) -> None:
    honest = run(replayed(SENT))
    lake = lake_frame(VIEW, honest.lake).filter(pl.col("offset") != offset_of(honest, dropped))

    report = check_parity(logged(honest), lake, served_by(VIEW))

    assert report.mismatches[0].first.cause == "not-in-lake"
    assert report.mismatches[0].first.position is not None
    assert report.mismatches[0].first.position.offset == offset_of(honest, dropped)


@pytest.mark.parametrize(("since", "hours"), [(0, 4), (0, -4), (6, 4), (6, -4), (9, -1)])
def test_a_zone_error_is_named_from_the_first_event_it_touches(since: int, hours: int) -> None:
    stream, touched = replayed(SENT, until=400), {e.event_id for e in SENT[since:]}
    moved = tuple(
        replace(s, time_us=s.time_us + hours * HOUR_US) if isinstance(s, Arrival) and s.event_id in touched else s
        for s in stream.steps
    )
    honest = run(stream)
    broken = run(replace(stream, view=replace(VIEW, lateness=minutes(600)), steps=moved))

    first = report_of(logged(broken), honest).mismatches[0].first

    assert first.position is not None
    assert first.position.offset == offset_of(honest, SENT[since].event_id)


def test_values_of_a_view_in_another_zone_say_by_how_many_hours() -> None:
    view = replace(VIEW, lateness=minutes(600))
    stream = replayed(SENT, until=400)
    behind = [replace(s, time_us=s.time_us + HOUR_US) if isinstance(s, Arrival) else s for s in stream.steps]
    log = logged(run(replace(stream, view=view, steps=tuple(behind))))

    report = report_of(log.filter(pl.col("as_of_us") == START_US + 100 * MINUTE_US), run(stream))

    assert {m.first.cause for m in report.mismatches} == {"shifted"}
    assert "every event +1 h away" in report.mismatches[0].first.says


def test_a_late_event_is_a_correction_at_its_offset_and_no_mismatch() -> None:
    outcome = run(replayed(SENT, late={"e026": 20}))

    report = report_of(logged(outcome), outcome)

    assert report.held
    assert report.corrected == len(report.corrected_later) > 0
    assert {p.offset for c in report.corrected_later for p in c.late} == {offset_of(outcome, "e026")}
    assert {c.as_of_us for c in report.corrected_later} == {START_US + m * MINUTE_US for m in (30, 35, 40, 45)}


def test_history_loaded_over_a_stale_answer_is_a_correction_and_no_mismatch() -> None:
    """The answer was given under its watermark; bulk rows beyond it were not there yet (ADR 0006)."""
    sent = [e for e in SENT if e.time_us <= START_US + 60 * MINUTE_US]
    outcome = run(replayed(sent, until=65))
    stale = logged(outcome).filter(pl.col("watermark_us") == START_US + 60 * MINUTE_US)
    stale = stale.with_columns(as_of_us=pl.col("as_of_us") + 20 * MINUTE_US)
    late = lake_frame(VIEW, [Judged(arrival=e, tick_before_us=None, too_late=False) for e in departures([65, 72])])
    nowhere = [
        pl.lit(None).cast(late.schema[name]).alias(name) for name in ("topic", "partition", "offset", "too_late")
    ]

    report = check_parity(
        stale, pl.concat([lake_frame(VIEW, outcome.lake), late.with_columns(nowhere)]), served_by(VIEW)
    )

    assert report.held
    assert {p.event_id for c in report.corrected_later for p in c.late} == {"e065", "e072"}


def test_an_event_beyond_lateness_stays_a_correction_for_ever() -> None:
    outcome = run(replayed(SENT, late={"e026": 80}))

    report = report_of(logged(outcome), outcome)

    assert report.held
    assert [j.too_late for j in outcome.lake].count(True) == 1
    assert max(c.as_of_us for c in report.corrected_later) == START_US + 85 * MINUTE_US


def test_a_too_late_event_that_was_counted_is_named_by_its_offset() -> None:
    outcome = run(replayed(SENT, late={"e026": 10}))
    refused = [replace(j, too_late=True) if j.arrival.event_id == "e026" else j for j in outcome.lake]

    report = check_parity(logged(outcome), lake_frame(VIEW, refused), served_by(VIEW))

    assert {m.first.cause for m in report.mismatches} == {"counted-too-late"}
    assert {m.first.position.offset for m in report.mismatches if m.first.position} == {offset_of(outcome, "e026")}


def test_a_row_from_after_the_as_of_is_named_as_a_leak() -> None:
    outcome = run(replayed(SENT))
    ahead = [(at, outcome.online[n + 1][1]) for n, (at, _) in enumerate(outcome.online[:-1])]
    log = log_of(VIEW, [(at + 5 * MINUTE_US, {k: r.values for k, r in final.items()}) for at, final in ahead])
    log = log.with_columns(pl.col("as_of_us", "watermark_us") - 5 * MINUTE_US)

    first = report_of(log, outcome).mismatches[0].first

    assert first.cause == "later-row"
    assert first.position is not None
    assert first.position.event_id == "e002"


def test_a_writer_that_stopped_is_named_by_the_first_event_it_missed() -> None:
    outcome = run(replayed(SENT))
    frozen = [(at, outcome.online[min(n, 4)][1]) for n, (at, _) in enumerate(outcome.online)]
    log = log_of(VIEW, [(at, {k: r.values for k, r in final.items()}) for at, final in frozen])

    first = next(m for m in report_of(log, outcome).mismatches if m.as_of_us >= START_US + 40 * MINUTE_US).first

    assert first.cause in {"older-row", "not-counted"}
    assert first.position is not None
    assert first.position.event_id == "e021"


def test_a_store_that_did_not_answer_is_skipped_and_counted() -> None:
    outcome = run(replayed(SENT))
    log = logged(outcome)
    silent = log.with_columns(pl.when(pl.int_range(pl.len()) > 9).then("watermark_us").alias("watermark_us"))

    report = report_of(silent, outcome)

    assert report.skipped == 10
    assert report.checked == (log.height - 10) * len(VIEW.columns)


def test_lag_says_how_far_the_watermark_was_behind() -> None:
    outcome = run(replayed(SENT))
    log = logged(outcome).with_columns(as_of_us=pl.col("as_of_us") + 90_000_000)

    (lag,) = report_of(log, outcome).lag

    assert (lag.max_s, lag.median_s) == (90.0, 90.0)


def test_nothing_checked_is_not_parity() -> None:
    outcome = run(replayed(SENT))

    report = report_of(logged(outcome).clear(), outcome)

    assert report.mismatched == 0
    assert not report.held


def test_a_log_without_a_promised_column_is_refused_by_name() -> None:
    outcome = run(replayed(SENT))

    with pytest.raises(ContractViolation, match="v_count_15m"):
        report_of(logged(outcome).drop("v_count_15m"), outcome)


@pytest.mark.parametrize("module", [parity, cases, offence])
def test_parity_knows_no_changelog(module: Callable[..., object]) -> None:
    """An import of one would let the feature job judge itself."""
    names = [
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    ]

    assert not [name for name in names if "changelog" in name or "topics" in name]
