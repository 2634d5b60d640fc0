"""A gRPC answer says what the HTTP answer says; the server itself and real clients are in tests/contract."""

import asyncio
from typing import Any

import numpy as np
import pytest

from headway.adapters.haproxy import RECEIPT_HEADER
from serving.collector_limits import Refused
from serving.inference_grpc import _tensors
from serving.proto import inference_pb2 as pb
from tests.inference_world import OTHER, PATH, ROW, grpc_question, json_question
from tests.prediction_world import Service


class Call:
    """The metadata of a call that came through the load balancer."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ((RECEIPT_HEADER, "r-1"),)


def ask(service: Service, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    methods = service.api.grpc._methods

    async def call() -> pb.ModelInferResponse:
        answer: pb.ModelInferResponse = await methods["ModelInfer"](request.SerializeToString(), Call())
        return answer

    return asyncio.run(call())


def over_http(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = (
        Service().send("POST", f"{PATH}/infer", json=json_question(rows), headers={RECEIPT_HEADER: "r-1"}).json()
    )
    return found


@pytest.mark.parametrize("raw", [False, True])
def test_both_doors_say_the_same(raw: bool) -> None:  # noqa: FBT001 - a case
    service = Service()
    wanted = over_http([ROW, OTHER])

    answer = ask(service, grpc_question([ROW, OTHER], raw=raw, id="7"))

    assert (answer.model_name, answer.model_version, answer.id) == ("flight_delay", "3", "7")
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.parameters.items()
    }
    assert parameters == wanted["parameters"]
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        (o["name"], o["datatype"], o["shape"]) for o in wanted["outputs"]
    ]
    probabilities, receipts = (each["data"] for each in wanted["outputs"])
    if raw:
        assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == probabilities
        assert [o.HasField("contents") for o in answer.outputs] == [False, False]
    else:
        assert list(answer.outputs[0].contents.fp64_contents) == probabilities
        assert [each.decode() for each in answer.outputs[1].contents.bytes_contents] == receipts
        assert len(answer.raw_output_contents) == 0
    assert [p.receipt for p in service.logged()] == receipts


def test_a_question_without_a_load_balancer_gets_receipts_all_the_same() -> None:
    service = Service()

    class Direct(Call):
        def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
            return ()

    request = grpc_question([ROW], raw=True)
    asyncio.run(_awaited(service.api.grpc._methods["ModelInfer"](request.SerializeToString(), Direct())))

    assert [p.receipt[14] for p in service.logged()] == ["7"]


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def raw_beside_typed() -> pb.ModelInferRequest:
    request = grpc_question([ROW], raw=False)
    request.raw_input_contents.extend([b""] * len(request.inputs))
    return request


def too_few_raw() -> pb.ModelInferRequest:
    request = grpc_question([ROW], raw=True)
    del request.raw_input_contents[-1]
    return request


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (raw_beside_typed(), 400, "got contents beside raw_input_contents"),
        (too_few_raw(), 400, "raw_input_contents: got 8, wanted one for each of 9 inputs"),
        (grpc_question([ROW], raw=True, model_version="2"), 404, "got flight_delay version 2"),
        (pb.ModelInferRequest(model_name="other"), 404, "model: got other"),
        (pb.ModelInferRequest(model_name="flight_delay"), 400, "is missing"),
        (grpc_question([{**ROW, "dest": "ZZZ"}], raw=False), 400, "row 0: dest"),
    ],
)
def test_a_wrong_question_is_refused_for_a_reason(request_: pb.ModelInferRequest, status: int, words: str) -> None:
    service = Service()

    with pytest.raises(Refused) as refusal:
        ask(service, request_)

    assert (refusal.value.problem.status, words in refusal.value.problem.detail) == (status, True)
    assert service.logged() == []


def test_bytes_that_are_no_message_are_refused() -> None:
    methods = Service().api.grpc._methods

    with pytest.raises(Refused, match=r"see proto/inference\.proto"):
        asyncio.run(_awaited(methods["ModelInfer"](b"\xff\xff", Call())))


def test_an_unknown_datatype_is_named_with_its_input() -> None:
    request = pb.ModelInferRequest(model_name="flight_delay")
    request.inputs.add(name="carrier", datatype="FP8", shape=[1])

    [tensor] = _tensors(request)

    assert (tensor.datatype, list(tensor.values)) == ("FP8", [])


def test_metadata_and_readiness_are_those_of_http() -> None:
    service = Service()
    methods = service.api.grpc._methods

    async def call(name: str, request: Any) -> Any:
        return await methods[name](request.SerializeToString(), Call())

    metadata = asyncio.run(call("ModelMetadata", pb.ModelMetadataRequest(name="flight_delay", version="3")))
    wanted = service.send("GET", PATH).json()
    assert (metadata.name, list(metadata.versions), metadata.platform) == (
        wanted["name"],
        wanted["versions"],
        wanted["platform"],
    )
    for given, shown in ((metadata.inputs, wanted["inputs"]), (metadata.outputs, wanted["outputs"])):
        assert [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in given] == shown
    assert asyncio.run(call("ServerMetadata", pb.ServerMetadataRequest())).name == "headway"
    assert asyncio.run(call("ServerLive", pb.ServerLiveRequest())).live
    assert asyncio.run(call("ServerReady", pb.ServerReadyRequest())).ready
    assert asyncio.run(call("ModelReady", pb.ModelReadyRequest(name="flight_delay"))).ready
    with pytest.raises(Refused, match="got flight_delay version 9"):
        asyncio.run(call("ModelReady", pb.ModelReadyRequest(name="flight_delay", version="9")))
