"""The incremental aggregator: events and ticks in, changelog rows and state out (SEMANTICS S1-S6, S11; ADR 0007).

It is the only code that turns a stream into feature values; it is pure, knows no broker and no clock. What bites:
state runs ahead of the topic until ``dirty_state`` has been written, so a task whose transaction failed is thrown away
and restored.
"""

from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

from headway.errors import ContractViolation
from headway.features import state
from headway.features.agenda import Agenda
from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.source_ticks import SourceTicks
from headway.features.tiles import EntityTiles, Entry, Key, Plan, tile_of

HistoryEvent = tuple[
    Key, str, int, Mapping[str, Value]
]  # (key, event id, time_us, values), see offline.bootstrap_history


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one changelog row (S4): the view's values of an entity as of an instant.

    Attributes:
        revision: increases with the record that caused the row; of one instant the greatest counts.
        known_at_us: the task's watermark when it was emitted; None before every source partition has ticked.
    """

    view: str
    key: Key
    event_time_us: int
    revision: int
    known_at_us: int | None
    values: dict[str, Value]

    @property
    def version(self) -> tuple[int, int]:
        """Of two rows of one entity the greater counts."""
        return self.event_time_us, self.revision


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Events a task did not count: beyond lateness, repeated inside a tile, or part of the bootstrap's past."""

    too_late: int
    duplicates: int
    before_bootstrap: int


def is_too_late(time_us: int, *, tick_before_us: int | None, lateness_us: int) -> bool:
    """Whether an event is older than its own partition's last tick allows; the same for every reader (S6, ADR 0006)."""
    return tick_before_us is not None and time_us < tick_before_us - lateness_us


class ViewTask:
    """The state of one view over the keys of one partition.

    Cost: an event costs one row, of which only min and max look at every tile of their window, at C speed; a tick costs
    only what is due. Memory: one record per live tile, and per entity when the view has ``last_ever``.

    Attributes:
        ticks: of every source partition the last; tasks that have equal ones may share them.
        watermark_us: the least last tick over all source partitions; None until each has ticked (S2).
    """

    def __init__(self, view: FeatureView, source_partitions: Iterable[int]) -> None:
        self.view = view
        self._plan = Plan.of(view)
        # The view derives these on every access; per event that was half of the whole cost.
        self._qualified, self._hop_us, self._lateness_us = view.qualified, view.hop_us, view.lateness_us
        self._windows_us, self._max_window_us = view.windows_us, view.max_window_us
        self._entities: dict[Key, EntityTiles] = {}
        self._digest = view.digest
        self.ticks = SourceTicks.none_yet(source_partitions)
        self.watermark_us = self.ticks.watermark_us
        self._bootstrap_us: int | None = None
        self._too_late = self._duplicates = self._before_bootstrap = 0
        self._expiries, self._seals, self._drops = Agenda(), Agenda(), Agenda()
        self._dirty_tiles: dict[tuple[Key, int], None] = {}
        self._dirty_ever: dict[Key, None] = {}
        self._dirty_task = False
        self._written_advances = 0

    @property
    def refused(self) -> Refused:
        """Counts of events not counted, since the task's first record; they survive a restore."""
        return Refused(too_late=self._too_late, duplicates=self._duplicates, before_bootstrap=self._before_bootstrap)

    def on_event(
        self,
        key: Key,
        event_id: str,
        time_us: int,
        values: Mapping[str, Value],
        *,
        tick_before_us: int | None,
        revision: int,
    ) -> list[Row]:
        """Return the rows an event causes: its own, and every row of its key that it makes known differently (S6)."""
        if not self._admit(key, event_id, time_us, values, tick_before_us=tick_before_us):
            return []
        watermark_us = self.watermark_us
        entity = self._entities[key]
        return [
            self._row(key, entity, at_us, watermark_us=watermark_us, revision=revision)
            for at_us in entity.instants_from(time_us, watermark_us)
        ]

    def on_tick(self, source_partition: int, tick_us: int, *, revision: int) -> list[Row]:
        """Return the rows of windows that expired up to the new watermark, in (instant, key) order (S2)."""
        self.ticks.advance(source_partition, tick_us)
        watermark_us = self.ticks.watermark_us
        if watermark_us is None or watermark_us == self.watermark_us:
            return []
        self.watermark_us = watermark_us
        rows = []
        for at_us, key in self._expiries.pop_until(watermark_us):
            entity = self._entities[key]
            if not entity.has_event_at(at_us):  # an event's own row says the same
                rows.append(self._row(key, entity, at_us, watermark_us=watermark_us, revision=revision))
        self._forget(watermark_us)
        return rows

    def dirty_state(self) -> list[tuple[bytes, bytes | None]]:
        """Return what changed since the last call, for the batch's transaction; None is a tombstone."""
        records = [(state.tile_key(key, k), self._tile_record(key, k)) for key, k in self._dirty_tiles]
        records += [(state.ever_key(key), state.encode(self._entities[key].ever)) for key in self._dirty_ever]
        if self._dirty_task or self._written_advances != self.ticks.advances:
            records.append((state.META_KEY, state.encode(self._task_record())))
        self._dirty_tiles, self._dirty_ever, self._dirty_task = {}, {}, False
        self._written_advances = self.ticks.advances
        return records

    @classmethod
    def restore(
        cls, view: FeatureView, source_partitions: Iterable[int], records: Iterable[tuple[bytes, bytes | None]]
    ) -> Self:
        """Return the task that wrote the records of its state partition, to continue exactly where it stopped (S5).

        Raises:
            ContractViolation: the state belongs to another meaning of the view or another number of partitions.
        """
        task = cls(view, source_partitions)
        latest = {key: value for key, value in dict(records).items() if value is not None}
        if (meta := latest.pop(state.META_KEY, None)) is not None:
            task._load_task(state.decode_task(meta))
        for raw, value in latest.items():
            match state.parse_key(raw):
                case state.TileKey(key=key, tile=k):
                    task._load_tile(key, k, state.decode_tile(value))
                case state.EverKey(key=key):
                    task._entity(key).ever = state.decode_ever(value)
        return task

    @classmethod
    def bootstrap(
        cls,
        view: FeatureView,
        source_partitions: Iterable[int],
        history: Iterable[HistoryEvent],
        *,
        until_us: int,
    ) -> Self:
        """Return a task that continues as if it had seen history up to an instant, ticked on every partition (S11).

        Give it only the keys of its partition, and no too-late events. Afterwards an event of that past is ignored:
        by id where its tile is open, by time where it is sealed. ``dirty_state`` holds the whole state.
        """
        task = cls(view, source_partitions)
        task.ticks = SourceTicks(dict.fromkeys(task.ticks.by_partition, until_us))
        task.watermark_us = task.ticks.watermark_us
        task._bootstrap_us = until_us
        task._dirty_task = True
        for key, event_id, time_us, values in history:
            if time_us <= until_us:
                task._add(key, task._plan.entry(time_us, event_id, values))
        task._forget(until_us)
        task._dirty_tiles = {at: None for at in task._dirty_tiles if task._tile_record(*at) is not None}
        return task

    def _admit(
        self, key: Key, event_id: str, time_us: int, values: Mapping[str, Value], *, tick_before_us: int | None
    ) -> bool:
        if is_too_late(time_us, tick_before_us=tick_before_us, lateness_us=self._lateness_us):
            self._too_late += 1
            self._dirty_task = True
            return False
        watermark_us = self.watermark_us
        if watermark_us is not None and time_us < watermark_us - self._lateness_us:
            if self._bootstrap_us is None or time_us > self._bootstrap_us:
                raise ContractViolation(
                    f"{self.view.qualified}: event {event_id} of {time_us} us is older than watermark {watermark_us} us "
                    f"minus lateness, yet came after tick {tick_before_us} of its partition. Stage 1 must pass the "
                    f"last tick it forwarded before the event."
                )
            self._before_bootstrap += 1
            self._dirty_task = True
            return False
        if not self._add(key, self._plan.entry(time_us, event_id, values)):
            self._duplicates += 1
            self._dirty_task = True
            return False
        return True

    def _add(self, key: Key, entry: Entry) -> bool:
        entity = self._entity(key)
        if not entity.add(entry):
            return False
        k = tile_of(entry[0], self._hop_us)
        self._dirty_tiles[key, k] = None
        self._schedule(key, k)
        return True

    def _schedule(self, key: Key, k: int) -> None:
        end_us, watermark_us = k * self._hop_us, self.watermark_us
        for window_us in self._windows_us:
            if watermark_us is None or end_us + window_us > watermark_us:
                self._expiries.put(end_us + window_us, key)
        self._seals.put(end_us, key)
        self._drops.put(end_us + self._max_window_us, key)

    def _forget(self, watermark_us: int) -> None:
        """Seal and drop tiles that no event within lateness can reach any more."""
        horizon_us = watermark_us - self._lateness_us - 1  # an event exactly at the limit still counts
        for end_us, key in self._seals.pop_until(horizon_us):
            k = end_us // self._hop_us
            self._entities[key].seal(k)
            self._dirty_tiles[key, k] = None
        for gone_us, key in self._drops.pop_until(horizon_us):
            k = (gone_us - self._max_window_us) // self._hop_us
            entity = self._entities[key]
            self._dirty_tiles[key, k] = None
            if entity.drop(k):
                self._dirty_ever[key] = None
            if entity.is_empty:
                del self._entities[key]

    def _row(self, key: Key, entity: EntityTiles, at_us: int, *, watermark_us: int | None, revision: int) -> Row:
        return Row(
            view=self._qualified,
            key=key,
            event_time_us=at_us,
            revision=revision,
            known_at_us=watermark_us,
            values=entity.values_at(at_us),
        )

    def _entity(self, key: Key) -> EntityTiles:
        entity = self._entities.get(key)
        if entity is None:
            entity = self._entities[key] = EntityTiles(self._plan)
        return entity

    def _tile_record(self, key: Key, k: int) -> bytes | None:
        entity = self._entities.get(key)
        if entity is None:
            return None
        if (entries := entity.entries(k)) is not None:
            return state.encode(state.TileRecord(entries, None))
        partials = entity.partials(k)
        return None if partials[0] is None else state.encode(state.TileRecord(None, partials))

    def _task_record(self) -> state.TaskRecord:
        return state.TaskRecord(
            digest=self._digest,
            ticks=self.ticks.by_partition,
            bootstrap_us=self._bootstrap_us,
            too_late=self._too_late,
            duplicates=self._duplicates,
            before_bootstrap=self._before_bootstrap,
        )

    def _load_task(self, record: state.TaskRecord) -> None:
        if record.digest != self._digest or record.ticks.keys() != self.ticks.by_partition.keys():
            raise ContractViolation(
                f"state of {self.view.qualified}: written for digest {record.digest} over source partitions "
                f"{sorted(record.ticks)}, wanted {self._digest} over {list(self.ticks.by_partition)}. Give the view a new "
                f"version, or bootstrap it again."
            )
        self.ticks = SourceTicks(record.ticks)
        self.watermark_us = self.ticks.watermark_us
        self._bootstrap_us = record.bootstrap_us
        self._too_late, self._duplicates = record.too_late, record.duplicates
        self._before_bootstrap = record.before_bootstrap

    def _load_tile(self, key: Key, k: int, record: state.TileRecord) -> None:
        entity = self._entity(key)
        if record.partials is not None:
            entity.load_sealed(k, record.partials)
        for entry in record.entries or ():
            entity.add(entry)
        self._schedule(key, k)
