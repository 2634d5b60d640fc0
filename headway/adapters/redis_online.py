"""The online store: an atomic writer and a lean reader of Feast's own Redis layout, without importing Feast.

Refuses to be a second truth: every byte of a row but the guard's own field is what Feast would write, and
``tests/contract/test_online_store.py`` reads it back through Feast.

The one thing that bites: Feast's own writer reads timestamps, then writes, and drops *equal* timestamps. 15 % of the
departures share minute and origin with an earlier one, so those updates were lost, and two writers could move a row
back in time. ``GUARD`` compares (event_timestamp, revision) inside the server; no other writer may touch these keys.
Decision: ``docs/adr/0005-atomic-online-writer.md``.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import redis

from headway.adapters.feast_layout import (
    Value,
    decode_timestamp,
    decode_value,
    encode_timestamp,
    encode_value,
    entity_key,
    hash_fields,
)
from headway.adapters.redis_marks import WATERMARK, guard_field, watermark_key
from headway.adapters.redis_multiplex import MultiplexedRedis
from headway.adapters.redis_plan import ReadPlan
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows

# Sets the row and returns 1 when it is newer than the stored one; otherwise returns 0 and changes nothing.
# Numbers are compared as Lua doubles: exact below 2^53, which is the year 2255 in microseconds.
GUARD = """
local seen = redis.call('HGET', KEYS[1], ARGV[1])
if seen then
  local colon = string.find(seen, ':', 1, true)
  local time, revision = tonumber(string.sub(seen, 1, colon - 1)), tonumber(string.sub(seen, colon + 1))
  local new_time, new_revision = tonumber(ARGV[2]), tonumber(ARGV[3])
  if time > new_time or (time == new_time and revision >= new_revision) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. ARGV[3], unpack(ARGV, 4))
return 1
"""

# Moves partitions forward only, and keeps their minimum in the field 'view' once all of them have reported.
ADVANCE_WATERMARK = """
for i = 2, #ARGV, 2 do
  local seen = redis.call('HGET', KEYS[1], ARGV[i])
  if not seen or tonumber(seen) < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
local reported, oldest = 0, nil
for partition = 0, tonumber(ARGV[1]) - 1 do
  local ms = redis.call('HGET', KEYS[1], tostring(partition))
  if ms then
    reported = reported + 1
    if not oldest or tonumber(ms) < tonumber(oldest) then oldest = ms end
  end
end
if reported == tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'view', oldest)
else redis.call('HDEL', KEYS[1], 'view') end
return reported
"""

# A pipeline is buffered whole on both sides; 1,000 rows of 20 features are about 1 MB.
ROWS_PER_ROUND_TRIP = 1_000
WRITE_TIMEOUT_S = 5.0
# A prediction has some tens of milliseconds: a store slower than this is down, and the answer is degraded (S10).
READ_TIMEOUT_S = 0.25
LARGEST_EXACT = 2**53

_TEMPORARY = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError, redis.OutOfMemoryError)


@dataclass(frozen=True, kw_only=True)
class OnlineRow:
    """One changelog row as the store keeps it.

    Attributes:
        view: the name Feast knows, ``<view>_v<N>``.
        values: feature name to int (int64), float (float64) or None (null). Name every feature of the view: a feature
            left out keeps its previous value.
    """

    view: str
    keys: Mapping[str, str]
    event_timestamp_us: int
    revision: int
    values: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class WriteCounts:
    """Rows that changed the store, and rows that something at least as new had overtaken."""

    applied: int
    superseded: int


class OnlineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The features of one view wanted for one entity."""

    view: str
    keys: Mapping[str, str]
    features: tuple[str, ...]


class OnlineAnswer(msgspec.Struct, frozen=True):
    """What the store holds for one request.

    Attributes:
        values: aligned with the request's features.
        event_timestamp_us: of the row, microseconds UTC; None when the entity has no row (S10: an empty window).
        watermark_ms: of the view, milliseconds UTC; None until every partition has reported.
    """

    values: tuple[Value, ...]
    event_timestamp_us: int | None
    watermark_ms: int | None


class OnlineWriter:
    """Applies rows and watermarks. Safe to run twice, and from several threads and processes at once."""

    def __init__(self, redis_url: str, project: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, socket_timeout=WRITE_TIMEOUT_S)
        self._project = project

    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts:
        """Apply every row that is newer than the stored one by (event_timestamp, revision).

        Rows of one call that share view and entity are reduced to their newest before they are sent.

        Raises:
            TransientFailure: the store is away, loading or full; write the same rows again.
        """
        newest: dict[tuple[bytes, str], OnlineRow] = {}
        for row in rows:
            place = (entity_key(self._project, row.keys), row.view)
            seen = newest.get(place)
            if seen is None or _version(row) > _version(seen):
                newest[place] = row
        commands = [(key, *_guard_arguments(row)) for (key, _), row in newest.items()]
        applied = 0
        for start in range(0, len(commands), ROWS_PER_ROUND_TRIP):
            applied += sum(self._run(GUARD, commands[start : start + ROWS_PER_ROUND_TRIP]))
        return WriteCounts(applied=applied, superseded=len(rows) - applied)

    def write_watermarks(self, view: str, watermarks_ms: Mapping[int, int], partition_count: int) -> None:
        """Advance the view's watermark per partition; one that moves back is ignored.

        The view has no watermark until all ``partition_count`` partitions have reported, since a silent partition may
        still hold older events. Call it after the rows it covers are written.
        """
        pairs = [str(number) for item in sorted(watermarks_ms.items()) for number in item]
        self._run(ADVANCE_WATERMARK, [(watermark_key(self._project, view), str(partition_count), *pairs)])

    def read_watermarks_us(self, views: Sequence[str]) -> dict[str, int | None]:
        """Return the views' watermarks in microseconds UTC, in one round trip; None until every partition has reported."""
        with explained(), self._redis.pipeline(transaction=False) as pipe:
            for view in views:
                pipe.hget(watermark_key(self._project, view), WATERMARK)
            replies: list[Any] = pipe.execute()  # bytes or None
        return {view: None if ms is None else int(ms) * 1000 for view, ms in zip(views, replies, strict=True)}

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()

    def _run(self, script: str, calls: Sequence[tuple[bytes | str, ...]]) -> list[int]:
        """Run ``script`` once per (key, *arguments), in one round trip."""
        with explained(), self._redis.pipeline(transaction=False) as pipe:
            # Loading first costs one hash of the script and saves the NOSCRIPT branch after a restart or a failover.
            pipe.script_load(script)
            digest = _digest(script)
            for key, *arguments in calls:
                pipe.evalsha(digest, 1, key, *arguments)
            return [int(reply) for reply in pipe.execute()[1:]]


class OnlineReader:
    """Reads rows, watermarks and marks on the hot path. Belongs to the event loop it is first used in."""

    def __init__(self, redis_url: str, project: str, *, timeout_s: float = READ_TIMEOUT_S) -> None:
        self._redis = MultiplexedRedis(redis_url, timeout_s=timeout_s)
        self._project = project

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        """Return what reads these views for any rows of keys, each entity once, in one round trip."""
        plan, ask = ReadPlan(self._project, views), self._redis.ask_packed

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            commands, asked, count = plan.commands(rows)
            return plan.rows(asked, await ask(commands, count))

        return read

    async def read(self, requests: Sequence[OnlineRequest]) -> list[OnlineAnswer]:
        """One answer per request, in order, from one round trip; for tools, as each request names its own features.

        Watermarks are asked for before rows, so every row at or before a returned watermark has been seen.

        Raises:
            TransientFailure: the store does not answer in time; the caller degrades (S10).
        """
        views = list(dict.fromkeys(request.view for request in requests))
        commands: list[tuple[bytes | str, ...]] = [
            ("HGET", watermark_key(self._project, view), WATERMARK) for view in views
        ]
        commands += [
            ("HMGET", entity_key(self._project, request.keys), *hash_fields(request.view, request.features))
            for request in requests
        ]
        replies = await self._redis.ask(commands)
        watermarks_ms = {view: int(ms) if ms else None for view, ms in zip(views, replies, strict=False)}
        return [
            OnlineAnswer(
                tuple(map(decode_value, fields[:-1])), decode_timestamp(fields[-1]), watermarks_ms[request.view]
            )
            for request, fields in zip(requests, replies[len(views) :], strict=True)
        ]

    async def close(self) -> None:
        """Release the connections."""
        await self._redis.close()


@lru_cache
def _digest(script: str) -> str:
    """The name Redis gives a script; SHA-1 is its protocol, nothing here is secret."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _version(row: OnlineRow) -> tuple[int, int]:
    return row.event_timestamp_us, row.revision


def _guard_arguments(row: OnlineRow) -> list[bytes | str]:
    """The script's arguments: guard field, version, then Feast's fields and values in pairs."""
    if not (0 <= row.event_timestamp_us < LARGEST_EXACT and 0 <= row.revision < LARGEST_EXACT):
        raise ContractViolation(f"{row.view} {dict(row.keys)}: version {_version(row)} is outside 0..2^53")
    *fields, timestamp_field = hash_fields(row.view, tuple(row.values))
    arguments: list[bytes | str] = [guard_field(row.view), str(row.event_timestamp_us), str(row.revision)]
    arguments += (timestamp_field, encode_timestamp(row.event_timestamp_us))
    for field, value in zip(fields, row.values.values(), strict=True):
        arguments += (field, encode_value(value))
    return arguments


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the client raises into what a caller can do about it."""
    try:
        yield
    except _TEMPORARY as error:
        raise TransientFailure(f"online store: not reachable ({error}); repeat the same call") from error
    except redis.RedisError as error:
        raise PermanentFailure(f"online store: refused ({error}); see the server's log") from error
