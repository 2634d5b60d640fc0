"""Feature job, stage 2: features.input -> changelog rows and state, one task per (view, partition) (S3-S5).

In one transaction a batch emits ``features.<view>`` and ``state.<view>`` in the partition it was read from. A row's
revision is the offset of the record that caused it, plus one: it rises per key, because a key never leaves its
partition, and 0 stays free for bootstrap and backfill.
"""

from collections.abc import Iterable, Sequence

import structlog

from headway.features.definitions import FeatureView
from headway.features.source_ticks import SourceTicks
from headway.features.windows import Row, ViewTask
from headway.features.wire import decode_input, encode_row, row_key
from headway.ports import Message, Record
from headway.ticks import SOURCE_PARTITION_HEADER, header, is_tick, tick_us_of, watermark_record
from headway.topics import PARTITIONS, features_topic, state_topic
from streaming.runtime import Restore

_LOG = structlog.get_logger()


class AggregateHandler:
    """Stage 2 for the views of one domain."""

    def __init__(self, views: Sequence[FeatureView], restore: Restore) -> None:
        self._views = {view.qualified: view for view in views}
        self._restore = restore
        self._tasks: dict[int, dict[str, ViewTask]] = {}
        self._ticks: dict[int, list[SourceTicks]] = {}

    def assigned(self, partitions: Sequence[int]) -> None:
        """Restore every view's task of each partition from ``state.<view>``, never from the changelog (S5)."""
        for partition in partitions:
            tasks = {name: self._restored(view, partition) for name, view in self._views.items()}
            self._tasks[partition], self._ticks[partition] = tasks, _shared_ticks(tasks.values())

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the tasks of the partitions."""
        for partition in partitions:
            self._tasks.pop(partition, None)
            self._ticks.pop(partition, None)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return changelog rows and watermarks in order, then the state they leave behind."""
        outputs: list[Record] = []
        touched: dict[tuple[str, int], None] = {}
        ticked: set[int] = set()
        for message in batch:
            if is_tick(message):
                if message.partition not in ticked:
                    ticked.add(message.partition)
                    touched |= dict.fromkeys((name, message.partition) for name in self._views)
                outputs.extend(self._tick(message))
            else:
                item = decode_input(message.value or b"")
                touched[item.view, message.partition] = None
                rows = self._tasks[message.partition][item.view].on_event(
                    item.key,
                    item.event_id,
                    item.time_us,
                    item.values,
                    tick_before_us=item.tick_before_us,
                    revision=message.offset + 1,
                )
                outputs.extend(_row_record(row, message.partition) for row in rows)
        outputs.extend(self._state(touched))
        return outputs

    def _tick(self, message: Message) -> list[Record]:
        source, tick_us = int(header(message, SOURCE_PARTITION_HEADER) or b""), tick_us_of(message)
        outputs: list[Record] = []
        moved = [ticks.advance(source, tick_us) for ticks in self._ticks[message.partition]]
        if not any(moved):
            return outputs
        for name, task in self._tasks[message.partition].items():
            before_us = task.watermark_us
            rows = task.on_tick(source, tick_us, revision=message.offset + 1)
            watermark_us = task.watermark_us
            if watermark_us is not None and watermark_us != before_us:
                outputs.extend(_row_record(row, message.partition) for row in rows)
                outputs.append(watermark_record(features_topic(name), watermark_us, partition=message.partition))
        return outputs

    def _restored(self, view: FeatureView, partition: int) -> ViewTask:
        records = [(m.key or b"", m.value) for m in self._restore(state_topic(view.qualified), partition)]
        task = ViewTask.restore(view, range(PARTITIONS), records)
        _LOG.debug("restored", view=view.qualified, partition=partition, records=len(records))
        return task

    def _state(self, touched: dict[tuple[str, int], None]) -> list[Record]:
        return [
            Record(topic=state_topic(name), key=key, value=value, partition=partition)
            for name, partition in touched
            for key, value in self._tasks[partition][name].dirty_state()
        ]


def _shared_ticks(tasks: Iterable[ViewTask]) -> list[SourceTicks]:
    """Have tasks that have heard the same share their ticks; return each that is left to be told of the next.

    It is one, but for a view that was bootstrapped or is new: most ticks move no watermark, and then one call is all.
    """
    shared: dict[tuple[tuple[int, int | None], ...], SourceTicks] = {}
    for task in tasks:
        task.ticks = shared.setdefault(tuple(task.ticks.by_partition.items()), task.ticks)
    return list(shared.values())


def _row_record(row: Row, partition: int) -> Record:
    return Record(topic=features_topic(row.view), key=row_key(row.key), value=encode_row(row), partition=partition)
