"""Features that come with the question: nothing is read, and the record says what was used as always."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.predictions import Prediction
from tests.inference_world import OTHER, PATH, ROW, json_question
from tests.prediction_world import AS_OF_US, Service, Store
from tests.serving_world import product, trained

INFER = f"{PATH}/infer"


def online(*rows: dict[str, Any], store: Store | None = None) -> list[Prediction]:
    """What is logged of rows whose features were read."""
    logged = []
    for row in rows:
        service = Service(store)
        assert service.predict(msgspec.json.encode(row)).status_code == 200
        logged += service.logged()
    return logged


def features(predictions: list[Prediction]) -> dict[str, list[Any]]:
    """The values of every feature, row by row, as tensors carry them."""
    return {
        f"{view.view}:{name}": [each.views[place].values[at] for each in predictions]  # type: ignore[index]
        for place, view in enumerate(predictions[0].views)
        for at, name in enumerate(view.features)
    }


def question(rows: list[dict[str, Any]], given: dict[str, list[Any]]) -> dict[str, Any]:
    asked = json_question(rows)
    asked["inputs"] += [
        {"name": name, "datatype": "FP64", "shape": [len(rows)], "data": values} for name, values in given.items()
    ]
    return asked


def ask(service: Service, document: dict[str, Any]) -> Any:
    return service.post(INFER, msgspec.json.encode(document), headway_receipt="r-1")


@pytest.mark.parametrize("store", [Store(), Store(row_us=None)])
def test_given_features_are_answered_as_those_that_were_read(store: Store) -> None:
    """Nulls, counts, instants and entities that are not there included."""
    read = online(ROW, OTHER, store=store)
    service = Service(Store(away=True))

    answer = ask(service, question([ROW, OTHER], features(read)))

    document = answer.json()
    assert answer.status_code == 200, answer.text
    assert document["outputs"][0]["data"] == [each.probability for each in read]
    assert (document["parameters"]["features"], document["parameters"]["degraded"]) == ("given", False)
    assert service.store.asked == []


def test_the_record_of_an_answer_recomputes_from_what_was_given() -> None:
    service = Service(Store(away=True))
    ask(service, question([ROW], features(online(ROW))))

    [logged] = service.logged()

    request = product().parse_request(bytes(logged.request))
    values = product().compute_request_features(request, service.reference, logged.as_of_us)
    again = trained(1).predictor().predict(values, logged.view_values, logged.as_of_us)
    assert again.score == logged.probability
    assert (logged.as_of_us, logged.degraded, logged.stale) == (AS_OF_US, False, ())
    assert {view.watermark_us for view in logged.views} == {None}
    counts = [v for view in logged.views for n, v in zip(view.features, view.values or (), strict=True) if "count" in n]
    assert {type(value) for value in counts} <= {int, type(None)}


def test_the_features_there_are_are_named_in_the_metadata() -> None:
    named = Service().send("GET", PATH).json()["properties"]["features"].split(",")

    assert named == list(features(online(ROW)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"origin_delay.v1:count_1h": None}, "inputs: 'origin_delay.v1:count_1h' is missing; wanted all features"),
        ({"origin_delay.v1:count_1h": [1.5]}, "origin_delay.v1:count_1h[0]: got 1.5, wanted a whole number"),
        ({"origin_delay.v1:count_1h": ["1"]}, "origin_delay.v1:count_1h[0]: got '1', wanted FP64"),
        ({"origin_delay.v1:count_1h": [1, 2]}, "origin_delay.v1:count_1h: got 2 values, wanted 1"),
        ({"origin_delay.v1:count_9h": [1]}, "inputs: got 'origin_delay.v1:count_9h', wanted carrier"),
    ],
)
def test_features_that_are_not_exactly_those_of_the_model_are_refused(changes: dict[str, Any], words: str) -> None:
    given = {**features(online(ROW)), **changes}
    service = Service(Store(away=True))

    answer = ask(service, question([ROW], {name: values for name, values in given.items() if values is not None}))

    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert service.logged() == []


def test_in_a_binary_tensor_nan_is_null() -> None:
    read = online(ROW, store=Store(row_us=None))
    given = features(read)
    packed = {
        name: np.array([math.nan if v is None else v for v in values]).tobytes() for name, values in given.items()
    }
    asked = json_question([ROW])
    asked["inputs"] += [
        {"name": name, "datatype": "FP64", "shape": [1, 1], "parameters": {"binary_data_size": len(tail)}}
        for name, tail in packed.items()
    ]
    head = msgspec.json.encode(asked)

    answer = Service(Store(away=True)).post(
        INFER, head + b"".join(packed.values()), inference_header_content_length=str(len(head))
    )

    assert answer.json()["outputs"][0]["data"] == [read[0].probability]
