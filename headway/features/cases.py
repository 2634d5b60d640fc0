"""What the search for a first offence works on: one answer, and its entity's lake events (SEMANTICS S8)."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from headway.clock import HOUR_US, floor_us, format_us, to_us
from headway.features.bruteforce import Seen, values_at
from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.offline import AS_OF, SERVED

Answer = Mapping[str, Any]  # Any: one row of a frame whose columns the view names
# One entity's events in its widest window: hundreds. Each candidate replays all of them, so the search is quadratic.
MAX_CANDIDATES = 400
# How far from an answer the hypotheses look beyond its widest window: a zone's 14 hours and a row's leak of one.
_MARGIN_US = 15 * HOUR_US


class LakeEvent(Seen, frozen=True, kw_only=True):
    """One event of one entity, with where it came from and what its partition had ticked before it."""

    topic: str | None
    partition: int | None
    offset: int | None
    tick_before_us: int | None
    too_late: bool

    def known_at(self, served_us: int) -> bool:
        """Whether an answer under a watermark counts it: by its partition's tick, in bulk by its own instant."""
        if self.too_late:
            return False
        if self.topic is None:
            return self.time_us <= served_us
        return self.tick_before_us is None or self.tick_before_us < served_us


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where an event stands in its topic; the transport columns are null for events loaded in bulk."""

    event_id: str
    time_us: int
    topic: str | None
    partition: int | None
    offset: int | None

    @classmethod
    def of(cls, event: LakeEvent) -> "Position":
        """Return the position of an event."""
        return cls(
            event_id=event.event_id,
            time_us=event.time_us,
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
        )

    @property
    def told(self) -> str:
        """The place and the event, as people read them."""
        place = "loaded in bulk" if self.topic is None else f"{self.topic}[{self.partition}]@{self.offset}"
        return f"{place}, {self.event_id} of {format_us(self.time_us)}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One mismatched vector: what an entity's view said, under which watermark, and its events that could show in it.

    ``matched_us`` is the as-of of the entity's newest earlier prediction that matched, if any.
    """

    view: FeatureView
    events: Sequence[LakeEvent]
    as_of_us: int
    served_us: int
    served: Mapping[str, Value]
    matched_us: int | None

    @property
    def known(self) -> list[LakeEvent]:
        """Events the answer should have counted or already let go."""
        return [e for e in self.events if e.known_at(self.served_us)]

    @property
    def at_us(self) -> int:
        """The instant whose values should have been served: as_of, or behind it the watermark or the newest event."""
        if self.served_us >= self.as_of_us:
            return self.as_of_us
        return max([self.served_us, *(e.time_us for e in self.known if e.time_us <= self.as_of_us)])

    @property
    def start_us(self) -> int:
        """Start of the widest window; every event counts for a view with ``last_ever``."""
        if any(a.window is None for a in self.view.aggregates):
            return min((e.time_us for e in self.events), default=0) - 1
        return floor_us(self.at_us - self.view.max_window_us, self.view.hop_us)

    def explained_by(self, events: Iterable[Seen], at_us: int) -> bool:
        """Whether these events as of that instant give exactly the served vector."""
        return values_at(self.view, events, at_us) == dict(self.served)

    def suspects(self, events: Iterable[LakeEvent]) -> list[LakeEvent]:
        """Return events that count at the instant; first those after the last match, each part in time order."""
        matched_us = self.start_us if self.matched_us is None else self.matched_us
        inside = [e for e in events if self.start_us < e.time_us <= self.as_of_us]
        ordered = sorted(inside, key=lambda e: (e.time_us <= matched_us, e.time_us, e.event_id))
        return ordered[:MAX_CANDIDATES]


def key_of(view: FeatureView, row: Answer) -> tuple[str | None, ...]:
    """Return the entity an answer was asked for."""
    return tuple(row[key] for key in view.keys)


class Entities:
    """The lake events of the entities of some answers, and when those entities' answers matched."""

    def __init__(self, view: FeatureView, *, asked: pl.DataFrame, matched: pl.DataFrame, events: pl.DataFrame) -> None:
        self._view = view
        keys = list(view.keys)
        entities = asked.select(keys).unique()
        mine = events.filter(pl.col("type") == view.source).with_columns(pl.col(keys).cast(pl.String))
        self._events: dict[tuple[str | None, ...], list[LakeEvent]] = {}
        for row in mine.join(entities, on=keys, how="semi").sort("time", "id").iter_rows(named=True):
            self._events.setdefault(key_of(view, row), []).append(_lake_event(view, row))
        self._matched: dict[tuple[str | None, ...], list[int]] = {}
        for row in matched.join(entities, on=keys, how="semi").sort(AS_OF).iter_rows(named=True):
            self._matched.setdefault(key_of(view, row), []).append(row[AS_OF])

    def events(self, answer: Answer) -> list[LakeEvent]:
        """Return the events of an answer's entity, in time order."""
        return self._events.get(key_of(self._view, answer), [])

    def _near(self, answer: Answer) -> Sequence[LakeEvent]:
        """Return the events that some hypothesis about an answer can count: not months of them."""
        events, view = self.events(answer), self._view
        first_us, last_us = sorted((answer[AS_OF], answer[SERVED]))
        high = bisect_right(events, last_us + _MARGIN_US, key=_time_of)
        if any(a.window is None for a in view.aggregates):
            return events[:high]
        # Twice the window: an older row looked back from the start of the newest one's.
        low_us = first_us - 2 * view.max_window_us - view.hop_us - _MARGIN_US
        return events[bisect_left(events, low_us, key=_time_of) : high]

    def case(self, answer: Answer) -> Case:
        """Return an answer as a case to explain."""
        as_of_us = answer[AS_OF]
        matched = self._matched.get(key_of(self._view, answer), [])
        earlier = bisect_left(matched, as_of_us)
        return Case(
            view=self._view,
            events=self._near(answer),
            as_of_us=as_of_us,
            served_us=answer[SERVED],
            served={name: answer[f"served:{name}"] for name in self._view.columns},
            matched_us=matched[earlier - 1] if earlier else None,
        )


def _time_of(event: LakeEvent) -> int:
    return event.time_us


def _lake_event(view: FeatureView, row: Answer) -> LakeEvent:
    tick_before = row["tick_before"]
    return LakeEvent(
        time_us=to_us(row["time"]),
        event_id=row["id"],
        values={name: row[name] for name in view.fields},
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        tick_before_us=None if tick_before is None else to_us(tick_before),
        too_late=bool(row["too_late"]),
    )
