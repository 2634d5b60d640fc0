"""Questions of the Open Inference Protocol about flights: as JSON, with binary tensors, and as gRPC messages."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from serving.proto import inference_pb2 as pb
from tests.prediction_world import AS_OF
from tests.serving_world import FLIGHT

MODEL = "flight_delay"
PATH = f"/v2/models/{MODEL}"
DATATYPES = {name: "INT64" if isinstance(value, int) else "BYTES" for name, value in FLIGHT.items()} | {
    "as_of": "BYTES"
}
ROW: dict[str, Any] = {**FLIGHT, "as_of": AS_OF}
OTHER: dict[str, Any] = {**ROW, "dest": "BOS", "carrier": "B6", "tail": None}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def packed(datatype: str, values: Sequence[Any]) -> bytes:
    """Values as the binary extension has them; no text for a null."""
    if datatype == "INT64":
        return np.array(values, dtype="<i8").tobytes()
    texts = [b"" if value is None else str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def json_question(rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "datatype": DATATYPES[name], "shape": [len(rows)], "data": values}
        for name, values in columns(rows).items()
    ]
    return {"inputs": inputs, **more}


def binary_question(rows: Sequence[Mapping[str, Any]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers, each tensor of shape [N, 1]."""
    tails = {name: packed(DATATYPES[name], values) for name, values in columns(rows).items()}
    inputs = [
        {
            "name": name,
            "datatype": DATATYPES[name],
            "shape": [len(rows), 1],
            "parameters": {"binary_data_size": len(tail)},
        }
        for name, tail in tails.items()
    ]
    head = msgspec.json.encode({"inputs": inputs, **more})
    return head + b"".join(tails.values()), {"inference_header_content_length": str(len(head))}


def grpc_question(rows: Sequence[Mapping[str, Any]], *, raw: bool, **more: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=MODEL, **more)
    for name, values in columns(rows).items():
        given = request.inputs.add(name=name, datatype=DATATYPES[name], shape=[len(rows)])
        if raw:
            request.raw_input_contents.append(packed(DATATYPES[name], values))
        elif DATATYPES[name] == "INT64":
            given.contents.int64_contents.extend(values)
        else:
            given.contents.bytes_contents.extend(b"" if value is None else str(value).encode() for value in values)
    return request
