"""The yardstick of P1 and P2: FastAPI that answers with the model only, at its fastest ordinary setting.

The features come in the request, so it reads nothing, and it keeps no record. One process, ``uvicorn --loop uvloop --http
httptools --no-access-log``; the model file is in ``PEER_MODEL``. One thread per call: a second one makes a row slower.
"""

import os

import lightgbm  # noqa: TID253 - all this process does
import numpy as np
from fastapi import FastAPI  # type: ignore[import-not-found,unused-ignore]  # the peer's own environment
from pydantic import BaseModel


class Question(BaseModel):
    """One row, in the model's order."""

    features: list[float | None]


class Answer(BaseModel):
    """Its score."""

    probability: float


app = FastAPI()
booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])


@app.post("/predict")
async def predict(question: Question) -> Answer:
    """Score one row."""
    row = np.array([question.features], dtype=np.float64)
    return Answer(probability=booster.predict(row, num_threads=1)[0])
