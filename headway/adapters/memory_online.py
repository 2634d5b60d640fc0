"""The online store in memory: rows under the guard, watermarks, marks and forgetting, in one object for tests and desks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headway.adapters.feast_layout import entity_key
from headway.adapters.redis_online import OnlineAnswer, OnlineRequest, OnlineRow, WriteCounts
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows, StoredRow
from headway.features.readiness import ViewState


class MemoryOnlineStore:
    """Writer, reader and views of `headway.adapters.redis_online` and `redis_views`, without a server."""

    def __init__(self, project: str = "headway") -> None:
        self._project = project
        self._rows: dict[tuple[str, bytes], OnlineRow] = {}
        self._reported: dict[str, dict[int, int]] = {}
        self._partitions: dict[str, int] = {}
        self._marks: dict[str, tuple[str, int]] = {}

    def write(self, rows: Sequence[OnlineRow]) -> WriteCounts:
        """Apply every row that is newer than the stored one by (event_timestamp, revision)."""
        newest: dict[tuple[str, bytes], OnlineRow] = {}
        for row in rows:
            place = (row.view, entity_key(self._project, row.keys))
            if place not in newest or _version(row) > _version(newest[place]):
                newest[place] = row
        applied = {
            place: row
            for place, row in newest.items()
            if place not in self._rows or _version(row) > _version(self._rows[place])
        }
        for place, row in applied.items():
            known = self._rows[place].values if place in self._rows else {}
            self._rows[place] = replace(row, values={**known, **row.values})
        return WriteCounts(applied=len(applied), superseded=len(rows) - len(applied))

    def write_watermarks(self, view: str, watermarks_ms: Mapping[int, int], partition_count: int) -> None:
        """Advance the view's watermark per partition; one that moves back is ignored."""
        reported = self._reported.setdefault(view, {})
        for partition, watermark_ms in watermarks_ms.items():
            reported[partition] = max(watermark_ms, reported.get(partition, watermark_ms))
        self._partitions[view] = partition_count

    def read_watermarks_us(self, views: Sequence[str]) -> dict[str, int | None]:
        """Return the views' watermarks in microseconds UTC; None until every partition has reported."""
        found = {view: self._watermark_ms(view) for view in views}
        return {view: None if ms is None else ms * 1000 for view, ms in found.items()}

    async def read(self, requests: Sequence[OnlineRequest]) -> list[OnlineAnswer]:
        """One answer per request, in order."""
        return [self._answer(request) for request in requests]

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        """Return what reads these views for any rows of keys."""
        names = [view.view for view in views]

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            states = self.states(names)
            found = [tuple(self._stored(view, row) for view in views) for row in rows]
            return OnlineRows(tuple(states[name] for name in names), found)

        return read

    def mark_bootstrapped(self, view: str, *, digest: str, until_us: int) -> None:
        """Say that the view's past up to an instant was computed by the definition with this hash."""
        self._marks[view] = (digest, until_us)

    def states(self, views: Sequence[str]) -> dict[str, ViewState]:
        """Return what is known of each view."""
        watermarks = self.read_watermarks_us(views)
        found = {}
        for view in views:
            digest, until_us = self._marks.get(view, (None, None))
            found[view] = ViewState(watermark_us=watermarks[view], bootstrapped_us=until_us, digest=digest)
        return found

    def forget(self, view: str, keys: Mapping[str, str], features: Sequence[str]) -> int:
        """Remove everything the view holds of one entity; return how many fields that were, version and time included."""
        row = self._rows.pop((view, entity_key(self._project, keys)), None)
        return 0 if row is None else 2 + len(set(row.values) & set(features))

    def close(self) -> None:
        """Nothing to release."""

    def _watermark_ms(self, view: str) -> int | None:
        reported, wanted = self._reported.get(view, {}), range(self._partitions.get(view, 0))
        return min((reported[p] for p in wanted), default=None) if reported.keys() >= {*wanted} else None

    def _answer(self, request: OnlineRequest) -> OnlineAnswer:
        view = OnlineView(view=request.view, keys=tuple(request.keys), features=request.features)
        row = self._stored(view, request.keys)
        assert row is not None, "a request names its entity"
        return OnlineAnswer(row.values, row.event_timestamp_us, self._watermark_ms(request.view))

    def _stored(self, view: OnlineView, keys: Keys) -> StoredRow | None:
        entity = {name: value for name in view.keys if (value := keys[name]) is not None}
        if len(entity) < len(view.keys):
            return None
        row = self._rows.get((view.view, entity_key(self._project, entity)))
        if row is None:
            return StoredRow((None,) * len(view.features), None)
        values = tuple(row.values.get(feature) for feature in view.features)
        return StoredRow(values, row.event_timestamp_us, row.revision)


def _version(row: OnlineRow) -> tuple[int, int]:
    return row.event_timestamp_us, row.revision
