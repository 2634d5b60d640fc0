"""The same rows in every server's own form, and every server's answer read alike."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.flights_model import FlightsModel
from benchmarks.inference_messages import row_messages
from benchmarks.p1 import bad_outcomes
from benchmarks.request_path import RequestPath, probability_of
from serving.proto import inference_pb2 as pb

PATH = RequestPath(
    folder=Path(),
    model=FlightsModel(folder=Path(), text=b"", columns=(), rows=np.empty((0, 2))),
    balancer="",
    inference="",
    inference_grpc="",
    replica="",
    replica_grpc="",
    metrics="",
    requests=[],
    views=[],
    vectors=np.array([[1.5, np.nan], [2.0, 0.1]]),
)


def test_every_peer_is_asked_for_the_same_rows_with_null_for_what_is_missing() -> None:
    rows = [[1.5, None], [2.0, 0.1]]

    assert [each["features"] for each in PATH.peer_questions()] == rows
    assert [each["inputs"] for each in PATH.array_questions()] == [[row] for row in rows]
    tensors = [each["inputs"][0] for each in PATH.tensor_questions()]
    assert [(each["shape"], each["data"]) for each in tensors] == [([1, 2], row) for row in rows]
    messages = [pb.ModelInferRequest.FromString(each) for each in row_messages(PATH)]
    assert [list(each.inputs[0].shape) for each in messages] == [[1, 2], [1, 2]]
    assert b"".join(each.raw_input_contents[0] for each in messages) == PATH.vectors.tobytes()


@pytest.mark.parametrize(
    "answer",
    [
        {"probability": 0.25},
        {"predictions": [0.25]},
        {"outputs": [{"name": "probability", "data": [0.25]}]},
    ],
)
def test_an_answer_in_any_of_the_protocols_is_its_probability(answer: dict[str, object]) -> None:
    assert probability_of(answer) == 0.25


def test_an_outcome_that_never_happened_is_none() -> None:
    logged = 'headway_predictions_logged_{}{{outcome="{}",product="flight_delay"}} {}'
    page = [logged.format("total", "failed", "0.0"), logged.format("created", "failed", "1.79e+09")]

    assert bad_outcomes("\n".join([*page, logged.format("total", "logged", "9.0")])) == []
    lost = logged.format("total", "failed", "2.0")
    assert bad_outcomes("\n".join([*page, lost])) == [lost]
