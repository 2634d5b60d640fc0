"""P1's peer BentoML with the same model, ``python -m bentoml serve bentoml_model:Model``; features in the request, nothing else.

One worker process. The method is a coroutine, which runs in the server's loop; a plain one goes through a thread, which costs
more than a row. pydantic models in and out; no metrics, no access log. The model file is in ``PEER_MODEL``.
"""

import os

import bentoml  # type: ignore[import-not-found,unused-ignore]  # the peer's own environment
import lightgbm  # noqa: TID253 - all this process does
import numpy as np
from pydantic import BaseModel


class Question(BaseModel):
    """One row, in the model's order."""

    features: list[float | None]


class Answer(BaseModel):
    """Its score."""

    probability: float


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})  # type: ignore[untyped-decorator,unused-ignore]
class Model:
    """One row in, its score out."""

    def __init__(self) -> None:
        """Load the model."""
        self.booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    async def predict(self, question: Question, /) -> Answer:
        """Score one row."""
        row = np.array([question.features], dtype=np.float64)
        return Answer(probability=self.booster.predict(row, num_threads=1)[0])
