"""Whether the online store holds, for every entity that events touched, what those events say (S8)."""

import asyncio
import time
from dataclasses import dataclass

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineReader, OnlineRequest, OnlineWriter
from headway.clock import format_us, monotonic_s
from headway.contracts import Domain
from headway.features.definitions import FeatureView
from headway.features.offline import values_at
from headway.settings import Settings
from streaming.accounts import least_watermark

_POLL_S = 0.5
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Features:
    """How many entities were compared, how many differ, and the first of those."""

    checked: int
    wrong: int
    named: list[str]


def differing_features(settings: Settings, domain: Domain, lake: Lake, *, as_of_us: int, within_s: float) -> Features:
    """Compare the online values of every entity of every view with those recomputed from the lake's events.

    Waits until all watermarks have reached ``as_of_us``; a watermark that does not is told as a difference.
    """
    reached = _await_watermark(settings, domain, as_of_us, within_s=within_s)
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
        answers = await reader.read(requests)
        await reader.close()
        return [tuple(answer.values) for answer in answers]

    return asyncio.run(read())


def _await_watermark(settings: Settings, domain: Domain, wanted_us: int, *, within_s: float) -> int | None:
    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    watermark = least_watermark(store, domain.views)
    deadline_s = monotonic_s() + within_s
    try:
        while ((reached := watermark()) is None or reached < wanted_us) and monotonic_s() < deadline_s:
            time.sleep(_POLL_S)
    finally:
        store.close()
    return reached
