"""A verified model that answers: from request features and view values to a score, row by row or in bulk.

It exists only when the bytes match the manifest, the code computes the pinned inputs, and every golden request scored
as registered; there is no way to hold an unproven one. What bites: ``degraded`` and ``stale`` are not the same; this
module only knows which views were unavailable and got their declared defaults (SEMANTICS S10).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headway.clock import monotonic_s
from headway.evaluation import Floats
from headway.manifest import Manifest
from headway.vector import Assembler, RequestValues, ViewValues


class RowScorer(Protocol):
    """A loaded model: probabilities for vectors of the manifest's order."""

    def score_row(self, vector: Floats) -> float:
        """Return the score of one contiguous float64 vector, shape (f,)."""
        ...

    def score(self, matrix: Floats) -> Floats:
        """Return the scores of vectors of shape (n, f), equal to ``score_row`` of each bit for bit."""
        ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: the score, the exact vector it came from, and the views that were unavailable."""

    score: float
    vector: Floats
    degraded: tuple[str, ...]


class Predictor:
    """One proven model version. Make it with `open_predictor`."""

    def __init__(self, manifest: Manifest, scorer: RowScorer) -> None:
        self.manifest = manifest
        self.digest = manifest.digest
        self.assembler = Assembler(manifest.columns)
        self._scorer = scorer
        # What requests are answered by; a cache, where one is wanted.
        self._answering = scorer

    def answer_through(self, wrap: Callable[[RowScorer], RowScorer]) -> None:
        """Answer requests through another scorer over the model's own; proving never goes through it."""
        self._answering = wrap(self._scorer)

    def predict(self, request: RequestValues, views: ViewValues, as_of_us: int) -> Prediction:
        """Return the answer for one request; about 15 us.

        Raises:
            ContractViolation: a request feature or a view is missing.
        """
        vector = self.assembler.assemble(request, views, as_of_us)
        degraded = tuple(view for view in self.assembler.views if views[view] is None)
        return Prediction(score=self._answering.score_row(vector), vector=vector, degraded=degraded)

    def predict_each(self, asked: Sequence[tuple[RequestValues, ViewValues]], as_of_us: int) -> list[float]:
        """Return the scores of several requests of one instant, bit for bit those of ``predict``.

        Raises:
            ContractViolation: a request feature or a view is missing.
        """
        return self.predict_many([(request, views, as_of_us) for request, views in asked])

    def predict_many(self, asked: Sequence[tuple[RequestValues, ViewValues, int]]) -> list[float]:
        """Return the score of each request as of its own instant, bit for bit that of ``predict``, in one call of the model.

        Raises:
            ContractViolation: a request feature or a view is missing.
        """
        if not asked:
            return []
        if len(asked) == 1:  # a third of what it costs as a matrix
            return [self.predict(*asked[0]).score]
        scores: list[float] = self._answering.score(self.assembler.matrix(asked)).tolist()
        return scores

    def score(self, matrix: Floats) -> Floats:
        """Return the scores of assembled vectors, shape (n, f) to (n,)."""
        return self._scorer.score(matrix)

    def score_row(self, vector: Floats) -> float:
        """Return the score of one assembled vector, for a receipt that is computed again."""
        return self._scorer.score_row(vector)

    def prove(self) -> None:
        """Score the golden requests one by one and in bulk and compare with what was registered (S21).

        Raises:
            ContractViolation: a score differs; names the first.
        """
        vectors = [golden.array() for golden in self.manifest.golden]
        self.manifest.verify_scores([self._scorer.score_row(vector) for vector in vectors])
        self.manifest.verify_scores(self._scorer.score(np.array(vectors)).tolist() if vectors else [])


# Gives a scorer of a model's bytes.
LoadModel = Callable[[bytes], RowScorer]


def open_predictor(model: bytes, manifest: Manifest, *, load: LoadModel) -> Predictor:
    """Return a predictor of the model, verified and proven.

    Whether the code at hand computes the pinned views is the caller's check (``Manifest.verify_definitions``), because
    a replay of logged vectors needs no views.

    Raises:
        ContractViolation: bytes, hash or a golden score differ from the manifest.
    """
    manifest.verify(model)
    predictor = Predictor(manifest, load(model))
    predictor.prove()
    return predictor


def measure_row_latency_us(scorer: RowScorer, matrix: Floats, *, calls: int) -> float:
    """Return the 99th percentile of one-row scoring, in microseconds, over rows of the matrix in turn."""
    rows = [np.ascontiguousarray(matrix[place % len(matrix)]) for place in range(calls)]
    times_s = np.empty(calls)
    for place, row in enumerate(rows):
        started_s = monotonic_s()
        scorer.score_row(row)
        times_s[place] = monotonic_s() - started_s
    return float(np.quantile(times_s, 0.99) * 1e6)
