"""How a backfill is cut so that memory does not grow with history: stretches of time, and parts of their entities.

A stretch begins where the one before ends and looks back on the events its first windows still hold, so fewer and longer
ones do less work twice. One that holds more events than the limit is cut by entities as well. The least that has to fit
in memory is what one entity had in three times its longest window.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from headway.clock import DAY_US, floor_us, format_us, from_us, to_us
from headway.drift import Window
from headway.features.definitions import FeatureView

# About 1.5 GB with the rows they make, for the widest view there is. Half as many make a year 4 % slower.
SLICE_EVENTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A stretch of time whose rows are made together, in so many parts of its entities, from so many events."""

    window: Window
    since_us: int | None
    events: int
    parts: int


def reach_us(view: FeatureView) -> int | None:
    """Return how far before a stretch its first windows look; None when a ``last_ever`` remembers for good."""
    if any(aggregate.window is None for aggregate in view.aggregates):
        return None
    return view.max_window_us + view.hop_us


def slices(
    view: FeatureView, window: Window, by_day: Mapping[int, int], *, limit: int = SLICE_EVENTS
) -> Iterator[Slice]:
    """Yield the slices that cover a window, in order, none of more events than the limit if entities allow.

    Args:
        view: whose windows look back.
        window: [from, until).
        by_day: events of the view's type by the day (us) they happened in; days without any may be left out.
        limit: events of one part, with those it looks back on.
    """
    back_us = reach_us(view)
    if back_us is None:
        events = sum(count for day_us, count in by_day.items() if day_us < window.until_us)
        yield Slice(window=window, since_us=None, events=events, parts=part_count(events, limit))
        return
    for stretch in stretches(window, by_day, shortest_us=2 * back_us, limit=limit):
        since_us = stretch.from_us - back_us
        events = events_in(by_day, since_us, stretch.until_us)
        yield Slice(window=stretch, since_us=since_us, events=events, parts=part_count(events, limit))


def stretches(window: Window, by_day: Mapping[int, int], *, shortest_us: int, limit: int) -> Iterator[Window]:
    """Yield what a window is cut into: whole months, or days, of no more events than the limit unless shorter than that."""
    return _packed(_pieces(window, by_day, limit=limit), shortest_us=shortest_us, limit=limit)


def events_in(by_day: Mapping[int, int], from_us: int, until_us: int) -> int:
    """Return the events of all days that a stretch touches."""
    return sum(by_day.get(day_us, 0) for day_us in range(floor_us(from_us, DAY_US), until_us, DAY_US))


def part_count(events: int, limit: int) -> int:
    """Return in how many parts so many events have to be taken."""
    return max(1, -(-events // limit))


def months(window: Window) -> Iterator[tuple[str, Window]]:
    """Yield the months (UTC) of a window by name, each with what the window has of it."""
    for stretch in _cut(window, _next_month):
        yield format_us(stretch.from_us)[:7], stretch


def _packed(pieces: Iterable[tuple[Window, int]], *, shortest_us: int, limit: int) -> Iterator[Window]:
    held: Window | None = None
    total = 0
    for piece, events in pieces:
        if held is None:
            held, total = piece, events
        elif total + events <= limit or held.until_us - held.from_us < shortest_us:
            held, total = Window(from_us=held.from_us, until_us=piece.until_us), total + events
        else:
            yield held
            held, total = piece, events
    if held is not None:
        yield held


def _pieces(window: Window, by_day: Mapping[int, int], *, limit: int) -> Iterator[tuple[Window, int]]:
    """Yield months with their events; the days of a month that is too large. Whole months leave whole files."""
    for _, month in months(window):
        events = events_in(by_day, month.from_us, month.until_us)
        if events <= limit:
            yield month, events
        else:
            for day in _cut(month, _next_day):
                yield day, events_in(by_day, day.from_us, day.until_us)


def _cut(window: Window, following: Callable[[int], int]) -> Iterator[Window]:
    from_us = window.from_us
    while from_us < window.until_us:
        until_us = min(following(from_us), window.until_us)
        yield Window(from_us=from_us, until_us=until_us)
        from_us = until_us


def _next_month(at_us: int) -> int:
    at = from_us(at_us)
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return to_us(first.replace(year=at.year + at.month // 12, month=at.month % 12 + 1))


def _next_day(at_us: int) -> int:
    return floor_us(at_us, DAY_US) + DAY_US
