"""The records of a ``state.<view>`` topic: keys people can read, values in MessagePack (SEMANTICS S5).

Three kinds of record live side by side in the compacted topic, in the partition of the task that wrote them: one per
live tile, one per entity for ``last_ever``, and one for the task itself. No record holds a feature value: values are
recomputed from tiles, never restored.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from headway.features.columns import Partial, Stamped
from headway.features.tiles import Entry, Key

META_KEY = b'["task"]'


class TileRecord(msgspec.Struct, array_like=True):
    """One live tile: its entries while it is open, one partial per column once it is sealed."""

    entries: list[Entry] | None
    partials: list[Partial | None] | None


class TaskRecord(msgspec.Struct):
    """Where a task stands: what it computes, the last tick of every source partition, and what it refused."""

    digest: str
    ticks: dict[int, int | None]
    bootstrap_us: int | None
    too_late: int
    duplicates: int
    before_bootstrap: int


@dataclass(frozen=True, kw_only=True)
class TileKey:
    """Names a tile of an entity."""

    key: Key
    tile: int


@dataclass(frozen=True, kw_only=True)
class EverKey:
    """Names the ``last_ever`` values of an entity."""

    key: Key


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """Names the task's own record."""


def tile_key(key: Key, tile: int) -> bytes:
    """Return the record key of a tile."""
    return msgspec.json.encode(["tile", key, tile])


def ever_key(key: Key) -> bytes:
    """Return the record key of an entity's ``last_ever`` values."""
    return msgspec.json.encode(["ever", key])


def parse_key(raw: bytes) -> TileKey | EverKey | TaskKey:
    """Return what a record key names."""
    kind, *rest = msgspec.json.decode(raw, type=list[Any])  # Any: three shapes, told apart by the first item
    if kind == "tile":
        return TileKey(key=tuple(rest[0]), tile=rest[1])
    return EverKey(key=tuple(rest[0])) if kind == "ever" else TaskKey()


encode = msgspec.msgpack.Encoder().encode
decode_tile = msgspec.msgpack.Decoder(TileRecord).decode
decode_task = msgspec.msgpack.Decoder(TaskRecord).decode
decode_ever = msgspec.msgpack.Decoder(list[Stamped | None]).decode
