"""The features of a service for some rows, read in one round trip and judged against an as-of (SEMANTICS S7, S10).

The predictor, the feature API and the stream scorer all read through this. Exact means: every view's watermark has
reached the as-of, and no row read is younger than it. Refuses a row from after the as-of, whatever it costs the client: a
leaked value looks like a good model. What bites: the store holds only the newest row of an entity, so a past as-of can be
answered only until the next event comes.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from headway.clock import SECOND_US, format_us, monotonic_s
from headway.errors import InputRejected
from headway.features.online import FeatureReader, Keys, OnlineRows, StoredRow
from headway.features.readiness import ViewState
from headway.features.services import FeatureService

# A request that names its instant may wait this long for the watermark; lock-step replays never need it.
WAIT_S = 0.2
_POLL_S = 0.02
# Producers' clocks run ahead of ours by less. For "now", a row this young moves the as-of; a younger one is refused.
_CLOCK_SKEW_US = 5 * SECOND_US


class AsOfInThePast(InputRejected):
    """The online store already holds something younger than the as-of; answer 409."""


class ServiceRead(msgspec.Struct, frozen=True, gc=False):
    """What was read, view by view in the order of the service.

    Attributes:
        as_of_us: the instant the rows are for.
        states: of the views, as they were before the rows were read.
        stale: whether the view's watermark is too far behind.
        rows: for each row asked for, what each view holds; None where it has no entity.
        leaks: by place, the rows that hold something younger than the as-of, which nobody may use.
    """

    as_of_us: int
    states: tuple[ViewState, ...]
    stale: tuple[bool, ...]
    rows: list[tuple[StoredRow | None, ...]]
    leaks: Mapping[int, AsOfInThePast] = {}


class ServiceReader:
    """Reads the rows of one service."""

    def __init__(self, service: FeatureService, reader: FeatureReader) -> None:
        self.service = service
        self._read = reader.over(service.online)
        self._max_lags_us = tuple(served.max_lag_us for served in service.served)
        self._no_lag_us = (0,) * len(self._max_lags_us)

    async def now(self, rows: Sequence[Keys], arrived_us: int) -> ServiceRead:
        """Return the features as of the request's arrival; stale by each view's ``max_lag``.

        Raises:
            AsOfInThePast: a row is younger than producers' clocks explain.
            TransientFailure: the store does not answer.
        """
        return _without_leaks(await self.each_now(rows, arrived_us))

    async def at(self, rows: Sequence[Keys], as_of_us: int) -> ServiceRead:
        """Return the features as of an instant; waits for watermarks within the budget, stale when one is behind.

        Raises:
            AsOfInThePast: a row is younger than the instant.
            TransientFailure: the store does not answer.
        """
        return _without_leaks(await self.each_at(rows, as_of_us))

    async def each_now(self, rows: Sequence[Keys], arrived_us: int) -> ServiceRead:
        """Return the same as ``now``, but a row that is too young is told in ``leaks`` and the others are answered."""
        found = await self._read(rows)
        latest_us = arrived_us + _CLOCK_SKEW_US
        youngest_us = _youngest_us(found.rows)
        if youngest_us > latest_us:
            each_us = (_youngest_us([stored]) for stored in found.rows)
            youngest_us = max((row_us for row_us in each_us if row_us <= latest_us), default=arrived_us)
        return self._judged(rows, found, max(arrived_us, youngest_us), self._max_lags_us)

    async def each_at(self, rows: Sequence[Keys], as_of_us: int) -> ServiceRead:
        """Return the same as ``at``, but a row that is younger is told in ``leaks`` and the others are answered."""
        found = await self._reached(rows, as_of_us, wait_s=WAIT_S)
        return self._judged(rows, found, as_of_us, self._no_lag_us)

    async def due(
        self, rows: Sequence[Keys], due_us: Sequence[int], *, wait_s: float, late_us: int
    ) -> list[ServiceRead | None]:
        """Return what the store holds for questions that have fallen due, each as of its own instant, in one round trip.

        Waits for watermarks as `at` does, but ``wait_s``. What is younger than a question moves its as-of, by
        ``late_us`` at most; beyond that None: the store has nothing left of what was known then.

        Raises:
            TransientFailure: the store does not answer.
        """
        found = await self._reached(rows, max(due_us), wait_s=wait_s)
        reads: list[ServiceRead | None] = []
        for row, stored, instant_us in zip(rows, found.rows, due_us, strict=True):
            as_of_us = max(instant_us, _youngest_us([stored]))
            alone = OnlineRows(found.states, [stored])
            late = as_of_us > instant_us + late_us
            reads.append(None if late else self._judged([row], alone, as_of_us, self._no_lag_us))
        return reads

    async def _reached(self, rows: Sequence[Keys], as_of_us: int, *, wait_s: float) -> OnlineRows:
        """The rows once the watermarks of views with an entity have reached the instant, or when time is up."""
        found = await self._read(rows)
        asked = [place for place, stored in enumerate(zip(*found.rows, strict=True)) if any(stored)]
        if _behind(found.states, asked, as_of_us):
            deadline_s = monotonic_s() + wait_s
            while monotonic_s() < deadline_s:
                await asyncio.sleep(_POLL_S)
                # Watermarks alone: rows may be many, and are read once it is worth it.
                if not _behind((await self._read(())).states, asked, as_of_us):
                    return await self._read(rows)
        return found

    def _judged(
        self, rows: Sequence[Keys], found: OnlineRows, as_of_us: int, limits_us: tuple[int, ...]
    ) -> ServiceRead:
        stale = [
            state.watermark_us is None or as_of_us - state.watermark_us > limit_us
            for state, limit_us in zip(found.states, limits_us, strict=True)
        ]
        leaks = self._leaks(rows, found, as_of_us) if _youngest_us(found.rows) > as_of_us else {}
        return ServiceRead(as_of_us, found.states, tuple(stale), found.rows, leaks)

    def _leaks(self, rows: Sequence[Keys], found: OnlineRows, as_of_us: int) -> dict[int, AsOfInThePast]:
        leaks: dict[int, AsOfInThePast] = {}
        for place, (keys, stored) in enumerate(zip(rows, found.rows, strict=True)):
            for served, row in zip(self.service.served, stored, strict=True):
                row_us = None if row is None else row.event_timestamp_us
                if row_us is not None and row_us > as_of_us:
                    entity = {key: keys[key] for key in served.view.keys}
                    leaks[place] = AsOfInThePast(
                        f"as_of: got {format_us(as_of_us)}, but {served.name} of {entity} already holds "
                        f"{format_us(row_us)}; the online store keeps only the newest row, ask the lake for the past"
                    )
                    break
        return leaks


def _without_leaks(read: ServiceRead) -> ServiceRead:
    for leak in read.leaks.values():
        raise leak
    return read


def _behind(states: Sequence[ViewState], places: Sequence[int], as_of_us: int) -> bool:
    watermarks_us = (states[place].watermark_us for place in places)
    return any(watermark_us is None or watermark_us < as_of_us for watermark_us in watermarks_us)


def _youngest_us(rows: Sequence[Sequence[StoredRow | None]]) -> int:
    youngest_us = 0
    for stored in rows:
        for row in stored:
            if row is not None and row.event_timestamp_us is not None and row.event_timestamp_us > youngest_us:
                youngest_us = row.event_timestamp_us
    return youngest_us
