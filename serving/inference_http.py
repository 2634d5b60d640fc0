"""The Open Inference Protocol over HTTP, under ``/v2``: JSON, and the binary data extension that Triton's clients use.

An answer's refusal is an RFC 9457 problem with one member more, ``error``, which the protocol's clients read. Compressed
bodies are refused: a question is a few kilobytes.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from headway.errors import InputRejected
from headway.problem import Problem
from serving.asgi import Answer, Header, Receive, Scope, json_answer, read_body
from serving.collector_limits import Refused
from serving.inference import Inference, Inferred, Question
from serving.inference_binary import binary_tensor, binary_values
from serving.inference_inputs import Tensor
from serving.prediction_metrics import PredictionMetrics
from serving.scoring import Arrival

PREFIX = "/v2"
HEADER_LENGTH = "inference-header-content-length"
_LENGTH = HEADER_LENGTH.encode()
_OCTETS: Header = (b"content-type", b"application/octet-stream")
_PROBLEM: Header = (b"content-type", b"application/problem+json")


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    parameters: dict[str, Any] = {}


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


_ASKED = msgspec.json.Decoder(_Asked)


class InferenceHttp:
    """Answers what is under ``/v2``."""

    def __init__(self, inference: Inference, metrics: PredictionMetrics, *, body_bytes: int) -> None:
        self._inference = inference
        self._metrics = metrics
        self._body_bytes = body_bytes

    def get(self, path: str) -> Answer:
        """Answer health and metadata; ``path`` is whole."""
        try:
            return json_answer(self._told(path.removeprefix(PREFIX).strip("/").split("/")))
        except Refused as refusal:
            return refused(refusal)

    async def infer(self, path: str, scope: Scope, receive: Receive, arrival: Arrival) -> Answer:
        """Answer ``/v2/models/<name>[/versions/<version>]/infer``."""
        try:
            match path.removeprefix(PREFIX).strip("/").split("/"):
                case ["models", name, "infer"]:
                    version = ""
                case ["models", name, "versions", version, "infer"]:
                    pass
                case _:
                    raise _not_found(path)
            question, asked = await self._question(name, version, scope, receive)
            inferred = await self._inference.infer(question, arrival)
        except Refused as refusal:
            self._metrics.refused(refusal.problem)
            return refused(refusal)
        return _answer(self._inference, asked, inferred)

    def _told(self, parts: list[str]) -> dict[str, Any]:  # Any: a JSON document
        match parts:
            case [""]:
                return self._inference.server_metadata()
            case ["health", "live"]:
                return {"live": True}
            case ["health", "ready"]:  # it listens only after its golden answers were right
                return {"ready": True}
            case ["models", name, *rest] if rest[:1] != ["infer"]:
                version = rest[1] if len(rest) > 1 and rest[0] == "versions" else ""
                self._inference.check_model(name, version)
                match rest[2:] if version else rest:
                    case []:
                        return self._inference.model_metadata()
                    case ["ready"]:
                        return {"name": name, "ready": True}
        raise _not_found("/".join((PREFIX, *parts)))

    async def _question(self, name: str, version: str, scope: Scope, receive: Receive) -> tuple[Question, _Asked]:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            got = headers[b"content-encoding"].decode("latin-1")
            raise Refused(Problem(415, "unsupported-media-type", f"content-encoding: got {got!r}, wanted none"))
        raw = await read_body(receive, self._body_bytes)
        if raw is None:
            raise Refused(Problem(413, "too-large", f"body: more than {self._body_bytes} bytes; ask in parts"))
        try:
            asked, tensors = _parsed(raw, headers.get(_LENGTH))
        except InputRejected as error:
            raise Refused(Problem(400, "invalid-request", str(error))) from error
        question = Question(
            model=name, version=version, inputs=tensors, outputs=[output.name for output in asked.outputs]
        )
        return question, asked


def refused(refusal: Refused) -> Answer:
    """Return a problem that the protocol's clients can read too."""
    document = {**refusal.problem.document(), "error": refusal.problem.detail}
    return Answer(refusal.problem.status, msgspec.json.encode(document), (_PROBLEM, *refusal.headers))


def _not_found(path: str) -> Refused:
    wanted = "/v2, /v2/health/live, /v2/health/ready or /v2/models/<name>[/versions/<version>][/ready|/infer]"
    return Refused(Problem(404, "not-found", f"{path}: wanted {wanted}"))


def _parsed(raw: bytes, header_length: bytes | None) -> tuple[_Asked, list[Tensor]]:
    split = len(raw)
    if header_length is not None:
        split = int(header_length) if header_length.isdigit() and len(header_length) < 10 else len(raw) + 1
        if split > len(raw):
            got = header_length.decode("latin-1")
            raise InputRejected(f"{HEADER_LENGTH}: got {got}, wanted at most the body's {len(raw)} bytes")
    try:
        asked = _ASKED.decode(raw[:split])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputRejected(f"body: {error}") from error
    for output in asked.outputs:
        if odd := output.parameters.keys() - {"binary_data"}:
            raise InputRejected(f"output {output.name}: got parameter {min(odd)!r}, wanted binary_data alone")
    tensors = []
    for each in asked.inputs:
        size = each.parameters.get("binary_data_size")
        if size is None:
            tensors.append(_json_tensor(each))
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - split:
            raise InputRejected(f"input {each.name}: binary_data_size is {size!r}, {len(raw) - split} bytes are left")
        tensors.append(binary_tensor(each.name, each.datatype, each.shape, raw[split : split + size]))
        split += size
    if split != len(raw):
        raise InputRejected(f"body: {len(raw) - split} bytes after the last tensor, wanted none")
    return asked, tensors


def _json_tensor(given: _Input) -> Tensor:
    if given.data is None:
        raise InputRejected(f"input {given.name}: got neither data nor binary_data_size, wanted one of them")
    nested = bool(given.data) and all(isinstance(row, list) for row in given.data)
    values = [value for row in given.data for value in row] if nested else given.data
    return Tensor(name=given.name, datatype=given.datatype, shape=given.shape, values=values)


def _answer(inference: Inference, asked: _Asked, inferred: Inferred) -> Answer:
    all_binary = asked.parameters.get("binary_data_output") is True
    binary = {output.name: output.parameters.get("binary_data", all_binary) is True for output in asked.outputs}
    outputs: list[dict[str, Any]] = []  # Any: JSON documents
    tail: list[bytes] = []
    for name, (datatype, values) in inferred.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [inferred.rows]}
        if binary.get(name, all_binary):
            tail.append(binary_values(datatype, values))
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            output["data"] = values
        outputs.append(output)
    document = {
        "model_name": inference.name,
        "model_version": inference.version,
        **({"id": asked.id} if asked.id else {}),
        "parameters": dict(inferred.parameters),
        "outputs": outputs,
    }
    if not tail:
        return json_answer(document)
    head = msgspec.json.encode(document)
    return Answer(200, b"".join((head, *tail)), (_OCTETS, (_LENGTH, b"%d" % len(head))))
