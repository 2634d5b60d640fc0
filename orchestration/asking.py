"""What every scoring path is asked with: rows, a model, and a way to see the vectors that the model is given."""

from collections.abc import Sequence
from dataclasses import dataclass

from headway.adapters.lightgbm import LightGbm
from headway.contracts import Reference
from headway.evaluation import Floats
from headway.manifest import Manifest
from headway.predictor import Predictor, RowScorer, open_predictor
from headway.product import Product
from orchestration.scoring_rows import Row


class Recorder:
    """A scorer that keeps the vectors it was given."""

    def __init__(self, scorer: RowScorer) -> None:
        self._scorer = scorer
        self.vectors: list[Floats] = []

    def score_row(self, vector: Floats) -> float:
        """See `headway.predictor.RowScorer`."""
        self.vectors.append(vector.copy())
        return self._scorer.score_row(vector)

    def score(self, matrix: Floats) -> Floats:
        """See `headway.predictor.RowScorer`."""
        self.vectors.extend(matrix.copy())
        return self._scorer.score(matrix)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The rows and the model that every path is asked with."""

    product: Product
    reference: Reference
    version: int
    model: bytes
    manifest: Manifest
    rows: Sequence[Row]

    def open(self) -> tuple[Predictor, Recorder]:
        """Return a proven predictor, and what it will have been given; a path has its own."""
        recorder: list[Recorder] = []

        def load(model: bytes) -> Recorder:
            recorder.append(Recorder(LightGbm().load(model)))
            return recorder[0]

        predictor = open_predictor(self.model, self.manifest, load=load)
        recorder[0].vectors.clear()
        return predictor, recorder[0]
