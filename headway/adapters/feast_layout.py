"""The bytes of Feast's online layout in Redis, written and read without importing Feast.

One hash per entity: its key is Feast's entity key (serialisation version 3) and the project; a field per feature named by
a 32-bit hash holds a ``feast.types.Value``; the field ``_ts:<view>`` holds a ``google.protobuf.Timestamp``. Only what our
views use is spoken: string keys, int64, double and unset values. ``tests/contract/test_online_store.py`` holds every
function here to Feast's own; importing Feast instead would cost each feature writer and serving replica over 6 s.

The one thing that bites: 32-bit field names can collide. Within a view that is refused; over two views of one entity
(20 features each) it has odds of 1 in 10 million and would show as one feature overwriting another.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

import mmh3

from headway.errors import ContractViolation

Value = int | float | None

# Feast's ValueType number of a string, and field tags of feast.types.Value and google.protobuf.Timestamp.
_STRING = 2
_INT64_TAG, _DOUBLE_TAG = 0x20, 0x29
_SECONDS_TAG, _NANOS_TAG = 0x08, 0x10
_DOUBLE, _TAGGED_DOUBLE = struct.Struct("<d"), struct.Struct("<Bd")
_LENGTH_OF_STRING = struct.Struct("<II")


def entity_key(project: str, keys: Mapping[str, str]) -> bytes:
    """Feast's Redis key of an entity: serialisation version 3 of sorted string join keys, then the project."""
    names = tuple(sorted(keys))
    return _entity_keys(project, names).of([keys[name] for name in names])


class EntityKeys:
    """Redis keys of entities that share their join keys; what is the same in all of them is encoded once."""

    def __init__(self, project: str, names: Sequence[str]) -> None:
        self.names = tuple(sorted(names))
        encoded = [name.encode() for name in self.names]
        self._head = struct.pack("<I", len(encoded)) + b"".join(
            _LENGTH_OF_STRING.pack(_STRING, len(name)) + name for name in encoded
        )
        self._tail = project.encode()

    def of(self, values: Sequence[str]) -> bytes:
        """Return the key of the entity with these values, which stand in the order of ``names``."""
        parts = [self._head]
        for value in values:
            encoded = value.encode()
            parts += (_LENGTH_OF_STRING.pack(_STRING, len(encoded)), encoded)
        parts.append(self._tail)
        return b"".join(parts)


def encode_value(value: Value) -> bytes:
    """``value`` as a serialised ``feast.types.Value``: int64, double, or unset for None."""
    if value is None:
        return b""
    if type(value) is int and -(2**63) <= value < 2**63:
        return bytes((_INT64_TAG,)) + _varint(value & (2**64 - 1))
    if isinstance(value, float):
        return _TAGGED_DOUBLE.pack(_DOUBLE_TAG, value)
    raise ContractViolation(f"online store: a feature value is {value!r}; wanted int within 64 bits, float or None")


def decode_value(data: bytes | None) -> Value:
    """The value of a serialised ``feast.types.Value``; None when it is unset or absent."""
    if not data:
        return None
    if data[0] == _DOUBLE_TAG:
        return _read_double(data)
    if data[0] == _INT64_TAG:
        number, _ = _read_varint(data, 1)
        return number - 2**64 if number >= 2**63 else number
    raise ContractViolation(f"online store: a value starts with tag {data[0]:#x}; wanted int64 or double")


@lru_cache(maxsize=4096)  # windows of many entities end at one instant
def encode_timestamp(event_timestamp_us: int) -> bytes:
    """Microseconds UTC as a serialised ``google.protobuf.Timestamp``."""
    seconds, micros = divmod(event_timestamp_us, 1_000_000)
    encoded = bytes((_SECONDS_TAG,)) + _varint(seconds) if seconds else b""
    return encoded + bytes((_NANOS_TAG,)) + _varint(micros * 1_000) if micros else encoded


def decode_timestamp(data: bytes | None) -> int | None:
    """Microseconds UTC of a serialised ``google.protobuf.Timestamp`` at or after 1970; None when absent."""
    if data is None:
        return None
    position, parts = 0, {_SECONDS_TAG: 0, _NANOS_TAG: 0}
    while position < len(data):
        tag = data[position]
        parts[tag], position = _read_varint(data, position + 1)
    return parts[_SECONDS_TAG] * 1_000_000 + parts[_NANOS_TAG] // 1_000


@lru_cache(maxsize=4096)
def hash_fields(view: str, features: tuple[str, ...]) -> tuple[bytes, ...]:
    """Feast's hash fields of ``features``, then the view's timestamp field."""
    fields = [struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False)) for feature in features]
    if len(set(fields)) != len(fields):
        raise ContractViolation(f"{view}: two feature names share Feast's 32-bit hash field; rename one of {features}")
    return (*fields, f"_ts:{view}".encode())


@lru_cache(maxsize=4096)
def _entity_keys(project: str, names: tuple[str, ...]) -> EntityKeys:
    return EntityKeys(project, names)


def _read_double(data: bytes) -> float:
    value: float = _DOUBLE.unpack_from(data, 1)[0]
    return value


def _varint(number: int) -> bytes:
    if number <= 0x7F:  # most counts and delays fit one byte
        return bytes((number,))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and the position after it."""
    if data[position] < 0x80:  # most counts and delays fit one byte
        return data[position], position + 1
    number = shift = 0
    while True:
        byte = data[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position
