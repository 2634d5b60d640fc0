"""The views of one request, read in one round trip, judged against its as-of (SEMANTICS S7, S10).

Exact means: every view's watermark has reached the as-of, and no row read is younger than it. Refuses a row from after
the as-of, whatever it costs the client: a leaked value looks like a good model. What bites: the store holds only the
newest row of an entity, so a past as-of can be answered only until the next event comes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from headway.adapters.redis_online import OnlineAnswer, OnlineRequest
from headway.clock import SECOND_US, duration_us, format_us, monotonic_s
from headway.errors import InputRejected, PermanentFailure, TransientFailure
from headway.predictions import ServedView
from headway.product import Product

# A request that names its instant may wait this long for the watermark; lock-step replays never need it.
WAIT_S = 0.2
_POLL_S = 0.02
# Producers' clocks run ahead of ours by less. For "now", a row this young moves the as-of; a younger one is refused.
_CLOCK_SKEW_US = 5 * SECOND_US


class AsOfInThePast(InputRejected):
    """The online store already holds something younger than the as-of; answer 409."""


class FeatureReader(Protocol):
    """Reads rows of the online store; `headway.adapters.redis_online.OnlineReader` is one."""

    async def read(self, requests: Sequence[OnlineRequest]) -> list[OnlineAnswer]:
        """One answer per request, in order, from one round trip; see the adapter."""
        ...

    async def close(self) -> None:
        """Release the connections, in the event loop that used them."""
        ...


@dataclass(frozen=True, kw_only=True)
class ViewsRead:
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    view: str
    online: str
    features: tuple[str, ...]
    max_lag_us: int


class OnlineFeatures:
    """Reads a product's views."""

    def __init__(self, product: Product, reader: FeatureReader) -> None:
        self._product = product
        self._reader = reader
        self._wanted = [
            _Wanted(use.view, view.online_name, use.features, duration_us(view.max_lag))
            for use, view in zip(product.views, product.feature_views.values(), strict=True)
        ]

    async def now(self, request: msgspec.Struct, arrived_us: int) -> ViewsRead:
        """Return the views as of the request's arrival; stale by each view's ``max_lag``.

        Raises:
            AsOfInThePast: a row is younger than producers' clocks explain.
        """
        keys, answers = await self._read(request)
        youngest_us = max((a.event_timestamp_us or 0 for a in answers or () if a is not None), default=0)
        as_of_us = youngest_us if arrived_us < youngest_us <= arrived_us + _CLOCK_SKEW_US else arrived_us
        return self._judged(keys, answers, as_of_us, limits_us=[wanted.max_lag_us for wanted in self._wanted])

    async def at(self, request: msgspec.Struct, as_of_us: int) -> ViewsRead:
        """Return the views as of an instant; waits for watermarks within the budget, stale when one is behind.

        Raises:
            AsOfInThePast: a row is younger than the instant.
        """
        deadline_s = monotonic_s() + WAIT_S
        while True:
            keys, answers = await self._read(request)
            read = self._judged(keys, answers, as_of_us, limits_us=[0] * len(self._wanted))
            if not read.stale or read.degraded or monotonic_s() >= deadline_s:
                return read
            await asyncio.sleep(_POLL_S)

    async def _read(
        self, request: msgspec.Struct
    ) -> tuple[list[dict[str, str] | None], list[OnlineAnswer | None] | None]:
        keys = [self._product.entity(wanted.view, request) for wanted in self._wanted]
        asked = [
            OnlineRequest(view=wanted.online, keys=key, features=wanted.features)
            for wanted, key in zip(self._wanted, keys, strict=True)
            if key is not None
        ]
        if not asked:
            return keys, [None] * len(keys)
        try:
            found = iter(await self._reader.read(asked))
        except (TransientFailure, PermanentFailure):
            return keys, None
        return keys, [None if key is None else next(found) for key in keys]

    def _judged(
        self,
        keys: Sequence[dict[str, str] | None],
        answers: Sequence[OnlineAnswer | None] | None,
        as_of_us: int,
        *,
        limits_us: Sequence[int],
    ) -> ViewsRead:
        if answers is None:
            return self._unavailable(keys, as_of_us)
        views, stale, missing, watermarks = [], [], [], []
        for wanted, key, answer, limit_us in zip(self._wanted, keys, answers, limits_us, strict=True):
            row_us = None if answer is None else answer.event_timestamp_us
            if row_us is None:
                missing.append(wanted.view)
            elif row_us > as_of_us:
                raise AsOfInThePast(
                    f"as_of: got {format_us(as_of_us)}, but {wanted.view} of {key} already holds {format_us(row_us)}; "
                    "the online store keeps only the newest row, ask the lake for the past"
                )
            watermark_us = None
            if answer is not None:
                watermark_us = None if answer.watermark_ms is None else answer.watermark_ms * 1000
                watermarks.append(watermark_us)
                if watermark_us is None or as_of_us - watermark_us > limit_us:
                    stale.append(wanted.view)
            views.append(
                ServedView(
                    view=wanted.view,
                    key=key,
                    features=wanted.features,
                    values=self._product.empty_rows[wanted.view] if answer is None else answer.values,
                    row_time_us=row_us,
                    watermark_us=watermark_us,
                )
            )
        known = [watermark_us for watermark_us in watermarks if watermark_us is not None]
        return ViewsRead(
            as_of_us=as_of_us,
            views=tuple(views),
            watermark_us=min(known) if known and len(known) == len(watermarks) else None,
            stale=tuple(stale),
            missing=tuple(missing),
            degraded=False,
        )

    def _unavailable(self, keys: Sequence[dict[str, str] | None], as_of_us: int) -> ViewsRead:
        views = tuple(
            ServedView(
                view=wanted.view, key=key, features=wanted.features, values=None, row_time_us=None, watermark_us=None
            )
            for wanted, key in zip(self._wanted, keys, strict=True)
        )
        return ViewsRead(as_of_us=as_of_us, views=views, watermark_us=None, stale=(), missing=(), degraded=True)
