"""Records of the feature job on Kafka: inputs of stage 2 and rows of the changelog (SEMANTICS S3, S4)."""

import msgspec

from headway.features.columns import Value
from headway.features.windows import Row

KEY_SEPARATOR = "\x1f"


class FeatureInput(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One event as one entity of one view sees it."""

    view: str
    key: tuple[str, ...]
    event_id: str
    time_us: int
    values: dict[str, Value]
    tick_before_us: int | None


_INPUT = msgspec.json.Decoder(FeatureInput)
_ROW = msgspec.json.Decoder(Row)


def partition_key(view: str, key: tuple[str, ...]) -> bytes:
    """Return what decides the partition of an entity's inputs, state and changelog: view and entity."""
    return KEY_SEPARATOR.join((view, *key)).encode()


def row_key(key: tuple[str, ...]) -> bytes:
    """Return the record key of a changelog row: the entity."""
    return KEY_SEPARATOR.join(key).encode()


def encode_input(item: FeatureInput) -> bytes:
    """Return the bytes of a feature input."""
    return msgspec.json.encode(item)


def decode_input(raw: bytes) -> FeatureInput:
    """Return the feature input in the bytes.

    Raises:
        msgspec.DecodeError: the bytes are no feature input.
    """
    return _INPUT.decode(raw)


def encode_row(row: Row) -> bytes:
    """Return the bytes of a changelog row."""
    return msgspec.json.encode(row)


def decode_row(raw: bytes) -> Row:
    """Return the changelog row in the bytes.

    Raises:
        msgspec.DecodeError: the bytes are no changelog row.
    """
    return _ROW.decode(raw)
