"""When letters are worth waking somebody: a cause never seen before, or a rate that is not usual. Totals say nothing.

Pure: instants and counts come in, alerts go out. Time is when a letter was written, not when it is read, so a watcher
that was away and catches up raises no alert about a rate of hours ago. A rate is raised above one bound and taken back
below a lower one, so that a value at the bound does not raise it every minute.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from headway.clock import HOUR_US, MINUTE_US, SECOND_US, format_us
from headway.letter_causes import without_values
from headway.letters import Kind, Letter, LetterPlace, Reason
from headway.ports import Message, Record
from headway.topics import LETTERS_CAUSES

# A producer that makes up types or field names makes up causes; past this many, one alert says so and memory stays.
MAX_CAUSES = 1_000
# After it was sent. Long enough to be seen after a night, short enough not to pile up.
SHOWN_FOR_US = 12 * HOUR_US

AlertKind = Literal["new-cause", "rate", "too-many-causes"]


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A cause of letters, as it was first seen; the value of its record in ``letters.causes``."""

    fingerprint: str
    reason: Reason
    event_type: str | None
    path: str | None
    text: str
    letter: str
    first_us: int

    def to_record(self) -> Record:
        """Return the record that keeps this cause known, over restarts and for good."""
        return Record(topic=LETTERS_CAUSES, key=self.fingerprint.encode(), value=msgspec.json.encode(self))


def cause_of(place: LetterPlace, letter: Letter, *, written_us: int) -> Cause:
    """Return the cause of a letter, with this letter as its first."""
    return Cause(
        fingerprint=letter.fingerprint,
        reason=letter.reason,
        event_type=letter.event_type,
        path=letter.path,
        text=without_values(letter.detail),
        letter=place.id,
        first_us=written_us,
    )


def kept_cause(message: Message) -> Cause:
    """Return the cause kept in a record of ``letters.causes``."""
    return msgspec.json.decode(message.value or b"", type=Cause)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something a person should look at, or, with ``resolved``, need not look at any more.

    ``key`` is equal for the same alert, raised and resolved; ``facts`` are texts.
    """

    kind: AlertKind
    key: str
    summary: str
    at_us: int
    started_us: int
    resolved: bool = False
    facts: tuple[tuple[str, str], ...] = ()


class AlertReceiver(Protocol):
    """Whoever shows alerts to people: one alert per ``kind`` and ``key``, until it is resolved or `SHOWN_FOR_US` old."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Hand alerts over; a repeat of one is no second one.

        Raises:
            TransientFailure: it does not answer, or not now; send them again.
            PermanentFailure: it refuses one of them for what it is; the others are taken.
        """
        ...


def new_cause_alert(cause: Cause) -> Alert:
    """Return the alert that a cause was never seen before."""
    about = " ".join(part for part in (cause.reason, cause.event_type, cause.path) if part)
    return Alert(
        kind="new-cause",
        key=cause.fingerprint,
        summary=f"letters of a new cause: {about}: {cause.text}",
        at_us=cause.first_us,
        started_us=cause.first_us,
        facts=(("reason", cause.reason), ("fingerprint", cause.fingerprint), ("letter", cause.letter)),
    )


def too_many_causes_alert(at_us: int) -> Alert:
    """Return the alert that new causes are no longer told one by one."""
    summary = (
        f"more than {MAX_CAUSES} causes of letters; further ones are counted and not told: some producer makes them up"
    )
    return Alert(kind="too-many-causes", key="too-many-causes", summary=summary, at_us=at_us, started_us=at_us)


@dataclass(frozen=True, kw_only=True)
class RatePolicy:
    """When a share of letters is unusual.

    Attributes:
        fires_at, clears_at: share of letters among all that was offered within the window.
        least_letters: fewer than this in a window alert nobody: of three events at night one may be bad.
        least_watched_us: after a start, a share of less than this is that of chance.
    """

    window_us: int = 5 * MINUTE_US
    least_watched_us: int = MINUTE_US
    fires_at: float = 0.05
    clears_at: float = 0.02
    least_letters: int = 20


@dataclass(frozen=True)
class Rate:
    """Letters and what was offered (accepted events and letters of the door) within a window."""

    letters: int
    offered: int

    @property
    def share(self) -> float:
        """Letters per offered event."""
        return self.letters / self.offered if self.offered else 0.0


@dataclass
class RateWatch:
    """Raises and resolves one alert about the share of letters; remembers one window, by the second."""

    policy: RatePolicy = field(default_factory=RatePolicy)
    _letters: Counter[int] = field(default_factory=Counter)
    _at_the_door: Counter[int] = field(default_factory=Counter)
    _accepted: deque[tuple[int, int]] = field(default_factory=deque)
    firing: Alert | None = None

    def note_letter(self, kind: Kind, *, written_us: int) -> None:
        """Count one letter."""
        self._letters[written_us // SECOND_US] += 1
        # An enriched letter's event is among the accepted; one refused at the door is not.
        if kind == "raw":
            self._at_the_door[written_us // SECOND_US] += 1

    def note_accepted(self, total: int, *, at_us: int) -> None:
        """Take how many events have ever been accepted, as of now."""
        self._accepted.append((at_us, total))

    def rate(self, now_us: int) -> Rate:
        """Return the rate of the window that ends now, or of as much of it as has been watched."""
        start_us = now_us - self.policy.window_us
        # The newest sample at or before the window's start stays: what came after it is what the window counts.
        while len(self._accepted) > 1 and self._accepted[1][0] <= start_us:
            self._accepted.popleft()
        since = max(start_us, self._accepted[0][0] if self._accepted else start_us) // SECOND_US
        for counts in (self._letters, self._at_the_door):
            for second in [each for each in counts if each < since]:
                del counts[second]
        if not self._accepted or self._accepted[-1][0] - self._accepted[0][0] < self.policy.least_watched_us:
            return Rate(0, 0)
        accepted = self._accepted[-1][1] - self._accepted[0][1]
        return Rate(self._letters.total(), max(accepted + self._at_the_door.total(), self._letters.total()))

    def decide(self, now_us: int) -> Alert | None:
        """Return the alert to raise or to take back now; None when nothing changed."""
        rate, policy = self.rate(now_us), self.policy
        unusual = rate.letters >= policy.least_letters and rate.share >= policy.fires_at
        if self.firing is None and unusual:
            self.firing = self._alert(rate, now_us, started_us=now_us)
            return self.firing
        if self.firing is not None and rate.share < policy.clears_at:
            started_us, self.firing = self.firing.started_us, None
            return self._alert(rate, now_us, started_us=started_us, resolved=True)
        return None

    def _alert(self, rate: Rate, now_us: int, *, started_us: int, resolved: bool = False) -> Alert:
        minutes = self.policy.window_us // MINUTE_US
        return Alert(
            kind="rate",
            key="rate",
            summary=f"{rate.letters:,} letters of {rate.offered:,} events in {minutes} min ({rate.share:.1%})",
            at_us=now_us,
            started_us=started_us,
            resolved=resolved,
            facts=(("since", format_us(started_us)),),
        )
