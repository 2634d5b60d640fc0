"""An exact cache of scores: the same vector, bit for bit, is scored once; off unless an installation asks for it.

A cache belongs to one predictor, so the model's digest is part of every key by construction, and a new version begins
with an empty one. Refuses to round: two vectors that differ in one bit are two entries, and so are 0.0 and -0.0. What
bites: proving a model must go past it, or the golden answers would be remembered and not computed (`Predictor.prove`).
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.predictor import RowScorer


class PredictionCache:
    """A scorer that remembers the scores it gave last. For one event loop."""

    def __init__(
        self, scorer: RowScorer, *, entries: int, hit: Callable[[float], None], missed: Callable[[float], None]
    ) -> None:
        """Remember at most ``entries`` scores; ``hit`` and ``missed`` are told how many rows were and were not.

        Raises:
            ContractViolation: no entries.
        """
        if entries < 1:
            raise ContractViolation(
                f"prediction cache: got {entries} entries, wanted at least 1; leave it out for none"
            )
        self._scorer = scorer
        self._entries = entries
        self._hit, self._missed = hit, missed
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def score_row(self, vector: Floats) -> float:
        """Return the score of one vector, shape (f,)."""
        key = vector.tobytes()
        known = self._scores.get(key)
        if known is not None:
            self._scores.move_to_end(key)
            self._hit(1)
            return known
        score = self._scorer.score_row(vector)
        self._missed(1)
        self._keep(key, score)
        return score

    def score(self, matrix: Floats) -> Floats:
        """Return the scores of vectors of shape (n, f); those not known are scored together."""
        keys = [row.tobytes() for row in matrix]
        # What is known now: scoring the rest may push it out.
        known = {key: self._scores[key] for key in keys if key in self._scores}
        places = {key: place for place, key in enumerate(keys) if key not in known}
        for key in known:
            self._scores.move_to_end(key)
        if places:
            scored = self._scorer.score(matrix[list(places.values())]).tolist()
            for key, score in zip(places, scored, strict=True):
                known[key] = score
                self._keep(key, score)
        self._hit(len(keys) - len(places))
        self._missed(len(places))
        return np.array([known[key] for key in keys], dtype=np.float64)

    def _keep(self, key: bytes, score: float) -> None:
        self._scores[key] = score
        if len(self._scores) > self._entries:
            self._scores.popitem(last=False)
