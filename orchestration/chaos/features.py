"""Whether the online store holds, for every entity that events touched, what those events say (S8)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineReader, OnlineRequest, OnlineWriter
from headway.clock import format_us, monotonic_s
from headway.contracts import Domain
from headway.errors import TransientFailure
from headway.features.definitions import FeatureView
from headway.features.offline import values_at
from headway.settings import Settings
from orchestration.chaos.patience import wait_while_moving
from streaming.accounts import least_watermark

_POLL_S = 0.5
_NAMED = 20
# A reader gives up after a quarter of a second, which thousands of entities can take on a busy machine.
_ASKED_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Features:
    """How many entities were compared, how many differ, and the first of those."""

    checked: int
    wrong: int
    named: list[str]


def differing_features(settings: Settings, domain: Domain, lake: Lake, *, as_of_us: int, within_s: float) -> Features:
    """Compare the online values of every entity of every view with those recomputed from the lake's events.

    Waits until all watermarks have reached ``as_of_us``; one that does not, and has not moved for ``within_s``, is told
    as a difference.
    """
    reached = await_watermark(settings, domain, as_of_us, unmoved_s=within_s)
    if reached is None or reached < as_of_us:
        got = "none" if reached is None else format_us(reached)
        return Features(checked=0, wrong=1, named=[f"watermark: got {got}, wanted {format_us(as_of_us)}"])
    events = lake.read("events")
    checked, named = 0, []
    for view in domain.views:
        keys = events.filter(pl.col("type") == view.source).select(view.keys).drop_nulls().unique().sort(view.keys)
        asked = keys.with_columns(as_of_us=pl.lit(as_of_us, pl.Int64), served_watermark_us=pl.lit(as_of_us, pl.Int64))
        wanted = values_at(events, view, asked, mode="as_served").select(list(view.columns)).rows()
        got_values = online_values(settings, view, keys)
        checked += len(wanted)
        named += [
            f"{view.qualified} {key}: online {got}, events say {want}"
            for key, got, want in zip(keys.iter_rows(), got_values, wanted, strict=True)
            if got != want
        ]
    return Features(checked=checked, wrong=len(named), named=named[:_NAMED])


def online_values(settings: Settings, view: FeatureView, keys: pl.DataFrame) -> list[tuple[object, ...]]:
    """Return a view's values for each row of its key columns, as the online store has them."""

    async def read() -> list[tuple[object, ...]]:
        reader = OnlineReader(f"redis://{settings.online_store}", settings.feast_project)
        features = tuple(view.columns)
        requests = [
            OnlineRequest(view=view.online_name, keys=dict(zip(view.keys, key, strict=True)), features=features)
            for key in keys.iter_rows()
        ]
        answers = []
        for start in range(0, len(requests), _ASKED_AT_ONCE):
            answers += await reader.read(requests[start : start + _ASKED_AT_ONCE])
        await reader.close()
        return [tuple(answer.values) for answer in answers]

    return asyncio.run(read())


def await_watermark(
    settings: Settings, domain: Domain, wanted_us: int, *, unmoved_s: float, told: Callable[[int], None] | None = None
) -> int | None:
    """Return the least watermark over the views once it has reached an instant, or has not moved for so long.

    ``told`` hears each watermark that is seen on the way.
    """
    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    least = least_watermark(store, domain.views)

    def reached() -> int | None:
        try:
            now = least()
        except TransientFailure:  # a store that is killed on purpose comes back
            return None
        if now is not None and told is not None:
            told(now)
        return now

    try:
        return wait_while_moving(reached, wanted=wanted_us, unmoved_s=unmoved_s, every_s=_POLL_S)
    finally:
        store.close()


def reach_watermark(
    settings: Settings, domain: Domain, wanted_us: int, *, unmoved_s: float, told: Callable[[int], None] | None = None
) -> float:
    """Wait until everything up to an instant is online, for as long as it moves; return how many seconds that took.

    Raises:
        TransientFailure: the least watermark stood still for ``unmoved_s``.
    """
    begun_s = monotonic_s()
    reached = await_watermark(settings, domain, wanted_us, unmoved_s=unmoved_s, told=told)
    if reached is None or reached < wanted_us:
        shown = "none" if reached is None else format_us(reached)
        raise TransientFailure(f"watermark: got {shown}, wanted {format_us(wanted_us)}; it stood for {unmoved_s:.0f} s")
    return monotonic_s() - begun_s
