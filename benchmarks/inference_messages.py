"""Questions of P3 in the Open Inference Protocol over gRPC, as bytes, and the check that their answers are right.

All with raw contents, as Triton's clients send them.
"""

from collections.abc import Sequence

import grpc
import numpy as np

from benchmarks.flights_model import PRODUCT
from benchmarks.request_path import RequestPath, require_scores
from headway.commands import Say
from serving.grpc_server import INFERENCE_SERVICE
from serving.inference_binary import binary_values
from serving.proto import inference_pb2 as pb

METHOD = f"/{INFERENCE_SERVICE}/ModelInfer"
PEER = "peer"


def given_messages(path: RequestPath) -> list[bytes]:
    """The same questions as over HTTP: every field of the request and every feature is a tensor of its own."""
    messages = []
    for question in path.given_questions():
        message = pb.ModelInferRequest(model_name=PRODUCT.name)
        for tensor in question["inputs"]:
            message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            [value] = tensor["data"]
            if value is None:
                value = "" if tensor["datatype"] == "BYTES" else np.nan
            message.raw_input_contents.append(binary_values(tensor["datatype"], [value]))
        message.outputs.add(name="probability")
        messages.append(message.SerializeToString())
    return messages


def row_messages(path: RequestPath) -> list[bytes]:
    """The same rows as what the model is asked in the end: one tensor with the whole vector."""
    messages = []
    for vector in path.vectors:
        message = pb.ModelInferRequest(model_name=PEER)
        message.inputs.add(name="row", datatype="FP64", shape=[1, len(vector)])
        message.raw_input_contents.append(np.ascontiguousarray(vector).tobytes())
        messages.append(message.SerializeToString())
    return messages


def check_messages(address: str, messages: Sequence[bytes], path: RequestPath, say: Say) -> None:
    """Compare what a contestant answers with the model's own scores, bit for bit.

    Raises:
        ContractViolation: one differs.
    """
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
        answers = [ask(message, timeout=10) for message in messages]
    require_scores(address, [float(np.frombuffer(each.raw_output_contents[0])[0]) for each in answers], path, say)
