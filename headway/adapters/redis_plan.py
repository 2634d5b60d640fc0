"""The read of several views as Redis sees it: what does not depend on the rows is put together once.

Views that share an entity are one HMGET of all their fields, since Feast keeps them in one hash; entities that several
rows name are asked for once. Watermarks and marks are asked for before rows, so that everything at or before a returned
watermark is in them. A row's instant is read from the guard's field, which the writer sets together with Feast's own and
which has the revision too. Pure: bytes out, replies in.

What bites: replies belong to commands by position alone, so `commands` and `rows` must see the same rows.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import hiredis

from headway.adapters.feast_layout import EntityKeys, decode_value, hash_fields
from headway.adapters.redis_marks import MARK, WATERMARK, guard_field, row_version, view_state, watermark_key
from headway.features.online import Keys, OnlineRows, OnlineView, StoredRow

# Most values repeat: small counts, delays, the rows of busy entities. An entry is some 150 bytes.
_REMEMBERED = 65_536
_value = lru_cache(maxsize=_REMEMBERED)(decode_value)
_version = lru_cache(maxsize=_REMEMBERED)(row_version)
_state = lru_cache(maxsize=4_096)(view_state)

_Entity = tuple[str, ...]


class _SharedHash:
    """The views of one kind of entity: one hash, one command."""

    def __init__(self, project: str, names: _Entity, views: Sequence[OnlineView]) -> None:
        self._keys = EntityKeys(project, names)
        self.names = self._keys.names
        fields = [
            field
            for view in views
            for field in (*hash_fields(view.view, view.features)[:-1], guard_field(view.view).encode())
        ]
        self._head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(fields))
        self._tail = b"".join(b"\r\n$%d\r\n%b" % (len(field), field) for field in fields) + b"\r\n"
        self._spans: list[tuple[int, int]] = []
        start = 0
        for view in views:
            self._spans.append((start, start + len(view.features)))
            start += len(view.features) + 1

    def command(self, entity: _Entity) -> bytes:
        """What asks for all features of one entity."""
        key = self._keys.of(entity)
        return b"%b$%d\r\n%b%b" % (self._head, len(key), key, self._tail)

    def decode(self, reply: Sequence[bytes | None]) -> list[StoredRow]:
        """The entity's row in each view."""
        return [StoredRow(tuple(map(_value, reply[start:end])), *_version(reply[end])) for start, end in self._spans]


class ReadPlan:
    """How some views are read."""

    def __init__(self, project: str, views: Sequence[OnlineView]) -> None:
        by_names: dict[_Entity, list[int]] = {}
        for place, view in enumerate(views):
            by_names.setdefault(tuple(sorted(view.keys)), []).append(place)
        self._hashes = [_SharedHash(project, names, [views[p] for p in places]) for names, places in by_names.items()]
        # Where each view's row is: the kind of entity, and the place among the views of that kind.
        found = {p: (kind, i) for kind, places in enumerate(by_names.values()) for i, p in enumerate(places)}
        self._places = [found[place] for place in range(len(views))]
        self._views = len(views)
        self._marks = b"".join(
            hiredis.pack_command(("HMGET", watermark_key(project, view.view), WATERMARK, MARK))  # type: ignore[arg-type]
            for view in views
        )

    def commands(self, rows: Sequence[Keys]) -> tuple[bytes, list[list[int | None]], int]:
        """Return what to send, for each row the place of each kind's reply, and how many replies will come."""
        parts, count = [self._marks], self._views
        seen: dict[tuple[int, _Entity], int] = {}
        asked: list[list[int | None]] = []
        for row in rows:
            places: list[int | None] = []
            for kind, shared in enumerate(self._hashes):
                entity = _entity(row, shared.names)
                if entity is None:
                    places.append(None)
                    continue
                at = seen.get((kind, entity))
                if at is None:
                    at = seen[kind, entity] = count
                    count += 1
                    parts.append(shared.command(entity))
                places.append(at)
            asked.append(places)
        return b"".join(parts), asked, count

    def rows(self, asked: Sequence[Sequence[int | None]], replies: Sequence[Any]) -> OnlineRows:  # replies: bytes lists
        """Return the answer to what `commands` asked.

        Raises:
            ContractViolation: the store holds bytes that are no value or no mark.
        """
        states = tuple(_state(*reply) for reply in replies[: self._views])
        decoded: dict[int, list[StoredRow]] = {}
        rows = []
        for places in asked:
            stored: list[list[StoredRow] | None] = []
            for kind, at in enumerate(places):
                if at is None:
                    stored.append(None)
                    continue
                found = decoded.get(at)
                if found is None:
                    found = decoded[at] = self._hashes[kind].decode(replies[at])
                stored.append(found)
            rows.append(tuple([None if (s := stored[kind]) is None else s[i] for kind, i in self._places]))
        return OnlineRows(states, rows)


def _entity(row: Keys, names: _Entity) -> _Entity | None:
    found: list[str] = []
    for name in names:
        value = row[name]
        if value is None:
            return None
        found.append(value)
    return tuple(found)
