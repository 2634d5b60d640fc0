"""What R11 sends: history out of order, some of it twice, some at equal instants, some too late to count.

Real departures, arrivals, cancellations and weather in the order of time are the base; each disturbance is drawn, and
counted. A repeat keeps its id, and half of the repeats say something else, as the first copy has to win (S12).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from headway.clock import HOUR_US
from headway.events import Event
from orchestration.chaos.feed import STEP_US, Item, Tick

LATE, REPEATED, TIED, FAR_TOO_LATE = 0.20, 0.10, 0.05, 0.01
# In events: some three hours of history, which flights may be late and hourly weather may not.
_LATE_AT_MOST = 250
_REPEATED_WITHIN = 300
# Two days, beyond the 26 hours that flights may be late.
_FAR = 4_000
# An older instant would be too late itself.
_TIE_WITHIN_US = 12 * HOUR_US
_SETTLED_US = 2 * STEP_US


@dataclass(frozen=True, kw_only=True)
class Disorder:
    """What is to be sent, in order, and how much of each disturbance is in it; ``end_us`` is the last tick."""

    items: Sequence[Item]
    end_us: int
    updates: int
    late: int
    repeated: int
    tied: int
    far_too_late: int


def plan_disorder(base: Sequence[Event], generator: random.Random) -> Disorder:
    """Return the base with every disturbance, and ticks by the time of the base."""
    placed: list[tuple[int, int, Event]] = []
    late = repeated = tied = far = 0
    newest: dict[tuple[str, object], int] = {}
    for place, original in enumerate(base):
        event, sent_at = original, place
        entity = (event.type, event.data.get("tail") or event.data["origin"])
        equal_us = newest.get(entity)
        if equal_us is not None and event.time_us - equal_us < _TIE_WITHIN_US and generator.random() < TIED:
            # Its name sorts anywhere among its equals, so that arrival does not tell which is the last.
            event = msgspec.structs.replace(event, id=f"{generator.getrandbits(32):08x}-{event.id}", time_us=equal_us)
            tied += 1
        newest[entity] = event.time_us
        draw = generator.random()
        if draw < FAR_TOO_LATE:
            sent_at, far = place + _FAR, far + 1
        elif draw < FAR_TOO_LATE + LATE:
            sent_at, late = place + generator.randint(1, _LATE_AT_MOST), late + 1
        placed.append((sent_at, len(placed), event))
        if generator.random() < REPEATED:
            again = _changed(event) if generator.random() < 0.5 else event
            placed.append((sent_at + generator.randint(1, _REPEATED_WITHIN), len(placed), again))
            repeated += 1
    placed.sort(key=lambda each: each[:2])
    end_us = -(-base[-1].time_us // STEP_US) * STEP_US + _SETTLED_US
    return Disorder(
        items=list(_with_ticks(placed, base, end_us=end_us)),
        end_us=end_us,
        updates=len(placed),
        late=late,
        repeated=repeated,
        tied=tied,
        far_too_late=far,
    )


def _changed(event: Event) -> Event:
    """The same event with other measurements."""
    changed = {
        name: value + 1
        for name, value in event.data.items()
        if name in ("dep_delay_min", "arr_delay_min", "wind_dir_deg") and isinstance(value, int)
    }
    return msgspec.structs.replace(event, data={**event.data, **changed})


def _with_ticks(placed: Sequence[tuple[int, int, Event]], base: Sequence[Event], *, end_us: int) -> Iterator[Item]:
    tick_us = base[0].time_us // STEP_US * STEP_US
    for place, _, event in placed:
        now_us = base[min(place, len(base) - 1)].time_us
        while tick_us + STEP_US < now_us:
            tick_us += STEP_US
            yield Tick(tick_us)
        yield event
    while tick_us < end_us:
        tick_us += STEP_US
        yield Tick(tick_us)
