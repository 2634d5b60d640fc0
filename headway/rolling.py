"""Models trained on the past and judged on the weeks after it, again and again: model choice and drift limits.

July is never seen here (SEMANTICS S25). What bites: a random split would put rows of one storm into both halves and
flatter every figure; folds here only ever look forward.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headway.clock import DAY_US
from headway.drift import Window, WindowStatistics, weekly_windows, window_statistics
from headway.errors import ContractViolation
from headway.evaluation import Floats, Ints, Quality, quality
from headway.product import ModelSpec, Product
from headway.training import Matrix


class Scorer(Protocol):
    """A loaded model: probabilities for vectors."""

    def score(self, matrix: Floats) -> Floats:
        """Return the scores of vectors of shape (n, f), shape (n,)."""
        ...


class Learner(Protocol):
    """Whatever makes a model's bytes from rows, and a scorer from a model's bytes."""

    def fit(self, rows: Matrix, spec: ModelSpec) -> bytes:
        """Return the model: the same rows and spec give the same bytes."""
        ...

    def load(self, model: bytes) -> Scorer:
        """Return a scorer of the model."""
        ...


@dataclass(frozen=True, kw_only=True)
class RollingResult:
    """What models that only knew the past said of the weeks after it.

    Attributes:
        weeks: statistics of every predicted week, oldest first.
        quality: over all predicted rows together.
    """

    weeks: tuple[WindowStatistics, ...]
    quality: Quality


def rolling_weeks(
    rows: Matrix,
    *,
    product: Product,
    spec: ModelSpec,
    learner: Learner,
    window: Window,
    first_fold_weeks: int,
    folds: int,
) -> RollingResult:
    """Return how the spec does on each week of the window when it has only seen earlier rows.

    Every fold trains on all rows before a week and predicts the weeks up to the next fold: the way a model lives. The
    weeks after the first ``first_fold_weeks`` are shared evenly by at most ``folds`` fits.

    Raises:
        ContractViolation: the window is too short for one fold.
    """
    weeks = weekly_windows(product.drift.zone, from_us=window.from_us, until_us=window.until_us)
    if len(weeks) <= first_fold_weeks:
        raise ContractViolation(f"rolling weeks: {window} has {len(weeks)} whole weeks, wanted over {first_fold_weeks}")
    step_weeks = -((first_fold_weeks - len(weeks)) // folds)  # rounded up
    found: list[WindowStatistics] = []
    labels, predictions = [], []
    for start in range(first_fold_weeks, len(weeks), step_weeks):
        fold = weeks[start : start + step_weeks]
        scorer = learner.load(learner.fit(rows.take(rows.window_us < fold[0].from_us), spec))
        for week in fold:
            part = rows.between(week)
            scores = scorer.score(part.x)
            found.append(week_statistics(part, scores, week=week, product=product))
            labels.append(part.labels)
            predictions.append(scores)
    return RollingResult(weeks=tuple(found), quality=quality(np.concatenate(labels), np.concatenate(predictions)))


def week_statistics(rows: Matrix, predictions: Floats, *, week: Window, product: Product) -> WindowStatistics:
    """Return the statistics of one week's rows under a model's predictions."""
    return window_statistics(
        week,
        labels=rows.labels,
        predictions=predictions,
        slices=rows.slices[product.drift_slice],
        policy=product.drift,
    )


def row_weights(window_us: Ints, half_life_days: float | None) -> Floats | None:
    """Return the weights of a spec's half-life, newest row 1; None when all rows weigh the same."""
    if half_life_days is None or len(window_us) == 0:
        return None
    weights: Floats = np.exp2(-(window_us.max() - window_us) / (half_life_days * DAY_US))
    return weights
