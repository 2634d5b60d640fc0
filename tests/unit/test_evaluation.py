import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from headway.errors import ContractViolation
from headway.evaluation import (
    average_precision,
    calibration_error,
    log_losses,
    paired_difference,
    paired_metric_difference,
    quality,
    roc_auc,
)

scored_rows = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(scored_rows)
def test_ranking_figures_equal_scikit_learns_with_ties(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    predictions = np.array([step / 8 for _, step in rows])

    assert average_precision(labels, predictions) == pytest.approx(average_precision_score(labels, predictions))
    assert roc_auc(labels, predictions) == pytest.approx(roc_auc_score(labels, predictions))


@given(scored_rows, st.randoms())
def test_no_figure_depends_on_the_order_of_rows(rows: list[tuple[bool, int]], random: object) -> None:
    labels = np.array([label for label, _ in rows])
    predictions = np.array([step / 8 for _, step in rows])
    order = np.random.default_rng(1).permutation(len(rows))

    assert roc_auc(labels, predictions) == pytest.approx(roc_auc(labels[order], predictions[order]))
    assert average_precision(labels, predictions) == pytest.approx(average_precision(labels[order], predictions[order]))


def test_a_figure_that_does_not_exist_is_absent_not_zero() -> None:
    found = quality(np.array([True, True]), np.array([0.9, 0.4]))

    assert found.average_precision is None
    assert found.roc_auc is None
    assert "roc_auc" not in found.figures()


def test_a_calibrated_model_has_no_excess_log_loss() -> None:
    generator = np.random.default_rng(7)
    predictions = generator.uniform(0.05, 0.95, 200_000)
    labels = generator.uniform(size=200_000) < predictions

    found = quality(labels, predictions)

    assert abs(found.excess_log_loss) < 0.01
    assert found.calibration_error < 0.01


def test_a_certain_prediction_that_fails_costs_a_finite_loss() -> None:
    losses = log_losses(np.array([True, False]), np.array([0.0, 1.0]))

    assert np.all(np.isfinite(losses))
    assert losses.min() > 15


def test_calibration_error_is_the_distance_of_a_constant_from_the_rate() -> None:
    labels = np.tile([True, False, False, False], 500)

    assert calibration_error(labels, np.full(2000, 0.35)) == pytest.approx(0.10)


@pytest.mark.parametrize("bad", [1.2, -0.1, np.nan])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ContractViolation, match="wanted a probability"):
        quality(np.array([True, False]), np.array([0.5, bad]))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ContractViolation, match="labels and"):
        quality(np.array([], dtype=bool), np.array([]))


def test_rows_of_one_day_are_drawn_together() -> None:
    """Errors of a day hang together: drawing rows instead of days would give a tenth of this width."""
    days = np.repeat(np.arange(20), 500)
    by_day = np.random.default_rng(3).normal(size=20)[days]

    by_blocks = paired_difference(np.zeros(10_000), by_day, days, seed=1, draws=1000, level=0.95)
    by_rows = paired_difference(np.zeros(10_000), by_day, np.arange(10_000), seed=1, draws=1000, level=0.95)

    assert by_blocks.blocks == 20
    assert by_blocks.low < by_blocks.mean < by_blocks.high
    assert by_blocks.high - by_blocks.low > 8 * (by_rows.high - by_rows.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    days = np.repeat(np.arange(7), 10)
    losses = np.random.default_rng(5).normal(size=70)

    first, again = (paired_difference(losses * 0, losses, days, seed=9, draws=200, level=0.9) for _ in range(2))

    assert first == again


def test_a_model_that_ranks_better_on_every_day_has_an_interval_above_zero() -> None:
    generator = np.random.default_rng(11)
    labels = generator.uniform(size=2000) < 0.3
    better = np.clip(0.3 + 0.4 * (labels - 0.3) + generator.normal(0, 0.1, 2000), 0, 1)
    worse = generator.uniform(size=2000)

    found = paired_metric_difference(
        average_precision, labels, worse, better, np.repeat(np.arange(10), 200), seed=1, draws=50, level=0.95
    )

    assert found.low > 0.3
