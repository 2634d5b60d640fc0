"""What a client of the Open Inference Protocol sees over HTTP, with the online store and the log in memory."""

import struct
from typing import Any

import msgspec
import numpy as np
import pytest

from serving.predict import MAX_ROWS_BYTES
from tests.inference_world import OTHER, PATH, ROW, binary_question, json_question
from tests.prediction_world import AS_OF, Service, Store
from tests.serving_world import trained

INFER = f"{PATH}/infer"


def probabilities(service: Service, *rows: dict[str, Any]) -> list[float]:
    return [service.predict(msgspec.json.encode(row)).json()["probability"] for row in rows]


def ask(service: Service, document: dict[str, Any], path: str = INFER) -> Any:
    return service.post(path, msgspec.json.encode(document), headway_receipt="r-1")


def output(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in document["outputs"] if each["name"] == name)
    return found


def test_tensors_of_rows_are_answered_as_the_json_api_answers_each() -> None:
    service = Service()

    answer = ask(service, json_question([ROW, OTHER], id="42"))

    document = answer.json()
    assert answer.status_code == 200, answer.text
    assert (document["model_name"], document["model_version"], document["id"]) == ("flight_delay", "3", "42")
    assert [each["name"] for each in document["outputs"]] == ["probability", "receipt"]
    assert output(document, "probability") == {
        "name": "probability",
        "datatype": "FP64",
        "shape": [2],
        "data": probabilities(Service(), ROW, OTHER),
    }
    assert output(document, "receipt")["data"] == ["r-1", "r-1.1"]


def test_the_answer_names_version_hash_and_how_fresh_the_features_were() -> None:
    parameters = ask(Service(), json_question([ROW])).json()["parameters"]

    assert parameters == {
        "model_version": "3",
        "model_digest": trained(1).manifest.digest,
        "as_of": AS_OF,
        "watermark": AS_OF,
        "stale": "",
        "degraded": False,
        "features": "online",
    }


def test_rows_are_read_at_once_and_each_is_logged_under_its_receipt() -> None:
    service = Service()

    ask(service, json_question([ROW, OTHER, ROW]))

    assert [len(rows) for rows in service.store.asked] == [3]
    assert [p.receipt for p in service.logged()] == ["r-1", "r-1.1", "r-1.2"]


def test_binary_tensors_are_answered_with_binary_ones_bit_for_bit() -> None:
    service = Service()
    body, headers = binary_question([ROW, OTHER], parameters={"binary_data_output": True})

    answer = service.post(INFER, body, headway_receipt="r-1", content_type="application/octet-stream", **headers)

    size = int(answer.headers["inference-header-content-length"])
    document = msgspec.json.decode(answer.content[:size])
    tail = answer.content[size:]
    sizes = [each["parameters"]["binary_data_size"] for each in document["outputs"]]
    assert sum(sizes) == len(tail)
    assert np.frombuffer(tail[: sizes[0]], "<f8").tolist() == probabilities(Service(), ROW, OTHER)
    assert tail[sizes[0] :] == struct.pack("<I", 3) + b"r-1" + struct.pack("<I", 5) + b"r-1.1"


def test_a_client_chooses_outputs_and_which_of_them_are_binary() -> None:
    outputs: list[dict[str, Any]] = [
        {"name": "receipt", "parameters": {"binary_data": False}},
        {"name": "probability"},
    ]

    document = ask(Service(), json_question([ROW], outputs=outputs)).json()
    mixed = ask(
        Service(), json_question([ROW], outputs=[outputs[0], {**outputs[1], "parameters": {"binary_data": True}}])
    )

    assert [each["name"] for each in document["outputs"]] == ["receipt", "probability"]
    head = msgspec.json.decode(mixed.content[: int(mixed.headers["inference-header-content-length"])])
    assert head["outputs"][0]["data"] == ["r-1"]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 8}


@pytest.mark.parametrize("path", [INFER, f"{PATH}/versions/3/infer"])
def test_the_serving_version_may_be_named(path: str) -> None:
    assert ask(Service(), json_question([ROW]), path).status_code == 200


@pytest.mark.parametrize(
    "path", [f"{PATH}/versions/2/infer", "/v2/models/other/infer", f"{PATH}/versions/3/4/infer", "/v2/infer"]
)
def test_what_is_not_here_is_404_in_words_of_the_protocol(path: str) -> None:
    answer = ask(Service(), json_question([ROW]), path)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["error"] == answer.json()["detail"]


def without(name: str) -> dict[str, Any]:
    question = json_question([ROW])
    return {"inputs": [each for each in question["inputs"] if each["name"] != name]}


def changed(field: str, **changes: Any) -> dict[str, Any]:
    question = json_question([ROW, OTHER])
    return {"inputs": [{**each, **changes} if each["name"] == field else each for each in question["inputs"]]}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (without("carrier"), "inputs: 'carrier' is missing, wanted carrier, flight, "),
        (changed("carrier", name="gate"), "inputs: got 'gate', wanted carrier, flight, "),
        (changed("carrier", name="dest"), "wanted each name once"),
        (changed("carrier", datatype="INT64"), "input carrier: got datatype INT64, wanted BYTES"),
        (changed("flight", datatype="FP64"), "input flight: got datatype FP64, wanted INT64"),
        (changed("flight", shape=[3]), "input flight: got shape [3], wanted [2] or [2, 1]"),
        (changed("flight", shape=[1, 2]), "input flight: got shape [1, 2], wanted [2] or [2, 1]"),
        (changed("flight", data=[1]), "input flight: got 1 values, wanted 2"),
        (changed("flight", data=[1, 1.5]), "input flight[1]: got 1.5, wanted INT64"),
        (changed("flight", data=[True, 1]), "input flight[0]: got True, wanted INT64"),
        (changed("carrier", data=["UA", None]), "input carrier[1]: got None, wanted BYTES"),
        (changed("carrier", data=["UA", 7]), "input carrier[1]: got 7, wanted BYTES"),
        (changed("dest", data=["IAH", "ZZZ"]), "row 1: dest"),
        (changed("sched_dep", data=["soon", ROW["sched_dep"]]), "row 0: sched_dep"),
        (
            changed("as_of", data=[AS_OF, "2013-07-01T13:00:00Z"]),
            f"row 1: as_of: got 2013-07-01T13:00:00Z, wanted {AS_OF}",
        ),
        (changed("carrier", data=None), "input carrier: got neither data nor binary_data_size"),
        (json_question([ROW] * 9), "inputs: got 9 rows, wanted 1 to 8; ask in parts"),
        ({"inputs": []}, "is missing"),
        ({"inputs": 7}, "Expected `array`"),
        (json_question([ROW], outputs=[{"name": "logits"}]), "outputs: got 'logits', wanted probability, receipt"),
        (
            json_question([ROW], outputs=[{"name": "probability", "parameters": {"classification": 3}}]),
            "output probability: got parameter 'classification', wanted binary_data alone",
        ),
    ],
)
def test_a_wrong_question_is_refused_as_a_whole_and_nothing_is_logged(question: dict[str, Any], words: str) -> None:
    service = Service()

    answer = ask(service, question)

    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text
    assert service.logged() == []
    assert service.metric('headway_prediction_answers_total{outcome="bad_request"') == 1


def test_one_row_from_the_past_refuses_the_question_and_leaves_no_record_of_the_others() -> None:
    service = Service(Store(young_tail="N1"))

    answer = ask(service, json_question([ROW, {**ROW, "tail": "N1"}]))

    assert (answer.status_code, answer.json()["error"].startswith("row 1: as_of")) == (409, True)
    assert service.logged() == []


@pytest.mark.parametrize(
    ("length", "words"),
    [("9999999", "wanted at most the body's"), ("-1", "wanted at most the body's"), ("7", "body: ")],
)
def test_a_header_length_that_does_not_fit_is_refused(length: str, words: str) -> None:
    body, _ = binary_question([ROW])

    answer = Service().post(INFER, body, inference_header_content_length=length)

    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(("cut", "words"), [(-1, "bytes are left"), (1, "1 bytes after the last tensor, wanted none")])
def test_a_body_that_is_cut_or_too_long_is_refused(cut: int, words: str) -> None:
    body, headers = binary_question([ROW])

    answer = Service().post(INFER, body[:cut] if cut < 0 else body + b"x" * cut, **headers)

    assert (answer.status_code, words in answer.json()["error"]) == (400, True), answer.text


def test_a_compressed_body_and_a_large_one_are_refused() -> None:
    service = Service()

    assert service.post(INFER, b"{}", content_encoding="gzip").status_code == 415
    assert service.post(INFER, b" " * (MAX_ROWS_BYTES + 1)).status_code == 413


def test_health_and_metadata_are_told() -> None:
    service = Service()

    assert service.send("GET", "/v2").json() == {
        "name": "headway",
        "version": "2",
        "extensions": ["binary_tensor_data"],
    }
    assert service.send("GET", "/v2/health/live").json() == {"live": True}
    assert service.send("GET", "/v2/health/ready").json() == {"ready": True}
    for path in (f"{PATH}/ready", f"{PATH}/versions/3/ready"):
        assert service.send("GET", path).json() == {"name": "flight_delay", "ready": True}
    metadata = service.send("GET", f"{PATH}/versions/3").json()
    assert metadata == service.send("GET", PATH).json()
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("flight_delay", ["3"], "lightgbm_text")
    inputs = {each["name"]: (each["datatype"], each["shape"]) for each in metadata["inputs"]}
    assert inputs["carrier"] == inputs["sched_dep"] == inputs["as_of"] == ("BYTES", [-1])
    assert inputs["distance_mi"] == ("INT64", [-1])
    assert {each["name"]: each["datatype"] for each in metadata["outputs"]} == {
        "probability": "FP64",
        "receipt": "BYTES",
    }


@pytest.mark.parametrize("path", ["/v2/health", f"{PATH}/versions/2", f"{PATH}/config", "/v2/models/x/ready", "/v2/x"])
def test_what_the_protocol_does_not_know_is_404(path: str) -> None:
    answer = Service().send("GET", path)

    assert (answer.status_code, "error" in answer.json()) == (404, True)
