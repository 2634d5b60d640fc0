"""Tensors as bytes, as the binary data extension and gRPC's raw contents have them: little-endian, row-major, no padding.

A text is its length in four bytes, then its bytes. Refuses what does not fill its size exactly.
"""

import struct
from collections.abc import Sequence

import numpy as np

from headway.errors import InputRejected
from serving.inference_inputs import Datatype, Tensor, Value

_NUMBERS = {"INT64": "<i8", "FP64": "<f8", "BOOL": "?"}
# Of one value alone numpy costs fifteen times as much, and a question has a tensor for each of its fields and features.
_SINGLE = {"INT64": struct.Struct("<q"), "FP64": struct.Struct("<d"), "BOOL": struct.Struct("?")}
_LENGTH = struct.Struct("<I")


def binary_tensor(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """Return the tensor in its bytes.

    Raises:
        InputRejected: the bytes are not whole values, or the datatype is none of ours.
    """
    values: Sequence[Value]
    if datatype == "BYTES":
        values = _texts(name, raw)
    elif datatype in _NUMBERS and len(raw) == _SINGLE[datatype].size:
        values = _SINGLE[datatype].unpack(raw)
    elif datatype in _NUMBERS:
        kind = np.dtype(_NUMBERS[datatype])
        if len(raw) % kind.itemsize:
            raise InputRejected(f"input {name}: got {len(raw)} bytes, wanted {kind.itemsize} for each {datatype}")
        values = np.frombuffer(raw, kind).tolist()
    else:
        raise InputRejected(f"input {name}: got datatype {datatype}, wanted BYTES, {', '.join(_NUMBERS)}")
    return Tensor(name=name, datatype=datatype, shape=tuple(shape), values=values)


def binary_values(datatype: Datatype, values: Sequence[float] | Sequence[str]) -> bytes:
    """Return an output's bytes."""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    if len(values) == 1:
        return _SINGLE[datatype].pack(values[0])
    return np.array(values, dtype=_NUMBERS[datatype]).tobytes()


def _texts(name: str, raw: bytes) -> list[Value]:
    texts: list[Value] = []
    place = 0
    while place < len(raw):
        start = place + _LENGTH.size
        length = _LENGTH.unpack_from(raw, place)[0] if start <= len(raw) else len(raw)
        place = start + length
        if place > len(raw):
            raise InputRejected(f"input {name}[{len(texts)}]: got fewer bytes than its length says, wanted all of it")
        texts.append(raw[start:place])
    return texts
