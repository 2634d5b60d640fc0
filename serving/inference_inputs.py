"""What the tensors of an Open Inference question say: one request for each row, and the features where they come along.

The inputs are the fields of the product's request, and beside them either none or all of the features of its views, named
``<view>:<feature>``: with them nothing is read online. Refuses what is not exactly as declared, naming input and row. What
bites: binary tensors have no null, so an empty text and a NaN stand for one, where there may be one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import inspect

from headway.errors import ContractViolation, InputRejected
from headway.features.services import feature_service
from headway.online_features import GivenViews
from headway.product import Product
from headway.vector import Number

Datatype = Literal["BYTES", "INT64", "FP64", "BOOL"]
Value = str | bytes | int | float | bool | None

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


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """An input of the model: one field of the product's request."""

    name: str
    datatype: Datatype
    nullable: bool
    required: bool


class Tensor(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An input as it came: nothing of it is judged yet. ``values`` are in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Value]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The rows of a question: requests of the product's own type, and their views where they were given."""

    requests: list[Any]
    given: Sequence[GivenViews] | None


class Inputs:
    """The inputs of one product's model."""

    def __init__(self, product: Product, *, limit: int) -> None:
        """Take at most ``limit`` rows; raises ContractViolation when a field of the request has no tensor."""
        self._product = product
        self._limit = limit
        self.fields = {field.name: field for field in request_fields(product)}
        self._required = [field.name for field in self.fields.values() if field.required]
        served = feature_service(product).served
        self._views = [[f"{each.name}:{name}" for name in each.features] for each in served]
        whole = [each.view.columns[name] == "int64" for each in served for name in each.features]
        self.features = dict(zip([name for view in self._views for name in view], whole, strict=True))
        self._numbers = [Field(name=name, datatype="FP64", nullable=True, required=True) for name in self.features]

    def asked(self, tensors: Sequence[Tensor]) -> Asked:
        """Return the rows of tensors.

        Raises:
            InputRejected: a tensor is missing, unknown, or not as declared; or a row is no request.
        """
        named = {tensor.name: tensor for tensor in tensors}
        if len(named) < len(tensors):
            raise InputRejected(f"inputs: got {[tensor.name for tensor in tensors]}, wanted each name once")
        given = {name: tensor for name, tensor in named.items() if name in self.features}
        of_request = {name: tensor for name, tensor in named.items() if name not in given}
        self._check_names(of_request, given)
        rows = tensors[0].shape[0] if tensors and tensors[0].shape else 0
        if not 0 < rows <= self._limit:
            raise InputRejected(f"inputs: got {rows} rows, wanted 1 to {self._limit}; ask in parts")
        columns = [_column(self.fields[name], tensor, rows) for name, tensor in of_request.items()]
        requests = [
            self._request(place, dict(zip(of_request, row, strict=True)))
            for place, row in enumerate(zip(*columns, strict=True))
        ]
        return Asked(requests=requests, given=self._given(given, rows) if given else None)

    def _check_names(self, of_request: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        if unknown := sorted(of_request.keys() - self.fields.keys()):
            raise InputRejected(f"inputs: got {unknown[0]!r}, wanted {', '.join(self.fields)}")
        if missing := [name for name in self._required if name not in of_request]:
            raise InputRejected(f"inputs: {missing[0]!r} is missing, wanted {', '.join(self._required)}")
        if given and (missing := [name for name in self.features if name not in given]):
            raise InputRejected(f"inputs: {missing[0]!r} is missing; wanted all features of all views, or none of them")

    def _given(self, tensors: Mapping[str, Tensor], rows: int) -> Sequence[GivenViews]:
        columns = {
            field.name: _feature(field, tensors[field.name], rows, whole=self.features[field.name])
            for field in self._numbers
        }
        by_view = [list(zip(*(columns[name] for name in view), strict=True)) for view in self._views]
        return list(zip(*by_view, strict=True))

    def _request(self, place: int, document: dict[str, Any]) -> Any:
        try:
            return self._product.request_from(document)
        except InputRejected as error:
            raise InputRejected(f"row {place}: {error}") from error


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


def _feature(field: Field, tensor: Tensor, rows: int, *, whole: bool) -> list[Number]:
    column = _column(field, tensor, rows)
    if not whole:
        return column  # type: ignore[return-value]  # numbers and nulls, as judged
    return [_whole(field.name, value, place) for place, value in enumerate(column)]


def _whole(name: str, value: Value, place: int) -> int | None:
    """A count or an instant: as the store has it, an int."""
    if value is None:
        return None
    number = float(value)
    if not number.is_integer():
        raise InputRejected(f"input {name}[{place}]: got {value!r}, wanted a whole number")
    return int(number)


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
