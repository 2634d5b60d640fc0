"""The days of the demo, in one place. All instants are UTC; the airports' midnight is 04:00 in summer."""

from dataclasses import dataclass
from datetime import timedelta

from headway.clock import DAY_US, HOUR_US, format_us, parse_instant_us
from headway.drift import from_us_local


@dataclass(frozen=True)
class Stretch:
    """A stretch of event time, (after, until]: open on the left, so that neighbours share no event and miss none."""

    after_us: int
    until_us: int

    @property
    def config(self) -> dict[str, str]:
        """The stretch as the half-open [start, end) that Dagster's runs are configured with."""
        return {"start": format_us(self.after_us + 1), "end": format_us(self.until_us + 1)}

    @property
    def months(self) -> tuple[str, str]:
        """First and last month as partition keys."""
        return f"{format_us(self.after_us + 1)[:7]}-01", f"{format_us(self.until_us)[:7]}-01"

    def __str__(self) -> str:
        return f"{format_us(self.after_us)[:16]}Z to {format_us(self.until_us)[:16]}Z"


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """Stretches that follow each other, so every event is loaded or streamed exactly once.

    Attributes:
        history: bulk-loaded first; v1 learns from it.
        july: streamed, with a prediction for everything asked.
        between: bulk-loaded and batch-scored, so that the monitor has whole weeks.
        september: streamed with the planted change.
        after: bulk-loaded with the planted change and batch-scored, until two planted weeks are mature.
        planted_from_us: Monday of the first planted week; the change is judged by scheduled departure.
    """

    history: Stretch
    july: Stretch
    between: Stretch
    september: Stretch
    after: Stretch
    planted_from_us: int


def demo_calendar(*, hours: int) -> Calendar:
    """Return the calendar with so many hours streamed in July and in September; 48 in the full demo."""
    july, september = _at("2013-07-01T04:00:00Z"), _at("2013-09-02T04:00:00Z")
    july_end, september_end = july + hours * HOUR_US, september + hours * HOUR_US
    return Calendar(
        history=Stretch(_at("2012-12-31T00:00:00Z"), july),
        july=Stretch(july, july_end),
        between=Stretch(july_end, september),
        september=Stretch(september, september_end),
        # Two planted weeks, and a day and a half in which the last labels mature.
        after=Stretch(september_end, september + 15 * DAY_US + 12 * HOUR_US),
        planted_from_us=september,
    )


def week_keys(stretch: Stretch, *, zone: str) -> tuple[str, str]:
    """Return first and last week of a stretch as partition keys: Mondays, local dates."""
    ends = (from_us_local(instant_us, zone) for instant_us in (stretch.after_us + 1, stretch.until_us))
    first, last = ((day - timedelta(days=day.weekday())).strftime("%Y-%m-%d") for day in ends)
    return first, last


def _at(text: str) -> int:
    return parse_instant_us(text, field="demo calendar")
