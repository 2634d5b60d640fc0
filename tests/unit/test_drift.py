from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from headway.clock import DAY_US, HOUR_US, from_us, to_us
from headway.drift import (
    DriftLimits,
    DriftPolicy,
    History,
    Hold,
    Retrain,
    Window,
    WindowStatistics,
    decide_retrain,
    divergence,
    is_mature,
    learn_limits,
    weekly_windows,
    window_statistics,
)
from headway.errors import ContractViolation

POLICY = DriftPolicy(
    zone="America/New_York",
    min_rows=2000,
    min_slice_rows=100,
    limit_quantile=0.95,
    patience=2,
    cooldown=timedelta(days=14),
    budget=2,
    budget_period=timedelta(days=90),
    maturity=timedelta(days=1),
)
LIMITS = DriftLimits(divergence=0.04, excess_log_loss=0.09, windows=17)
YEAR = (to_us(datetime(2013, 1, 1, 5, tzinfo=UTC)), to_us(datetime(2014, 1, 1, 5, tzinfo=UTC)))
WEEKS = weekly_windows("America/New_York", from_us=YEAR[0], until_us=YEAR[1])
TRAINED = History(trained_until_us=YEAR[0])


def week(place: int, *, divergence: float | None = 0.02, excess: float = 0.0, rows: int = 6000) -> WindowStatistics:
    return WindowStatistics(
        from_us=WEEKS[place].from_us,
        until_us=WEEKS[place].until_us,
        rows=rows,
        rate=0.2,
        mean_prediction=0.2,
        calibration_gap=0.0,
        log_loss=0.4,
        excess_log_loss=excess,
        average_precision=0.5,
        divergence=divergence,
        worst_slice="B6",
        worst_slice_gap=-0.1,
    )


def decide(*weeks: WindowStatistics, history: History = TRAINED) -> Retrain | Hold:
    return decide_retrain(weeks, limits=LIMITS, policy=POLICY, history=history)


def test_weeks_run_from_monday_to_monday_at_local_midnight() -> None:
    first = from_us(WEEKS[0].from_us)

    assert first == datetime(2013, 1, 7, 5, tzinfo=UTC)
    assert len(WEEKS) == 51


def test_a_week_with_a_change_of_clocks_still_ends_at_midnight() -> None:
    hours = {(w.until_us - w.from_us) // HOUR_US for w in WEEKS}
    spring = next(w for w in WEEKS if w.from_us <= to_us(datetime(2013, 3, 10, 12, tzinfo=UTC)) < w.until_us)

    assert hours == {167, 168, 169}
    assert (spring.until_us - spring.from_us) // HOUR_US == 167


def test_only_whole_weeks_inside_the_interval_count() -> None:
    assert weekly_windows("America/New_York", from_us=WEEKS[3].from_us + 1, until_us=WEEKS[5].until_us - 1) == [
        WEEKS[4]
    ]


def test_a_week_is_mature_a_day_after_its_last_scheduled_arrival() -> None:
    assert not is_mature(last_due_us=0, watermark_us=DAY_US - 1, policy=POLICY)
    assert is_mature(last_due_us=0, watermark_us=DAY_US, policy=POLICY)


def rows_of(gaps: dict[str, float], *, rows: int = 3000, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and slices where each value's true rate is its prediction minus its gap."""
    generator = np.random.default_rng(seed)
    names = np.repeat(np.array(list(gaps), dtype=object), rows)
    predictions = generator.uniform(0.2, 0.6, len(names))
    labels = generator.uniform(size=len(names)) < predictions - np.repeat(list(gaps.values()), rows)
    return labels, predictions, names


def test_weather_that_moves_all_airlines_is_no_divergence() -> None:
    labels, predictions, slices = rows_of({"B6": -0.15, "DL": -0.15, "UA": -0.15})

    assert divergence(labels, predictions, slices, min_rows=100) == pytest.approx(0, abs=0.01)


def test_one_airline_that_changes_its_ways_is_divergence() -> None:
    labels, predictions, slices = rows_of({"B6": -0.15, "DL": 0.0, "UA": 0.0})

    found = divergence(labels, predictions, slices, min_rows=100)

    assert found == pytest.approx(0.15 * np.sqrt(2) / 3, abs=0.015)


def test_chance_alone_is_taken_off_the_divergence_of_small_slices() -> None:
    found = [divergence(*rows_of(dict.fromkeys("ABCDEFGH", 0.0), rows=100, seed=s), min_rows=100) for s in range(20)]

    assert np.mean([value for value in found if value is not None]) < 0.02


def test_one_value_has_nothing_to_diverge_from() -> None:
    assert divergence(*rows_of({"B6": -0.15}), min_rows=100) is None


def test_the_worst_slice_is_the_one_that_moves_most_rows() -> None:
    labels, predictions, slices = rows_of({"B6": -0.12, "DL": 0.0, "VX": 0.0})
    few = np.r_[0:6000, 6000:6150]

    found = window_statistics(
        WEEKS[0], labels=labels[few], predictions=predictions[few], slices=slices[few], policy=POLICY
    )

    assert found.worst_slice == "B6"
    assert found.rows == 6150
    assert found.calibration_gap == pytest.approx(-0.06, abs=0.02)


def test_limits_are_a_quantile_of_the_out_of_fold_weeks() -> None:
    found = learn_limits([week(n, divergence=n / 100, excess=n / 10) for n in range(21)], POLICY)

    assert found == DriftLimits(divergence=0.19, excess_log_loss=1.9, windows=21)


def test_limits_of_a_few_weeks_are_refused() -> None:
    with pytest.raises(ContractViolation, match="got 7 out-of-fold weeks"):
        learn_limits([week(n) for n in range(7)], POLICY)


def test_a_week_within_limits_holds() -> None:
    assert decide(week(0), week(1)) == Hold(
        "week of 2013-01-14: divergence 0.020, limit 0.040 (most: B6 -0.100); "
        "excess log loss +0.000, limit 0.090; within limits"
    )


def test_one_week_over_a_limit_is_a_warning() -> None:
    found = decide(week(0), week(1, divergence=0.07))

    assert isinstance(found, Hold)
    assert "2 weeks running are wanted" in found.reason


def test_two_weeks_running_over_the_same_limit_train() -> None:
    found = decide(week(0), week(1, divergence=0.05), week(2, divergence=0.07))

    assert isinstance(found, Retrain)
    assert "divergence for 2 weeks" in found.reason


def test_two_weeks_over_different_limits_do_not_train() -> None:
    assert isinstance(decide(week(1, divergence=0.05), week(2, excess=0.2)), Hold)


def test_weeks_with_a_gap_between_them_are_not_running() -> None:
    assert isinstance(decide(week(1, divergence=0.05), week(3, divergence=0.05)), Hold)


def test_weeks_inside_the_live_models_training_do_not_count() -> None:
    history = History(trained_until_us=WEEKS[2].from_us)

    assert isinstance(decide(week(1, divergence=0.05), week(2, divergence=0.07), history=history), Hold)
    assert decide(week(1), history=history) == Hold(
        "no mature week since the live model's training ended at 2013-01-21T05:00:00Z"
    )


def test_a_week_of_few_labels_says_nothing() -> None:
    assert decide(week(1, divergence=0.9), week(2, divergence=0.9, rows=1999)) == Hold(
        "week of 2013-01-21: 1999 labelled rows; wanted 2000 to say anything"
    )


DRIFTED = (week(4, divergence=0.05), week(5, divergence=0.07))


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (replace(TRAINED, broken_data="weather feed stalled since 2013-02-10"), "not believed: weather feed stalled"),
        (replace(TRAINED, trainings_us=(WEEKS[4].until_us,)), "last trained 7 days ago, cool-down is 14 days"),
        (replace(TRAINED, trainings_us=(WEEKS[0].until_us, WEEKS[1].until_us)), "budget spent"),
    ],
)
def test_drift_that_must_not_train_says_why(history: History, said: str) -> None:
    found = decide(*DRIFTED, history=history)

    assert isinstance(found, Hold)
    assert said in found.reason


def test_a_statistic_that_never_comes_down_spends_its_budget_and_stops() -> None:
    """Training that does not help must not go on for ever: cool-down first, then the budget, then a person."""
    trainings: list[int] = []
    weeks = []
    for place in range(12):
        weeks.append(week(place, divergence=0.07))
        history = History(trained_until_us=YEAR[0], trainings_us=tuple(trainings))
        if isinstance(decide(*weeks, history=history), Retrain):
            trainings.append(weeks[-1].until_us)

    assert [WEEKS.index(w) for w in WEEKS if w.until_us in trainings] == [1, 3]


def test_statistics_survive_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(week(3, divergence=None)), type=WindowStatistics) == week(
        3, divergence=None
    )


def test_a_window_shows_its_bounds() -> None:
    assert str(Window(from_us=0, until_us=HOUR_US)) == "[1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z)"


def test_a_policy_without_patience_is_refused() -> None:
    with pytest.raises(ContractViolation, match="patience"):
        replace(POLICY, patience=0)
