"""Forgetting an entity: its windows, its online values and its rows in the lake, view by view, with a record of it.

Everything here is derived from events, and events are not touched: one that comes again, a bootstrap and a backfill
compute the entity anew. `remaining` says where it still is, so that nobody believes more was done than was.

What bites: a changelog row that was written and not applied yet would bring the entity back. So the aggregating job
must not run, and rows of the entity that a writer has still to apply are a reason to wait.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from headway.adapters.delta import Lake
from headway.clock import from_us
from headway.errors import InputRejected, TransientFailure
from headway.features.changelog import changelog_table, truth_table
from headway.features.definitions import FeatureView
from headway.features.state import EverKey, TileKey, parse_key
from headway.features.static import StaticView
from headway.features.tiles import Key
from headway.features.wire import partition_key, row_key
from headway.lake import INSTANT, LakeTable
from headway.ports import LogReader, Publisher, Record, TopicPartition
from headway.topics import (
    EVENTS_ENRICHED,
    FEATURES_INPUT,
    PARTITIONS,
    features_topic,
    partition_of,
    state_topic,
    topic_table,
)

ALL = "all"
View = FeatureView | StaticView
_DAY_MS = 24 * 60 * 60 * 1000
FORGOTTEN = LakeTable(
    name="forgotten",
    columns={
        "view": pl.String(),
        "entity": pl.String(),
        "reason": pl.String(),
        "by": pl.String(),
        "at": INSTANT,
        "state_records": pl.Int64(),
        "online_fields": pl.Int64(),
        "lake_rows": pl.Int64(),
        "lake_version": pl.Int64(),
    },
    required=("view", "entity", "reason", "by", "at", "state_records", "online_fields", "lake_rows"),
)


class Forgetter(Protocol):
    """Removes an entity from the online store."""

    def forget(self, view: str, keys: Mapping[str, str], features: Sequence[str]) -> int:
        """Remove everything the view holds of one entity, at once; return how many fields that were."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stores:
    """Where a view's values are. ``applied`` says, per partition of a changelog, up to where every writer has applied it."""

    log: LogReader
    applied: Callable[[str], Mapping[TopicPartition, int]]
    publisher: Publisher
    online: Forgetter
    lake: Lake


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed of one entity from one view; ``lake_version`` is the first that does not hold it."""

    view: str
    entity: str
    state_records: int
    online_fields: int
    lake_rows: int
    lake_version: int | None


def parse_entity(given: Sequence[str]) -> dict[str, str]:
    """Return the keys in ``origin=EWR carrier=UA``.

    Raises:
        InputRejected: a part is no NAME=VALUE, or a name stands twice.
    """
    keys: dict[str, str] = {}
    for part in given:
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in keys:
            raise InputRejected(f"entity: got {part!r}, wanted NAME=VALUE, each name once, e.g. origin=EWR carrier=UA")
        keys[name] = value
    return keys


def views_of(views: Sequence[View], named: str, keys: Mapping[str, str]) -> list[View]:
    """Return the views that hold an entity with exactly these keys: one by name, or all.

    Raises:
        InputRejected: there is none; lists views and their keys.
    """
    chosen = [v for v in views if named in (ALL, v.qualified) and set(v.keys) == set(keys)]
    if not chosen:
        known = ", ".join(f"{view.qualified} ({' '.join(view.keys)})" for view in views)
        raise InputRejected(f"features forget: no view {named!r} of entity {sorted(keys)}; there are: {known}")
    return chosen


def also_named_by(views: Sequence[View], keys: Mapping[str, str]) -> list[str]:
    """Return views whose entity has these keys and more: each such entity has to be named in full."""
    return [view.qualified for view in views if set(view.keys) > set(keys)]


def forget_entity(
    views: Sequence[View], keys: Mapping[str, str], stores: Stores, *, reason: str, by: str, at_us: int
) -> list[Forgotten]:
    """Remove an entity from views and record it; repeating it removes nothing and records that.

    Raises:
        TransientFailure: rows of the entity are still to be applied, or a store is away; repeat.
        InputRejected: no reason is given.
    """
    if not reason.strip():
        raise InputRejected("features forget, reason: got none, wanted the reason; it is recorded")
    for view in views:
        if isinstance(view, FeatureView):
            _check_nothing_waits(view, _ordered(view, keys), stores)
    stores.lake.create(FORGOTTEN)
    done = []
    for view in views:
        forgotten = _forget(view, keys, stores)
        stores.lake.append(FORGOTTEN.name, _record(forgotten, reason=reason, by=by, at_us=at_us))
        done.append(forgotten)
    return done


def remaining(views: Sequence[View]) -> list[str]:
    """Say where a forgotten entity still is, and for how long."""
    streamed = [view.qualified for view in views if isinstance(view, FeatureView)]
    loaded = [view.qualified for view in views if isinstance(view, StaticView)]
    table = {t.name: t for t in topic_table(views=streamed, products=[], replication_factor=1, min_insync_replicas=1)}

    def days(topic: str) -> int:
        return int(table[topic].config["retention.ms"]) // _DAY_MS

    return [
        f"its events: topics events.* for {days(EVENTS_ENRICHED)} days, {FEATURES_INPUT} for {days(FEATURES_INPUT)} days",
        "its events: the lake's table events and the search index, for good",
        *(f"its changelog rows: topic {name} for {days(name)} days" for name in map(features_topic, streamed)),
        "its state records: until the log compacts state.<view>",
        "older versions of the lake's tables: until `headway lake compact --keep-days 7` a week from now",
        "the online store's append-only file: until the server rewrites it",
        "what was asked and learned with it: the lake's tables predictions.<product> and training.<product>, for good",
        *(f"its row in the warehouse: the next load of {name} brings it back" for name in loaded),
        "an event, bootstrap or backfill that names it computes it anew: delete its events first",
    ]


def entity_digest(view: View, keys: Mapping[str, str]) -> str:
    """Return what the record names the entity by. Whoever knows the entity can find it; the record does not tell it."""
    return hashlib.sha256(json.dumps({key: keys[key] for key in view.keys}, sort_keys=True).encode()).hexdigest()


def _forget(view: View, keys: Mapping[str, str], stores: Stores) -> Forgotten:
    # A static view has no windows: it is loaded, not streamed.
    state = _state_tombstones(view, _ordered(view, keys), stores.log) if isinstance(view, FeatureView) else []
    stores.publisher.publish(state)
    fields = stores.online.forget(view.online_name, keys, tuple(view.columns))
    table = changelog_table(view).name
    tables = [table, truth_table(view).name] if isinstance(view, FeatureView) else [table]
    there = [name for name in tables if stores.lake.exists(name)]
    return Forgotten(
        view=view.qualified,
        entity=entity_digest(view, keys),
        state_records=len(state),
        online_fields=fields,
        lake_rows=sum(stores.lake.delete(name, _predicate(keys)) for name in there),
        lake_version=stores.lake.version(table) if table in there else None,
    )


def _check_nothing_waits(view: FeatureView, key: Key, stores: Stores) -> None:
    topic, wanted = features_topic(view.qualified), row_key(key)
    applied = stores.applied(topic)
    place = TopicPartition(topic, _partition(view, key))
    rows = stores.log.read(topic, partitions=[place.partition])
    waiting = sum(1 for row in rows if row.key == wanted and row.offset >= applied.get(place, 0))
    if waiting:
        raise TransientFailure(
            f"features forget: {waiting} rows of this entity wait in {topic} to be applied and would bring it back; "
            "run the online writer and the lake loader until they have, and repeat"
        )


def _state_tombstones(view: FeatureView, key: Key, log: LogReader) -> list[Record]:
    topic, partition = state_topic(view.qualified), _partition(view, key)
    return [
        Record(topic=topic, key=message.key, value=None, partition=partition)
        for message in log.read_compacted(topic, partition)
        if message.key is not None and _is_of(key, message.key)
    ]


def _is_of(key: Key, raw: bytes) -> bool:
    match parse_key(raw):
        case TileKey(key=found) | EverKey(key=found):
            return found == key
        case _:
            return False


def _partition(view: FeatureView, key: Key) -> int:
    return partition_of(partition_key(view.qualified, key), PARTITIONS)


def _ordered(view: View, keys: Mapping[str, str]) -> Key:
    return tuple(keys[name] for name in view.keys)


def _predicate(keys: Mapping[str, str]) -> str:
    return " AND ".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in sorted(keys.items()))


def _record(done: Forgotten, *, reason: str, by: str, at_us: int) -> pl.DataFrame:
    row = (
        done.view,
        done.entity,
        reason,
        by,
        from_us(at_us),
        done.state_records,
        done.online_fields,
        done.lake_rows,
        done.lake_version,
    )
    return pl.DataFrame([row], schema=dict(FORGOTTEN.columns), orient="row")
