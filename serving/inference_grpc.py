"""The Open Inference Protocol over gRPC, beside HTTP in the replica's process: the contract is ``proto/inference.proto``.

Judging and answering is `serving.inference`. A question with raw contents, as Triton's clients send, is answered with raw
ones; one with typed contents with typed ones.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from uuid_utils import uuid7

from headway.adapters.haproxy import RECEIPT_HEADER
from headway.clock import monotonic_s
from headway.errors import InputRejected
from headway.problem import Problem
from serving.collector_limits import Refused
from serving.grpc_server import INFERENCE_SERVICE, GrpcServer, read_message
from serving.inference import Inference, Inferred, Question
from serving.inference_binary import binary_tensor, binary_values
from serving.inference_inputs import Tensor, Value
from serving.proto import inference_pb2 as pb
from serving.scoring import Arrival, Scoring

_CONTRACT = "proto/inference.proto"


class InferenceGrpc(GrpcServer):
    """The gRPC server of one model version. Belongs to the event loop it is started in."""

    def __init__(self, inference: Inference, scoring: Scoring, *, host: str, port: int, message_bytes: int) -> None:
        """Prepare; port 0 lets the system choose."""
        methods = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        super().__init__(INFERENCE_SERVICE, methods, host=host, port=port, message_bytes=message_bytes)
        self._inference = inference
        self._scoring = scoring

    # Any below: grpc and protobuf's messages have no types.

    async def _live(self, raw: bytes, context: Any) -> pb.ServerLiveResponse:
        del raw, context
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, raw: bytes, context: Any) -> pb.ServerReadyResponse:
        """It listens only after its golden answers were right."""
        del raw, context
        return pb.ServerReadyResponse(ready=True)

    async def _model_ready(self, raw: bytes, context: Any) -> pb.ModelReadyResponse:
        del context
        self._checked(pb.ModelReadyRequest, raw)
        return pb.ModelReadyResponse(ready=True)

    async def _server_metadata(self, raw: bytes, context: Any) -> pb.ServerMetadataResponse:
        del raw, context
        return pb.ServerMetadataResponse(**self._inference.server_metadata())

    async def _model_metadata(self, raw: bytes, context: Any) -> pb.ModelMetadataResponse:
        del context
        self._checked(pb.ModelMetadataRequest, raw)
        return pb.ModelMetadataResponse(**self._inference.model_metadata())

    async def _infer(self, raw: bytes, context: Any) -> pb.ModelInferResponse:
        began_s = monotonic_s()
        receipt = dict(context.invocation_metadata()).get(RECEIPT_HEADER) or str(uuid7())
        arrival = Arrival(at_us=self._scoring.now_us(), receipt=receipt, source="grpc")
        try:
            answer = await self._answered(_message(pb.ModelInferRequest, raw), arrival)
        except Refused as refusal:
            self._scoring.metrics.refused(refusal.problem)
            raise
        self._scoring.metrics.took("inference_grpc", monotonic_s() - began_s)
        return answer

    async def _answered(self, request: pb.ModelInferRequest, arrival: Arrival) -> pb.ModelInferResponse:
        try:
            tensors = list(_tensors(request))
        except InputRejected as error:
            raise Refused(Problem(400, "invalid-request", str(error))) from error
        question = Question(
            model=request.model_name,
            version=request.model_version,
            inputs=tensors,
            outputs=[output.name for output in request.outputs],
        )
        inferred = await self._inference.infer(question, arrival)
        return self._answer(request, inferred)

    def _checked(self, message: Any, raw: bytes) -> None:
        asked = _message(message, raw)
        self._inference.check_model(asked.name, asked.version)

    def _answer(self, request: pb.ModelInferRequest, inferred: Inferred) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(
            model_name=self._inference.name, model_version=self._inference.version, id=request.id
        )
        for name, value in inferred.parameters.items():
            if isinstance(value, bool):
                response.parameters[name].bool_param = value
            else:
                response.parameters[name].string_param = value
        for name, (datatype, values) in inferred.outputs.items():
            output = response.outputs.add(name=name, datatype=datatype, shape=[inferred.rows])
            if request.raw_input_contents:
                response.raw_output_contents.append(binary_values(datatype, values))
            elif datatype == "BYTES":
                output.contents.bytes_contents.extend(str(value).encode() for value in values)
            else:
                output.contents.fp64_contents.extend(values)
        return response


def _message(message: Any, raw: bytes) -> Any:
    return read_message(message, raw, kind="invalid-request", contract=_CONTRACT)


def _tensors(request: pb.ModelInferRequest) -> Iterable[Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputRejected(f"raw_input_contents: got {len(raw)}, wanted one for each of {len(request.inputs)} inputs")
    for place, given in enumerate(request.inputs):
        if raw:
            if given.HasField("contents"):
                raise InputRejected(f"input {given.name}: got contents beside raw_input_contents, wanted one of them")
            yield binary_tensor(given.name, given.datatype, given.shape, raw[place])
        else:
            values = _typed(given.contents, given.datatype)
            yield Tensor(name=given.name, datatype=given.datatype, shape=tuple(given.shape), values=values)


def _typed(contents: Any, datatype: str) -> Sequence[Value]:
    match datatype:
        case "BYTES":
            return list(contents.bytes_contents)
        case "INT64":
            return list(contents.int64_contents)
        case "FP64":
            return list(contents.fp64_contents)
        case "BOOL":
            return list(contents.bool_contents)
        case _:
            return []  # the datatype is refused with its name, where the field is known
