"""`headway features bootstrap --until T0`: give the feature job and the online store the past it never streamed (S11).

From lake events up to T0 it writes each task's state, the newest row of every entity, and watermarks of T0. The job
must not run meanwhile: it would restore half a state. Afterwards it ignores events of that past. The mark it leaves is
what lets a view version serve (`headway.features.readiness`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from headway.adapters.redis_online import OnlineRow, WriteCounts
from headway.clock import to_us
from headway.features.definitions import FeatureView
from headway.features.offline import bootstrap_history, last_rows
from headway.features.state import META_KEY, decode_task
from headway.features.tiles import Key
from headway.features.windows import HistoryEvent, ViewTask
from headway.features.wire import partition_key
from headway.ports import Message, Publisher, Record
from headway.topics import PARTITIONS, partition_of, state_topic


@dataclass(frozen=True)
class Bootstrapped:
    """What a bootstrap wrote for one view."""

    view: str
    state_records: int
    online_rows: int


def began_from_nothing(view: FeatureView, restore: Callable[[str, int], Iterable[Message]]) -> bool:
    """Whether the job has state of the view that no bootstrap wrote."""
    records = (record for partition in range(PARTITIONS) for record in restore(state_topic(view.qualified), partition))
    tasks = (decode_task(record.value) for record in records if record.key == META_KEY and record.value is not None)
    return any(task.bootstrap_us is None for task in tasks)


class Rows(Protocol):
    """Writes rows and watermarks of the online store."""

    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts:
        """Apply every row that is newer than the stored one."""
        ...

    def write_watermarks(self, view: str, watermarks_ms: Mapping[int, int], partition_count: int) -> None:
        """Advance the view's watermark per partition."""
        ...


class Marks(Protocol):
    """Remembers which definition computed a view's past."""

    def mark_bootstrapped(self, view: str, *, digest: str, until_us: int) -> None:
        """Say that the view's past up to an instant was computed by the definition with this hash."""
        ...


def bootstrap_view(
    view: FeatureView,
    events: pl.DataFrame,
    *,
    until_us: int,
    restore: Callable[[str, int], Iterable[Message]],
    publisher: Publisher,
    online: Rows,
    marks: Marks,
) -> Bootstrapped:
    """Write state, online rows and watermarks of one view as of ``until_us``; repeating it changes nothing.

    Args:
        view: the view.
        events: lake events, all that windows and lateness before ``until_us`` can reach.
        until_us: T0; `streaming.cut` says which instants may be one.
        restore: reads a compacted topic's partition; what is there and not part of the new state is deleted.
        publisher: writes the state topic.
        online: writes the online store.
        marks: told at the end, when all of it is there.
    """
    records = [
        record
        for partition, history in enumerate(_by_partition(view, bootstrap_history(events, view, until_us=until_us)))
        for record in _state_records(view, history, partition, until_us=until_us, restore=restore)
    ]
    publisher.publish(records)
    rows = [_online_row(view, row) for row in last_rows(events, view, until_us=until_us).iter_rows(named=True)]
    online.write(rows)
    online.write_watermarks(view.online_name, dict.fromkeys(range(PARTITIONS), until_us // 1000), PARTITIONS)
    marks.mark_bootstrapped(view.online_name, digest=view.digest, until_us=until_us)
    return Bootstrapped(view.qualified, len(records), len(rows))


def _by_partition(view: FeatureView, history: Iterable[HistoryEvent]) -> list[list[HistoryEvent]]:
    parts: list[list[HistoryEvent]] = [[] for _ in range(PARTITIONS)]
    places: dict[Key, int] = {}
    for event in history:
        key = event[0]
        if key not in places:
            places[key] = partition_of(partition_key(view.qualified, key), PARTITIONS)
        parts[places[key]].append(event)
    return parts


def _state_records(
    view: FeatureView,
    history: Iterable[HistoryEvent],
    partition: int,
    *,
    until_us: int,
    restore: Callable[[str, int], Iterable[Message]],
) -> list[Record]:
    topic = state_topic(view.qualified)
    state = dict(ViewTask.bootstrap(view, range(PARTITIONS), history, until_us=until_us).dirty_state())
    stale = [
        message.key for message in restore(topic, partition) if message.key is not None and message.key not in state
    ]
    written: Mapping[bytes, bytes | None] = {**dict.fromkeys(stale), **state}
    return [Record(topic=topic, key=key, value=value, partition=partition) for key, value in written.items()]


def _online_row(view: FeatureView, row: Mapping[str, object]) -> OnlineRow:
    instant = row["event_timestamp"]
    return OnlineRow(
        view=view.online_name,
        keys={key: str(row[key]) for key in view.keys},
        event_timestamp_us=to_us(instant),  # type: ignore[arg-type]  # the column's type is fixed
        revision=0,
        values={name: row[name] for name in view.columns},  # type: ignore[misc]  # likewise
    )
