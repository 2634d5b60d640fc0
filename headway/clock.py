"""Time as a value: the only module that reads the wall clock.

Inside Headway an instant is either an aware UTC ``datetime`` or, on hot paths, an ``int`` of microseconds since
the epoch whose name ends in ``_us``. No code reads the clock to decide a feature value (SEMANTICS S2).
"""

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from headway.errors import InputRejected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

# RFC 3339 with a zone; `datetime.fromisoformat` alone would also take dates without one.
_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$")


class Clock(Protocol):
    """Whatever can say what time it is."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's current instant, aware, in UTC."""
        return datetime.now(UTC)


class FrozenClock:
    """A clock whose hands only move when told to; for tests and replays."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Return the instant the hands show."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the hands forward."""
        self._now += by


def monotonic_s() -> float:
    """Return seconds on a clock that never jumps; for timeouts and durations only."""
    return time.monotonic()


def to_us(instant: datetime) -> int:
    """Return microseconds since the epoch of an aware datetime."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant!r} has no time zone; give an aware datetime")
    # Half the time of dividing by a microsecond, which is twice per event in a stream job.
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_US + since.microseconds


def from_us(instant_us: int) -> datetime:
    """Return the aware UTC datetime of microseconds since the epoch."""
    return EPOCH + instant_us * MICROSECOND


def duration_us(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // MICROSECOND


def parse_instant_us(text: str, *, field: str) -> int:
    """Return microseconds since the epoch of an RFC 3339 text with a zone.

    Raises:
        InputRejected: the text is not RFC 3339 or has no zone; names ``field``.
    """
    if not _RFC3339.match(text):
        raise InputRejected(f"{field}: got {text!r}, wanted an RFC 3339 instant with a zone, e.g. 2013-07-01T10:00:00Z")
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise InputRejected(f"{field}: got {text!r}, which is not a real instant ({error})") from error
    if instant.year in (1, 9999):
        # In UTC it may be another year, which no datetime can hold.
        raise InputRejected(f"{field}: got {text!r}, wanted a year from 2 to 9998")
    return to_us(instant)


def format_us(instant_us: int) -> str:
    """Return RFC 3339 in UTC, with microseconds only when there are any."""
    return from_us(instant_us).isoformat().replace("+00:00", "Z")


def floor_us(instant_us: int, step_us: int) -> int:
    """Return the greatest multiple of ``step_us`` on the UTC epoch that is not after the instant."""
    return instant_us - instant_us % step_us
