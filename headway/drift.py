"""When to train again: statistics of whole mature weeks, limits learned out of fold, one policy, answers with reasons.

Two statistics are watched. *Divergence*: how unevenly the model errs over the values of one slice (airlines); weather
moves all of them together, a change of one airline's ways does not. *Excess log loss*: how much worse the model does
than it expects of itself. A week over a limit is a warning; the same statistic over its limit in ``patience`` weeks
running is a reason to train. Limits are quantiles of the weeks the model's own spec predicted out of fold.

Refuses weeks whose labels are not mature (S18): on-time flights report first. What bites: rates and calibration gaps
of natural weeks drift by themselves (S25), so neither is a trigger; both are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from headway.clock import DAY_US, duration_us, format_us, from_us, to_us
from headway.errors import ContractViolation
from headway.evaluation import Bools, Floats, quality

Statistic = Literal["divergence", "excess_log_loss"]
STATISTICS: tuple[Statistic, ...] = ("divergence", "excess_log_loss")
WEEK = timedelta(days=7)
Texts = NDArray[np.object_]


@dataclass(frozen=True, kw_only=True)
class DriftPolicy:
    """How a product is watched.

    Attributes:
        zone: IANA zone whose Monday midnights bound the windows.
        min_rows: a window with fewer labelled rows says nothing.
        min_slice_rows: values of the slice with fewer rows are left out of the divergence.
        limit_quantile: of the out-of-fold weeks; 0.95 lets one natural week in twenty warn.
        patience: how many windows running must warn.
        cooldown: no second training within this time of windows after the last one.
        budget: trainings at most within ``budget_period``; beyond it a person has to look.
        maturity: how long after the last due outcome labels count as complete (S18).
    """

    zone: str
    min_rows: int
    min_slice_rows: int
    limit_quantile: float
    patience: int
    cooldown: timedelta
    budget: int
    budget_period: timedelta
    maturity: timedelta

    def __post_init__(self) -> None:
        if not 0 < self.limit_quantile < 1 or self.patience < 1 or self.budget < 1:
            raise ContractViolation(
                "drift policy: wanted a limit quantile between 0 and 1, patience and budget of at least 1 "
                f"(got {self.limit_quantile}, {self.patience}, {self.budget})"
            )


@dataclass(frozen=True, kw_only=True)
class Window:
    """A half-open interval of instants."""

    from_us: int
    until_us: int

    def __str__(self) -> str:
        return f"[{format_us(self.from_us)}, {format_us(self.until_us)})"


class WindowStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one window of labelled predictions says; stored in manifests and shown in Dagster.

    ``divergence`` is None when fewer than two values of the slice have enough rows.
    """

    from_us: int
    until_us: int
    rows: int
    rate: float
    mean_prediction: float
    calibration_gap: float
    log_loss: float
    excess_log_loss: float
    average_precision: float | None
    divergence: float | None
    worst_slice: str | None
    worst_slice_gap: float | None


class DriftLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Above which a window warns; ``windows`` is how many out-of-fold weeks they come from."""

    divergence: float
    excess_log_loss: float
    windows: int


@dataclass(frozen=True)
class Hold:
    """Do not train, and why."""

    reason: str


@dataclass(frozen=True)
class Retrain:
    """Train, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class History:
    """What the decision must know besides the windows: past trainings, and whether the data can be believed.

    Attributes:
        trained_until_us: end of the live model's training window; earlier windows do not count against it.
        trainings_us: ends of the windows that led to earlier trainings.
        broken_data: why the windows' data cannot be believed (a failed check, a stalled feed); None when it can.
    """

    trained_until_us: int
    trainings_us: tuple[int, ...] = ()
    broken_data: str | None = None


def weekly_windows(zone: str, *, from_us: int, until_us: int) -> list[Window]:
    """Return the whole weeks inside the interval, Monday to Monday at local midnight."""
    day = from_us_local(from_us, zone)
    monday = day.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=day.weekday())
    found = []
    # Adding to a local datetime moves the wall clock, so a week with a change of clocks still ends at midnight.
    while (end_us := to_us(monday + WEEK)) <= until_us:
        if to_us(monday) >= from_us:
            found.append(Window(from_us=to_us(monday), until_us=end_us))
        monday += WEEK
    return found


def from_us_local(instant_us: int, zone: str) -> datetime:
    """Return an instant on the wall clock of a zone."""
    return from_us(instant_us).astimezone(ZoneInfo(zone))


def is_mature(*, last_due_us: int, watermark_us: int, policy: DriftPolicy) -> bool:
    """Whether all labels of a window whose last outcome was due then can be known (S18)."""
    return watermark_us >= last_due_us + duration_us(policy.maturity)


def window_statistics(
    window: Window, *, labels: Bools, predictions: Floats, slices: Texts, policy: DriftPolicy
) -> WindowStatistics:
    """Return the statistics of one mature window's labelled predictions, arrays of shape (n,).

    Raises:
        ContractViolation: no rows, or a prediction that is no probability.
    """
    figures = quality(labels, predictions)
    gaps = _slice_gaps(labels, predictions, slices, min_rows=policy.min_slice_rows)
    # By rows times gap: the value that moves the divergence most, not a small one that is off by chance.
    worst = max(gaps, key=lambda name: abs(gaps[name]) * (slices == name).sum(), default=None)
    return WindowStatistics(
        from_us=window.from_us,
        until_us=window.until_us,
        rows=figures.rows,
        rate=figures.rate,
        mean_prediction=figures.mean_prediction,
        calibration_gap=figures.calibration_gap,
        log_loss=figures.log_loss,
        excess_log_loss=figures.excess_log_loss,
        average_precision=figures.average_precision,
        divergence=divergence(labels, predictions, slices, min_rows=policy.min_slice_rows),
        worst_slice=worst,
        worst_slice_gap=None if worst is None else gaps[worst],
    )


def divergence(labels: Bools, predictions: Floats, slices: Texts, *, min_rows: int) -> float | None:
    """Return how far apart the calibration gaps of a slice's values lie, beyond what chance explains.

    The row-weighted standard deviation of the values' gaps around the common gap, with the binomial variance each gap
    would have under its own predictions taken off; 0 when nothing is left, None with fewer than two values.
    """
    residuals = predictions - labels
    groups = [rows for rows in (slices == value for value in np.unique(slices)) if rows.sum() >= min_rows]
    if len(groups) < 2:
        return None
    sizes = np.array([rows.sum() for rows in groups], dtype=np.float64)
    gaps = np.array([residuals[rows].mean() for rows in groups])
    chance = np.array([(predictions[rows] * (1 - predictions[rows])).sum() for rows in groups]) / sizes**2
    common = np.average(gaps, weights=sizes)
    return float(np.sqrt(max(np.average((gaps - common) ** 2 - chance, weights=sizes), 0.0)))


def learn_limits(weeks: Sequence[WindowStatistics], policy: DriftPolicy) -> DriftLimits:
    """Return the limits that out-of-fold weeks of the training period imply.

    Raises:
        ContractViolation: fewer than eight weeks; a quantile of less is an anecdote.
    """
    usable = [week for week in weeks if week.rows >= policy.min_rows and week.divergence is not None]
    if len(usable) < 8:
        raise ContractViolation(
            f"drift limits: got {len(usable)} out-of-fold weeks with at least {policy.min_rows} rows, wanted 8; "
            "train on a longer period"
        )
    limits = {
        name: float(np.quantile([getattr(w, name) for w in usable], policy.limit_quantile)) for name in STATISTICS
    }
    return DriftLimits(**limits, windows=len(usable))


def warnings(week: WindowStatistics, limits: DriftLimits) -> list[Statistic]:
    """Return the statistics of a week that lie over their limits."""
    return [name for name in STATISTICS if (getattr(week, name) or 0.0) > getattr(limits, name)]


def decide_retrain(
    weeks: Sequence[WindowStatistics], *, limits: DriftLimits, policy: DriftPolicy, history: History
) -> Retrain | Hold:
    """Say whether to train again, and why, in words the person on call can act on.

    Args:
        weeks: mature windows of the live model's predictions, oldest first; the decision is about the last.
        limits: from the live model's manifest.
        policy: the product's.
        history: past trainings and the state of the data.
    """
    judged = [w for w in weeks if w.from_us >= history.trained_until_us]
    if not judged:
        return Hold(f"no mature week since the live model's training ended at {format_us(history.trained_until_us)}")
    last = judged[-1]
    if last.rows < policy.min_rows:
        return Hold(
            f"week of {_day(last, policy)}: {last.rows} labelled rows; wanted {policy.min_rows} to say anything"
        )
    recent = judged[-policy.patience :]
    found = [name for name in warnings(last, limits) if all(name in warnings(w, limits) for w in recent)]
    told = _told(last, limits, policy)
    if not warnings(last, limits):
        return Hold(f"{told}; within limits")
    if len(recent) < policy.patience or not found or not _consecutive(recent):
        return Hold(f"{told}; a warning, {policy.patience} weeks running are wanted")
    if history.broken_data is not None:
        return Hold(f"{told}; not believed: {history.broken_data}")
    return _within_budget(
        last, told=f"{told}; {' and '.join(found)} for {policy.patience} weeks", policy=policy, history=history
    )


def _within_budget(last: WindowStatistics, *, told: str, policy: DriftPolicy, history: History) -> Retrain | Hold:
    ages_us = [last.until_us - training_us for training_us in history.trainings_us]
    if ages_us and min(ages_us) < duration_us(policy.cooldown):
        return Hold(f"{told}; last trained {min(ages_us) // DAY_US} days ago, cool-down is {policy.cooldown.days} days")
    spent = sum(age_us < duration_us(policy.budget_period) for age_us in ages_us)
    if spent >= policy.budget:
        return Hold(
            f"{told}; budget spent ({spent} trainings in {policy.budget_period.days} days): look before training"
        )
    return Retrain(told)


def _slice_gaps(labels: Bools, predictions: Floats, slices: Texts, *, min_rows: int) -> dict[str, float]:
    """Return, per value with enough rows, its calibration gap against that of all other rows."""
    residuals = predictions - labels
    gaps = {}
    for value in np.unique(slices):
        rows = slices == value
        if min_rows <= rows.sum() < len(rows):
            gaps[str(value)] = float(residuals[rows].mean() - residuals[~rows].mean())
    return gaps


def _consecutive(weeks: Sequence[WindowStatistics]) -> bool:
    return all(before.until_us == after.from_us for before, after in pairwise(weeks))


def _day(week: WindowStatistics, policy: DriftPolicy) -> str:
    return f"{from_us_local(week.from_us, policy.zone):%Y-%m-%d}"


def _told(week: WindowStatistics, limits: DriftLimits, policy: DriftPolicy) -> str:
    shown = "none" if week.divergence is None else f"{week.divergence:.3f}"
    gap = "" if week.worst_slice_gap is None else f" (most: {week.worst_slice} {week.worst_slice_gap:+.3f})"
    return (
        f"week of {_day(week, policy)}: divergence {shown}, limit {limits.divergence:.3f}{gap}; "
        f"excess log loss {week.excess_log_loss:+.3f}, limit {limits.excess_log_loss:.3f}"
    )
