"""What a feature view is, validated when it is written down, with one meaning for every engine (SEMANTICS S1-S10).

A view belongs to a domain and is shared by products (S19). Its hash covers everything that changes a value; the same
name and version with another hash is an error when definitions load.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from headway.clock import DAY_US, HOUR_US, MINUTE_US, duration_us
from headway.errors import ContractViolation
from headway.features.named import NamedView
from headway.features.wellformed import check_aggregate, check_view

Function = Literal["count", "sum", "mean", "min", "max", "last", "last_at", "last_ever"]
Dtype = Literal["int64", "float64"]

DEFAULT_HOP = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One number over a trailing window of one entity's events.

    ``count`` without a field counts events, with a field counts its non-null values; ``last_at`` is the event time in
    microseconds of the newest event (or newest non-null ``field``) inside the window; ``last_ever`` has no window.
    """

    function: Function
    field: str | None = None
    window: timedelta | None = None

    def __post_init__(self) -> None:
        check_aggregate(self, functions=get_args(Function))

    @property
    def window_us(self) -> int:
        """The window in microseconds; only for aggregates that have one."""
        if self.window is None:
            raise ContractViolation(f"{self.name} has no window")
        return duration_us(self.window)

    @property
    def name(self) -> str:
        """The feature's name inside its view, e.g. ``mean_dep_delay_min_1h``."""
        parts = [self.function, self.field, short_duration(self.window) if self.window else None]
        return "_".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class FeatureView(NamedView):
    """Trailing-window features of one entity, fed by one event type.

    Attributes:
        keys: event fields that name the entity; an event where any is null does not touch the view.
        source: event type that feeds it.
        fields: event fields it reads, with their type. Under sum and mean only int64, so that engines agree bit for
            bit (S9); floats may be last, min or max.
        hop: windows start at multiples of it on the UTC epoch (S1).
        max_lag: a served value is ``stale`` when T - watermark(view) exceeds it (S10).
        lateness: how late, against its partition's ticks, an event may be and still correct rows (S6).
        owner: who answers for it; ``description`` says what it means. Both are in the catalogue.
    """

    keys: tuple[str, ...]
    source: str
    fields: Mapping[str, Dtype]
    aggregates: tuple[Aggregate, ...]
    owner: str
    description: str
    hop: timedelta = DEFAULT_HOP
    max_lag: timedelta = timedelta(minutes=15)
    lateness: timedelta = timedelta(hours=2)

    def __post_init__(self) -> None:
        check_view(self, dtypes=get_args(Dtype))

    @property
    def hop_us(self) -> int:
        """The hop in microseconds."""
        return duration_us(self.hop)

    @property
    def lateness_us(self) -> int:
        """The allowed lateness in microseconds."""
        return duration_us(self.lateness)

    @property
    def max_window_us(self) -> int:
        """The widest window in microseconds; 0 when there are only ``last_ever`` aggregates."""
        return max((a.window_us for a in self.aggregates if a.window is not None), default=0)

    @property
    def windows_us(self) -> tuple[int, ...]:
        """The distinct windows in microseconds, ascending."""
        return tuple(sorted({a.window_us for a in self.aggregates if a.window is not None}))

    @property
    def columns(self) -> dict[str, Dtype]:
        """Feature names and types, in declaration order."""
        return {a.name: self.dtype(a) for a in self.aggregates}

    def dtype(self, aggregate: Aggregate) -> Dtype:
        """Return the type of one aggregate's values."""
        if aggregate.function in ("count", "last_at", "sum"):
            return "int64"
        if aggregate.function == "mean":
            return "float64"
        return self.fields[str(aggregate.field)]

    @property
    def digest(self) -> str:
        """First 16 hex of SHA-256 over everything that changes a value."""
        meaning = {
            "name": self.name,
            "version": self.version,
            "keys": self.keys,
            "source": self.source,
            "fields": dict(sorted(self.fields.items())),
            "aggregates": [a.name for a in self.aggregates],
            "hop_us": self.hop_us,
            "lateness_us": self.lateness_us,
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def short_duration(duration: timedelta) -> str:
    """Return a duration as names and pages write it: ``5m``, ``24h``, ``2d``.

    Raises:
        ContractViolation: it is not whole minutes.
    """
    total = duration_us(duration)
    for unit, name in ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "m")):
        if total % unit == 0 and total >= unit and not (name == "d" and total == DAY_US):
            return f"{total // unit}{name}"
    raise ContractViolation(f"window {duration}: wanted whole minutes")
