"""The views of one prediction: what a service's read gives one request, and declared defaults when the store is away.

What is read and how it is judged is `headway.service_reads`, which the feature API shares; here it becomes what goes
into the vector and the log.
"""

from collections.abc import Sequence

import msgspec

from headway.clock import SECOND_US
from headway.errors import PermanentFailure, TransientFailure
from headway.features.online import FeatureReader, StoredRow
from headway.features.services import feature_service
from headway.predictions import ServedView
from headway.product import Product
from headway.service_reads import AsOfInThePast, ServiceRead, ServiceReader
from headway.vector import Number

# The values of every view of a product, in the order of its service, as a client gives them with a request.
GivenViews = Sequence[tuple[Number, ...]]


class ViewsRead(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The views of one request.

    Attributes:
        as_of_us: the instant they are for.
        views: as they go into the vector and the log.
        watermark_us: the oldest of the views read; None when one of them is unknown or nothing was read.
        stale: views whose watermark is too far behind.
        missing: views whose entity has no row, or that have no entity here; empty windows, not a fault (S10).
        degraded: whether the store was unreachable and declared defaults are used.
    """

    as_of_us: int
    views: tuple[ServedView, ...]
    watermark_us: int | None
    stale: tuple[str, ...]
    missing: tuple[str, ...]
    degraded: bool

    @property
    def lag_s(self) -> float | None:
        """How far the oldest watermark is behind the as-of, in seconds."""
        return None if self.watermark_us is None else max(0, self.as_of_us - self.watermark_us) / SECOND_US


class OnlineFeatures:
    """Reads a product's views."""

    def __init__(self, product: Product, reader: FeatureReader) -> None:
        self._product = product
        self._service = feature_service(product)
        self._reader = ServiceReader(self._service, reader)

    async def now(self, request: msgspec.Struct, arrived_us: int) -> ViewsRead:
        """Return the views as of the request's arrival; stale by each view's ``max_lag``.

        Raises:
            AsOfInThePast: a row is younger than producers' clocks explain.
        """
        row = self._row(request)
        try:
            read = await self._reader.now([row], arrived_us)
        except (TransientFailure, PermanentFailure):
            return self._unavailable(row, arrived_us)
        return self._views(row, read.rows[0], read)

    async def at(self, request: msgspec.Struct, as_of_us: int) -> ViewsRead:
        """Return the views as of an instant; waits for watermarks within the budget, stale when one is behind.

        Raises:
            AsOfInThePast: a row is younger than the instant.
        """
        row = self._row(request)
        try:
            read = await self._reader.at([row], as_of_us)
        except (TransientFailure, PermanentFailure):
            return self._unavailable(row, as_of_us)
        return self._views(row, read.rows[0], read)

    async def each(
        self, requests: Sequence[msgspec.Struct], arrived_us: int, as_of_us: int | None
    ) -> list[ViewsRead | AsOfInThePast]:
        """Return the views of several requests, read at once: as ``at`` an instant, or as ``now`` without one."""
        rows = [self._row(request) for request in requests]
        try:
            if as_of_us is None:
                read = await self._reader.each_now(rows, arrived_us)
            else:
                read = await self._reader.each_at(rows, as_of_us)
        except (TransientFailure, PermanentFailure):
            return [self._unavailable(row, arrived_us if as_of_us is None else as_of_us) for row in rows]
        return [
            read.leaks.get(place) or self._views(row, stored, read)
            for place, (row, stored) in enumerate(zip(rows, read.rows, strict=True))
        ]

    async def due(
        self, requests: Sequence[msgspec.Struct], due_us: Sequence[int], *, wait_s: float, late_us: int
    ) -> list[ViewsRead]:
        """Return the views of questions that have fallen due, as `ServiceReader.due` reads them.

        What the store no longer has for an instant is unavailable, as if the store were away: never a younger value.

        Raises:
            TransientFailure, PermanentFailure: the store does not answer; `unavailable` is what is left then.
        """
        rows = [self._row(request) for request in requests]
        reads = await self._reader.due(rows, due_us, wait_s=wait_s, late_us=late_us)
        return [
            self._unavailable(row, instant_us) if read is None else self._views(row, read.rows[0], read)
            for row, instant_us, read in zip(rows, due_us, reads, strict=True)
        ]

    def unavailable(self, request: msgspec.Struct, as_of_us: int) -> ViewsRead:
        """Return the views as they are without a store: declared defaults, and a flag that says so (S10)."""
        return self._unavailable(self._row(request), as_of_us)

    def _row(self, request: msgspec.Struct) -> dict[str, str | None]:
        named = ((key, getattr(request, key)) for key in self._service.keys)
        return {key: None if value is None else str(value) for key, value in named}

    def _views(self, row: dict[str, str | None], stored: Sequence[StoredRow | None], read: ServiceRead) -> ViewsRead:
        views, stale, missing, watermarks = [], [], [], []
        for served, found, state, is_stale in zip(self._service.served, stored, read.states, read.stale, strict=True):
            name = served.name
            row_us = None if found is None else found.event_timestamp_us
            if row_us is None:
                missing.append(name)
            if found is not None:
                watermarks.append(state.watermark_us)
                if is_stale:
                    stale.append(name)
            views.append(
                ServedView(
                    view=name,
                    key=_entity(served.view.keys, row),
                    features=served.features,
                    values=self._product.empty_rows[name] if found is None else found.values,
                    row_time_us=row_us,
                    watermark_us=None if found is None else state.watermark_us,
                    revision=None if found is None else found.revision,
                )
            )
        known = [watermark_us for watermark_us in watermarks if watermark_us is not None]
        return ViewsRead(
            as_of_us=read.as_of_us,
            views=tuple(views),
            watermark_us=min(known) if known and len(known) == len(watermarks) else None,
            stale=tuple(stale),
            missing=tuple(missing),
            degraded=False,
        )

    def given(self, request: msgspec.Struct, as_of_us: int, values: GivenViews) -> ViewsRead:
        """Return the views whose values came with the request: nothing is read, and nothing is known of their age."""
        return self._unread(self._row(request), as_of_us, values, degraded=False)

    def _unavailable(self, row: dict[str, str | None], as_of_us: int) -> ViewsRead:
        return self._unread(row, as_of_us, (None,) * len(self._service.served), degraded=True)

    def _unread(
        self, row: dict[str, str | None], as_of_us: int, values: Sequence[tuple[Number, ...] | None], *, degraded: bool
    ) -> ViewsRead:
        views = tuple(
            ServedView(
                view=served.name,
                key=_entity(served.view.keys, row),
                features=served.features,
                values=each,
                row_time_us=None,
                watermark_us=None,
            )
            for served, each in zip(self._service.served, values, strict=True)
        )
        return ViewsRead(as_of_us=as_of_us, views=views, watermark_us=None, stale=(), missing=(), degraded=degraded)


def _entity(names: Sequence[str], row: dict[str, str | None]) -> dict[str, str] | None:
    entity = {name: value for name in names if (value := row[name]) is not None}
    return entity if len(entity) == len(names) else None
