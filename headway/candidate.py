"""A candidate: model bytes and manifest made from a training set, and the evidence a verdict on it needs.

Assets call `make_candidate`, then `gather_evidence` on rows after its training window, then `headway.gates.judge`, then
`judged` to write the verdict's figures into the manifest. Nothing here reads or writes anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from headway.drift import learn_limits
from headway.evaluation import Floats
from headway.gates import Evidence, Verdict
from headway.manifest import FORMAT, GoldenRequest, Manifest, TrainingFacts, golden_request, sha256
from headway.predictor import Predictor, RowScorer, measure_row_latency_us
from headway.product import ModelSpec, Product
from headway.rolling import RollingResult, rolling_weeks
from headway.training import REQUEST, Matrix, TrainingSet, assemble, learn_categories
from headway.vector import Assembler

# Two months before the first fold, then five refits over the rest: 17 weeks of January to June, about 20 s.
FIRST_FOLD_WEEKS = 8
FOLDS = 5
_LATENCY_CALLS = 2000


class RowLearner(Protocol):
    """A learner whose scorers also answer single rows."""

    def fit(self, rows: Matrix, spec: ModelSpec) -> bytes:
        """Return the model: the same rows and spec give the same bytes."""
        ...

    def load(self, model: bytes) -> RowScorer:
        """Return a scorer of the model."""
        ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model not judged yet, with how its spec did out of fold."""

    model: bytes
    manifest: Manifest
    rolling: RollingResult


def make_candidate(
    product: Product, rows: TrainingSet, *, spec: ModelSpec, learner: RowLearner, tables: Mapping[str, int]
) -> Candidate:
    """Return a candidate trained on all rows, with drift limits from its spec's out-of-fold weeks.

    Args:
        product: whose model.
        rows: the training set.
        spec: how to fit; normally ``product.model``.
        learner: the adapter that fits and loads.
        tables: version of every lake table the rows were read from.

    Raises:
        ContractViolation: too few weeks for limits, or labels of one kind only.
    """
    matrix = assemble(product, rows, assembler=Assembler(product.columns(learn_categories(product, rows))))
    rolling = rolling_weeks(
        matrix,
        product=product,
        spec=spec,
        learner=learner,
        window=rows.window,
        first_fold_weeks=FIRST_FOLD_WEEKS,
        folds=FOLDS,
    )
    model = learner.fit(matrix, spec)
    manifest = Manifest(
        format=FORMAT,
        product=product.name,
        spec=spec.name,
        spec_digest=spec.digest,
        columns=matrix.assembler.columns,
        views=dict(rows.view_digests),
        reference_version=rows.reference_version,
        model_sha256=sha256(model),
        model_bytes=len(model),
        training=TrainingFacts(
            from_us=rows.window.from_us,
            until_us=rows.window.until_us,
            known_at_us=rows.known_at_us,
            rows=len(matrix.labels),
            positives=int(matrix.labels.sum()),
            excluded=dict(rows.excluded),
            tables=dict(tables),
        ),
        metrics={f"rolling_{name}": value for name, value in rolling.quality.figures().items()},
        weeks=rolling.weeks,
        limits=learn_limits(rolling.weeks, product.drift),
        golden=_golden(product, rows, matrix.x, scores=learner.load(model).score(matrix.x)),
    )
    return Candidate(model=model, manifest=manifest, rolling=rolling)


def gather_evidence(
    product: Product,
    *,
    candidate: Predictor,
    champion: Predictor | None,
    holdout: TrainingSet,
    yesterday: TrainingSet,
    watermark_us: int,
) -> Evidence:
    """Return what the gate judges: both models on the same held-out rows, and the candidate's other measurements.

    Args:
        product: whose gate.
        candidate: proven predictor of the candidate.
        champion: proven predictor of the champion, None when there is none.
        holdout: rows after the candidate's training window.
        yesterday: the same rows with views read 24 h earlier (``training_set(views_shift_us=DAY_US)``).
        watermark_us: how far events are known.
    """
    rows = assemble(product, holdout, assembler=candidate.assembler)
    shifted = assemble(product, yesterday, assembler=candidate.assembler)
    return Evidence(
        labels=rows.labels,
        candidate=candidate.score(rows.x),
        champion=None
        if champion is None
        else champion.score(assemble(product, holdout, assembler=champion.assembler).x),
        blocks=rows.days,
        slices={name: rows.slices[name] for name in product.slices},
        train_until_us=candidate.manifest.training.until_us,
        holdout_from_us=int(rows.window_us.min()),
        last_due_us=int(holdout.frame["due_us"].max()),  # type: ignore[arg-type]  # int64, no nulls
        watermark_us=watermark_us,
        yesterday=candidate.score(shifted.x),
        outages={view: candidate.score(candidate.assembler.outage(rows.x, view)) for view in candidate.assembler.views},
        model_bytes=candidate.manifest.model_bytes,
        row_latency_us=measure_row_latency_us(candidate, rows.x, calls=_LATENCY_CALLS),
        rolling_average_precision=candidate.manifest.metrics["rolling_average_precision"],
    )


def judged(manifest: Manifest, verdict: Verdict) -> Manifest:
    """Return the manifest with the verdict's figures among its metrics."""
    figures = dict(manifest.metrics)
    for prefix, quality in (("holdout", verdict.candidate), ("champion", verdict.champion)):
        if quality is not None:
            figures |= {f"{prefix}_{name}": value for name, value in quality.figures().items()}
    if verdict.difference is not None:
        figures["champion_log_loss_difference"] = verdict.difference.mean
    return msgspec.structs.replace(manifest, metrics=figures)


def _golden(product: Product, rows: TrainingSet, x: Floats, *, scores: Floats) -> tuple[GoldenRequest, ...]:
    """Return requests spread evenly over the scores, so that a model that answers a constant cannot pass."""
    order = np.argsort(scores, kind="stable")
    places = np.unique(order[np.linspace(0, len(order) - 1, product.golden_requests).astype(np.int64)])
    return tuple(
        golden_request(
            request=rows.frame[REQUEST][int(place)],
            as_of_us=rows.frame["as_of_us"][int(place)],
            vector=x[place],
            score=float(scores[place]),
        )
        for place in places
    )
