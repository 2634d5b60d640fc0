"""The meaning of a view in ten lines: look at every event, every time (SEMANTICS S1).

Slow on purpose and obviously right. Tests hold every engine to it, and the parity check asks it what a single event
changes.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from headway.clock import floor_us
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView
from headway.features.tiles import tile_of


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one entity."""

    time_us: int
    event_id: str
    values: Mapping[str, Value]


def values_at(view: FeatureView, events: Iterable[Seen], at_us: int) -> dict[str, Value]:
    """Return a view's values as of an instant, from all events of one entity."""
    ordered = sorted((e for e in events if e.time_us <= at_us), key=lambda e: (e.time_us, e.event_id))
    return {a.name: _value(view, a, ordered, at_us) for a in view.aggregates}


def _value(view: FeatureView, aggregate: Aggregate, ordered: Collection[Seen], at_us: int) -> Value:
    field, function = aggregate.field, aggregate.function
    start_us = None if function == "last_ever" else floor_us(at_us - aggregate.window_us, view.hop_us)
    inside = [e for e in ordered if start_us is None or e.time_us > start_us]
    seen = [(e, e.time_us if field is None else e.values[field]) for e in inside]
    kept = [(e, value) for e, value in seen if value is not None]
    if function == "count" or not kept:
        return len(kept) if function == "count" else None
    numbers = [value for _, value in kept]
    total = sum(numbers)
    return {
        "sum": total,
        "mean": float(total) / len(numbers),
        "min": min(numbers),
        "max": max(numbers),
        "last": numbers[-1],
        "last_ever": numbers[-1],
        "last_at": kept[-1][0].time_us,
    }[function]


def row_instants(view: FeatureView, events: Iterable[Seen], *, until_us: int) -> list[int]:
    """Return the instants <= until at which an entity has a row: its events, and each tile's end plus each window."""
    times = {e.time_us for e in events}
    ends = {tile_of(time_us, view.hop_us) * view.hop_us for time_us in times}
    return sorted(t for t in times | {end + w for end in ends for w in view.windows_us} if t <= until_us)
