"""Whether a candidate may become a model version people can promote: a verdict with every check in words.

Blocks by default: a check that could not be made is a failed check. The comparison with the champion is a paired
non-inferiority test on the same rows, resampled by day, because figures of single periods move more with the weather
than models differ (SEMANTICS S25, ADR 0008). The floor only catches breakage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headway.clock import format_us
from headway.errors import ContractViolation
from headway.evaluation import (
    Bools,
    Difference,
    Floats,
    Ints,
    Quality,
    average_precision,
    log_losses,
    metric_interval,
    paired_difference,
    paired_metric_difference,
    quality,
    roc_auc,
)

Texts = NDArray[np.object_]
# Each draw sorts every row; 200 give an interval's ends to a hundredth, 2,000 would take 20 s for a month.
_METRIC_DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """The limits of one product's gate. Losses are in nats per row.

    Attributes:
        floor_average_precision: below it something is broken; it does not rank models. On held-out rows of ``floor_days`` or
            more the upper end of the interval is judged (days alone spread a month's figure by 0.036); on fewer the
            out-of-fold rows are: average precision follows the rate, and one quiet week of a good model has 0.3.
        floor_roc_auc: the floor that does not follow the rate, always judged on the held-out rows.
        champion_margin: the candidate's log loss may be worse by this, judged at the upper end of the interval.
        slice_margin: the same for each value of a slice, judged at the lower end: only a proven regression blocks.
        min_slice_rows: values of a slice with fewer rows are not judged.
        max_calibration_gap: |mean prediction - rate|.
        outage_budget: how much log loss the absence of any single view may add.
        leak_tolerance: how much average precision features of the day before may gain by chance.
        maturity_us: how long after the last due outcome labels count as complete (S18).
    """

    floor_average_precision: float
    floor_days: int
    floor_roc_auc: float
    champion_margin: float
    slice_margin: float
    min_rows: int
    min_positives: int
    min_slice_rows: int
    max_calibration_gap: float
    max_model_bytes: int
    max_row_latency_us: float
    outage_budget: float
    leak_tolerance: float
    maturity_us: int
    bootstrap_draws: int = 2000
    level: float = 0.95
    seed: int = 20130701

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.bootstrap_draws < 100 or self.min_positives < 1:
            raise ContractViolation(
                "gate policy: wanted level between 0 and 1, at least 100 draws and 1 positive "
                f"(got {self.level}, {self.bootstrap_draws}, {self.min_positives})"
            )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a verdict is made from: held-out rows nobody trained on, and measurements of the candidate.

    Attributes:
        labels: of the held-out rows, shape (n,), with the candidate's predictions beside it.
        champion: the champion's predictions on the same rows; None when there is no champion yet.
        blocks: the local day of each row.
        slices: per slice name, the value of each row.
        last_due_us: when the last outcome of the rows was due; ``watermark_us`` is how far events are known.
        train_until_us: end of the training window; ``holdout_from_us`` is the first row held out.
        yesterday: the candidate's predictions with every view read 24 h earlier (the leak test).
        outages: per view, the candidate's predictions with that view unavailable.
        row_latency_us: 99th percentile of one-row predictions.
        rolling_average_precision: of the candidate's spec on out-of-fold weeks of its training window.
    """

    labels: Bools
    candidate: Floats
    champion: Floats | None
    blocks: Ints
    slices: Mapping[str, Texts]
    train_until_us: int
    holdout_from_us: int
    last_due_us: int
    watermark_us: int
    yesterday: Floats
    outages: Mapping[str, Floats]
    model_bytes: int
    row_latency_us: float
    rolling_average_precision: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question of the gate, answered in words."""

    name: str
    passed: bool
    got: str
    wanted: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All checks of one candidate; it passes when every one does.

    ``quality`` figures are absent when the rows did not allow any.
    """

    checks: tuple[Check, ...]
    candidate: Quality | None = None
    champion: Quality | None = None
    difference: Difference | None = None
    slice_losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """Why not, or that all checks passed."""
        failed = [f"{c.name}: got {c.got}, wanted {c.wanted}" for c in self.checks if not c.passed]
        return "; ".join(failed) or f"all {len(self.checks)} checks passed"

    def table(self) -> str:
        """Return the checks as a Markdown table."""
        rows = [f"| {'yes' if c.passed else '**no**'} | {c.name} | {c.got} | {c.wanted} |" for c in self.checks]
        return "\n".join(["| passed | check | got | wanted |", "|---|---|---|---|", *rows])


def judge(evidence: Evidence, policy: GatePolicy) -> Verdict:
    """Return the verdict on a candidate; about 1 s for a month of flights.

    When the rows cannot carry a judgement (too few, one outcome only, labels not mature, rows trained on), only those
    checks are made: figures from such rows would mislead.
    """
    rows = tuple(_check_rows(evidence, policy))
    if not all(check.passed for check in rows):
        return Verdict(checks=rows)
    candidate = quality(evidence.labels, evidence.candidate)
    checks = [*rows, *_check_candidate(evidence, candidate, policy), *_check_outages(evidence, candidate, policy)]
    if evidence.champion is None:
        checks.append(Check(name="champion", passed=True, got="no champion yet", wanted="not worse than the champion"))
        return Verdict(checks=tuple(checks), candidate=candidate, slice_losses=_slice_losses(evidence, policy))
    difference, check = _check_champion(evidence, evidence.champion, policy)
    return Verdict(
        checks=(*checks, check, *_check_slices(evidence, evidence.champion, policy)),
        candidate=candidate,
        champion=quality(evidence.labels, evidence.champion),
        difference=difference,
        slice_losses=_slice_losses(evidence, policy),
    )


def _check_rows(evidence: Evidence, policy: GatePolicy) -> Iterator[Check]:
    rows, positives = len(evidence.labels), int(evidence.labels.sum())
    yield _at_least("rows", rows, policy.min_rows)
    yield _at_least("positives", positives, policy.min_positives)
    yield _at_least("negatives", rows - positives, policy.min_positives)
    mature_us = evidence.last_due_us + policy.maturity_us
    yield Check(
        name="label maturity",
        passed=evidence.watermark_us >= mature_us,
        got=f"events known until {format_us(evidence.watermark_us)}",
        wanted=f"known until {format_us(mature_us)}, else late flights are missing",
    )
    yield Check(
        name="held out",
        passed=evidence.train_until_us <= evidence.holdout_from_us,
        got=f"trained until {format_us(evidence.train_until_us)}, judged from {format_us(evidence.holdout_from_us)}",
        wanted="no judged row inside the training window",
    )


def _check_candidate(evidence: Evidence, candidate: Quality, policy: GatePolicy) -> Iterator[Check]:
    found = average_precision(evidence.labels, evidence.candidate)
    yield _check_floor(evidence, found, policy)
    area = roc_auc(evidence.labels, evidence.candidate)
    yield Check(
        name="floor (ROC AUC)",
        passed=area >= policy.floor_roc_auc,
        got=f"{area:.3f} held out",
        wanted=f">= {policy.floor_roc_auc:.2f} (breakage)",
    )
    spread = float(np.ptp(evidence.candidate))
    yield Check(
        name="not constant", passed=spread > 0, got=f"predictions span {spread:.3f}", wanted="more than one value"
    )
    yield _at_most("calibration", abs(candidate.calibration_gap), policy.max_calibration_gap, "|mean - rate|")
    shifted = average_precision(evidence.labels, evidence.yesterday)
    yield Check(
        name="leak test",
        passed=shifted <= found + policy.leak_tolerance,
        got=f"average precision {shifted:.3f} with yesterday's features, {found:.3f} with today's",
        wanted="older features must not predict better",
    )
    yield _at_most("size", evidence.model_bytes, policy.max_model_bytes, "bytes")
    yield _at_most("row latency", evidence.row_latency_us, policy.max_row_latency_us, "us at the 99th percentile")


def _check_floor(evidence: Evidence, held_out: float, policy: GatePolicy) -> Check:
    days = len(np.unique(evidence.blocks))
    if days >= policy.floor_days:
        judged = metric_interval(
            average_precision,
            evidence.labels,
            evidence.candidate,
            evidence.blocks,
            seed=policy.seed,
            draws=_METRIC_DRAWS,
            level=policy.level,
        )
        best, got = judged.high, f"{judged.mean:.3f} [{judged.low:.3f}, {judged.high:.3f}] on {days} held-out days"
    else:
        best = evidence.rolling_average_precision
        got = f"{best:.3f} out of fold; {held_out:.3f} on {days} held-out days, too few for a floor"
    return Check(
        name="floor",
        passed=best >= policy.floor_average_precision,
        got=f"average precision {got}",
        wanted=f">= {policy.floor_average_precision:.2f}, else something is broken",
    )


def _check_outages(evidence: Evidence, candidate: Quality, policy: GatePolicy) -> Iterator[Check]:
    losses = {
        view: float(log_losses(evidence.labels, predictions).mean()) - candidate.log_loss
        for view, predictions in evidence.outages.items()
    }
    if losses:
        worst = max(losses, key=losses.__getitem__)
        yield _at_most(f"feature outage ({worst})", losses[worst], policy.outage_budget, "nats added to log loss")


def _check_champion(evidence: Evidence, champion: Floats, policy: GatePolicy) -> tuple[Difference, Check]:
    difference = _paired(evidence, champion, slice(None), policy)
    # Beside the verdict, not part of it.
    ranks = paired_metric_difference(
        average_precision,
        evidence.labels,
        champion,
        evidence.candidate,
        evidence.blocks,
        seed=policy.seed,
        draws=_METRIC_DRAWS,
        level=policy.level,
    )
    return difference, Check(
        name="champion",
        passed=difference.high <= policy.champion_margin,
        got=(
            f"log loss {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] over {difference.blocks} "
            f"days; average precision {ranks.mean:+.4f} [{ranks.low:+.4f}, {ranks.high:+.4f}]"
        ),
        wanted=f"log loss worse by at most {policy.champion_margin} at the upper end",
    )


def _check_slices(evidence: Evidence, champion: Floats, policy: GatePolicy) -> Iterator[Check]:
    for name, rows in _slice_rows(evidence, policy):
        difference = _paired(evidence, champion, rows, policy)
        yield Check(
            name=f"slice {name}",
            passed=difference.low <= policy.slice_margin,
            got=f"log loss {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]",
            wanted=f"not proven worse by {policy.slice_margin}",
        )


def _paired(evidence: Evidence, champion: Floats, rows: Bools | slice, policy: GatePolicy) -> Difference:
    labels = evidence.labels[rows]
    return paired_difference(
        log_losses(labels, champion[rows]),
        log_losses(labels, evidence.candidate[rows]),
        evidence.blocks[rows],
        seed=policy.seed,
        draws=policy.bootstrap_draws,
        level=policy.level,
    )


def _slice_rows(evidence: Evidence, policy: GatePolicy) -> Iterator[tuple[str, Bools]]:
    for name, values in evidence.slices.items():
        for value in sorted(set(values)):
            rows: Bools = values == value
            if rows.sum() >= policy.min_slice_rows:
                yield f"{name}={value}", rows


def _slice_losses(evidence: Evidence, policy: GatePolicy) -> dict[str, float]:
    losses = log_losses(evidence.labels, evidence.candidate)
    return {name: float(losses[rows].mean()) for name, rows in _slice_rows(evidence, policy)}


def _at_least(name: str, got: int, wanted: int) -> Check:
    return Check(name=name, passed=got >= wanted, got=f"{got:,}", wanted=f">= {wanted:,}")


def _at_most(name: str, got: float, wanted: float, unit: str) -> Check:
    return Check(name=name, passed=got <= wanted, got=f"{got:,.4g} {unit}", wanted=f"<= {wanted:,.4g}")
