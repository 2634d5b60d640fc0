"""The Open Inference Protocol v2 over any transport: tensors in, one row of them a request; probabilities and receipts out.

The inputs of a product's model are the fields of its request, each a tensor of shape [N] or [N, 1]; features are read
online, as for JSON. `serving.inference_http` and `serving.inference_grpc` only carry bytes to and from this. Refuses a
question as a whole when one of its rows is wrong, naming it, because the protocol has no answer for a part; then nothing
is logged. What bites: binary tensors have no null, so an empty text stands for one where the field may be null.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import inspect

from headway.clock import format_us
from headway.errors import ContractViolation, HeadwayError, InputRejected
from headway.problem import Problem
from headway.product import Product
from serving.collector_limits import Refused
from serving.scoring import Arrival, Scored, Scoring

Datatype = Literal["BYTES", "INT64", "FP64", "BOOL"]
Value = str | bytes | int | float | bool | None
Parameters = Mapping[str, str | bool]

SERVER = "headway"
PROTOCOL_VERSION = "2"
EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "lightgbm_text"
_TYPES: Mapping[type, Datatype] = {
    inspect.StrType: "BYTES",
    inspect.LiteralType: "BYTES",
    inspect.DateTimeType: "BYTES",
    inspect.IntType: "INT64",
    inspect.FloatType: "FP64",
    inspect.BoolType: "BOOL",
}
_PLAIN: Mapping[Datatype, tuple[type, ...]] = {
    "BYTES": (str, bytes), "INT64": (int,), "FP64": (float, int), "BOOL": (bool,)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Field:
    """An input of the model: one field of the product's request."""

    name: str
    datatype: Datatype
    nullable: bool
    required: bool


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input as it came: nothing of it is judged yet. ``values`` are in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Value]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a client asks of a model; ``outputs`` empty for all of them, ``version`` empty for the one that serves."""

    model: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """The answer: outputs by name, in the order asked for, one value for each of ``rows``."""

    rows: int
    outputs: Mapping[str, tuple[Datatype, list[float] | list[str]]]
    parameters: Parameters


# Outputs and what they hold.
OUTPUTS: Mapping[str, Datatype] = {"probability": "FP64", "receipt": "BYTES"}


class Inference:
    """One model version as the protocol sees it."""

    def __init__(self, scoring: Scoring) -> None:
        """Raises ContractViolation when a field of the request has no tensor."""
        self._scoring = scoring
        self.limit = scoring.parts.rows
        self.name, self.version = scoring.model.name, str(scoring.model.version)
        self.fields = {field.name: field for field in request_fields(scoring.parts.product)}
        self._required = [field.name for field in self.fields.values() if field.required]

    def check_model(self, name: str, version: str) -> None:
        """Refuse another model, or another version of this one.

        Raises:
            Refused: it is not here.
        """
        if name != self.name or version not in ("", self.version):
            wanted = f"{self.name} or its version {self.version}"
            got = f"{name} version {version}" if version else name
            raise Refused(Problem(404, "no-such-model", f"model: got {got}, wanted {wanted}"))

    def server_metadata(self) -> dict[str, Any]:  # Any: a JSON document
        """Return what the server says of itself."""
        return {"name": SERVER, "version": PROTOCOL_VERSION, "extensions": list(EXTENSIONS)}

    def model_metadata(self) -> dict[str, Any]:  # Any: a JSON document
        """Return what the model takes and gives."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [_described(field.name, field.datatype) for field in self.fields.values()],
            "outputs": [_described(name, datatype) for name, datatype in OUTPUTS.items()],
        }

    async def infer(self, question: Question, arrival: Arrival) -> Inferred:
        """Return the probabilities of a question's rows, each logged under its receipt.

        Raises:
            Refused: model, inputs or outputs are not what is here, or a row cannot be answered.
        """
        try:
            return await self._infer(question, arrival)
        except HeadwayError as error:
            raise Refused(self._scoring.refused(error, arrival)) from error

    async def _infer(self, question: Question, arrival: Arrival) -> Inferred:
        self.check_model(question.model, question.version)
        wanted = list(question.outputs) or list(OUTPUTS)
        if unknown := [name for name in wanted if name not in OUTPUTS]:
            raise InputRejected(f"outputs: got {unknown[0]!r}, wanted {', '.join(OUTPUTS)}")
        requests = self.requests(question.inputs)
        answers = await self._scoring.each(requests, arrival)
        scored: list[Scored] = []
        for place, answer in enumerate(answers):
            if isinstance(answer, Problem):
                raise Refused(Problem(answer.status, answer.kind, f"row {place}: {answer.detail}"))
            scored.append(answer)
        for each in scored:
            self._scoring.log(each)
        given: dict[str, list[float] | list[str]] = {
            "probability": [each.prediction.probability for each in scored],
            "receipt": [each.prediction.receipt for each in scored],
        }
        return Inferred(
            rows=len(scored),
            outputs={name: (OUTPUTS[name], given[name]) for name in wanted},
            parameters=self._parameters(scored[0]),
        )

    def requests(self, tensors: Sequence[Tensor]) -> list[Any]:  # Any: the product's own type
        """Return the requests in the rows of tensors.

        Raises:
            InputRejected: a tensor is missing, unknown, or not as the field is; or a row is no request.
        """
        named = {tensor.name: tensor for tensor in tensors}
        if len(named) < len(tensors):
            raise InputRejected(f"inputs: got {[tensor.name for tensor in tensors]}, wanted each name once")
        if unknown := sorted(named.keys() - self.fields.keys()):
            raise InputRejected(f"inputs: got {unknown[0]!r}, wanted {', '.join(self.fields)}")
        if missing := [name for name in self._required if name not in named]:
            raise InputRejected(f"inputs: {missing[0]!r} is missing, wanted {', '.join(self._required)}")
        rows = tensors[0].shape[0] if tensors and tensors[0].shape else 0
        if not 0 < rows <= self.limit:
            raise InputRejected(f"inputs: got {rows} rows, wanted 1 to {self.limit}; ask in parts")
        columns = [_column(self.fields[name], tensor, rows) for name, tensor in named.items()]
        return [
            self._request(place, dict(zip(named, row, strict=True)))
            for place, row in enumerate(zip(*columns, strict=True))
        ]

    def _request(self, place: int, document: dict[str, Any]) -> Any:
        try:
            return self._scoring.parts.product.request_from(document)
        except InputRejected as error:
            raise InputRejected(f"row {place}: {error}") from error

    def _parameters(self, first: Scored) -> Parameters:
        prediction, read = first.prediction, first.read
        return {
            "model_version": self.version,
            "model_digest": prediction.model.digest,
            "as_of": format_us(prediction.as_of_us),
            "watermark": "" if read.watermark_us is None else format_us(read.watermark_us),
            "stale": ",".join(prediction.stale),
            "degraded": prediction.degraded,
        }


def request_fields(product: Product) -> Iterable[Field]:
    """Return the inputs of a product's model.

    Raises:
        ContractViolation: a field is of a type that has no tensor.
    """
    described = inspect.type_info(product.request)
    assert isinstance(described, inspect.StructType), "a product's request is a Struct"
    for field in described.fields:
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        given = [kind for kind in map(_unwrapped, kinds) if not isinstance(kind, inspect.NoneType)]
        datatype = _TYPES.get(type(given[0])) if len(given) == 1 else None
        if datatype is None:
            wanted = "text, instant, number or truth value, or one of them and None"
            raise ContractViolation(
                f"product {product.name}: request field {field.name} has no tensor; wanted {wanted}"
            )
        yield Field(
            name=field.encode_name, datatype=datatype, nullable=len(given) < len(kinds), required=field.required
        )


def _unwrapped(kind: inspect.Type) -> inspect.Type:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def _described(name: str, datatype: Datatype) -> dict[str, Any]:  # Any: a JSON document
    return {"name": name, "datatype": datatype, "shape": [-1]}


def _column(field: Field, tensor: Tensor, rows: int) -> list[Value]:
    where = f"input {field.name}"
    if tensor.datatype != field.datatype:
        raise InputRejected(f"{where}: got datatype {tensor.datatype}, wanted {field.datatype}")
    if tensor.shape not in ((rows,), (rows, 1)):
        raise InputRejected(f"{where}: got shape {list(tensor.shape)}, wanted [{rows}] or [{rows}, 1]")
    if len(tensor.values) != rows:
        raise InputRejected(f"{where}: got {len(tensor.values)} values, wanted {rows}")
    return [_value(field, value, place) for place, value in enumerate(tensor.values)]


def _value(field: Field, value: Value, place: int) -> Value:
    plain = _PLAIN[field.datatype]
    empty = value in ("", b"") if field.datatype == "BYTES" else isinstance(value, float) and math.isnan(value)
    if field.nullable and (value is None or empty):
        return None
    # A truth value is an int to Python.
    if not isinstance(value, plain) or (isinstance(value, bool) and field.datatype != "BOOL"):
        raise InputRejected(f"input {field.name}[{place}]: got {value!r}, wanted {field.datatype}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputRejected(f"input {field.name}[{place}]: got {value}, wanted a finite number")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputRejected(f"input {field.name}[{place}]: {error}; wanted UTF-8") from error
    return value
