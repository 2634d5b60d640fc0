"""When a job waits: for a dependency, for its breaker, for a full sink. It waits paused, and stays in its group.

Waiting happens between polls and never inside a sleep: a member that does not poll is expelled, its partitions move, and
the next instance meets the same outage.
"""

from collections.abc import Callable, Sequence

import structlog

from headway.breaker import LEAST_RECORDS, Cause, retry_delay_s
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.ports import EventLog, Message
from streaming.instruments import Instruments
from streaming.isolate import EverythingFails

# Tries of a few records that all fail, before they are given up: some 10 s, in which others may come and pass.
TRIES_ALONE = 5
_LOG = structlog.get_logger()


class NotCommitted(TransientFailure):
    """The transaction was refused, or its outcome is unknown: read again at once, nobody is down."""


class StateUnreadable(TransientFailure):
    """A partition's state could not be read back, so none of its records can be handled."""


class Patience:
    """Holds one log back, for as long as it has to be."""

    def __init__(self, log: EventLog, instruments: Instruments) -> None:
        self._log = log
        self._instruments = instruments
        self._until_s: float | None = None
        self._pressed = False
        self.tries = 0

    @property
    def holding(self) -> bool:
        """Whether the job waits for its next try."""
        return self._until_s is not None

    def hold(self, failure: Exception, *, cause: Cause, records: int) -> None:
        """Put back what is not committed and take nothing for a while; ``records`` count as failed by us."""
        self.tries += 1
        delay_s = retry_delay_s(self.tries)
        self._until_s = monotonic_s() + delay_s
        instruments = self._instruments
        _LOG.warning(
            "held back", job=instruments.job, cause=cause, reason=str(failure), records=records, tries=self.tries,
            delay_s=round(delay_s, 2),
        )  # fmt: skip
        instruments.metrics.count_error("held-back")
        instruments.note_failed(records, cause=cause, detail=str(failure))
        instruments.note_held(cause, str(failure))
        self._log.rewind()
        self._log.pause()

    def go_on_when_due(self) -> None:
        """Take records again once the wait is over; an open breaker is half open then."""
        if self._until_s is None or monotonic_s() < self._until_s:
            return
        self._until_s = None
        self._instruments.breaker.try_again()
        self._instruments.note_trying_again()
        if not self._pressed:
            self._log.resume()

    def press(self, *, full: bool, relieved: bool) -> None:
        """Pause while a buffer is full, until it is relieved."""
        if full and not self._pressed:
            self._pressed = True
            self._log.pause()
        elif self._pressed and relieved:
            self._pressed = False
            if not self.holding:
                self._log.resume()

    def note_progress(self) -> None:
        """Something was committed: whatever it was, it is over."""
        self.tries = 0
        self._instruments.note_going_on()

    def judge(
        self,
        beside: Sequence[Message],
        error: Exception,
        *,
        sample: Callable[[], tuple[int, int] | None],
    ) -> None:
        """Return when a record that failed may be given up: others of its batch pass, or it was tried often enough.

        A batch too small to say anything is tried five times over some ten seconds, in which others may come and pass.
        While the breaker is not closed nothing is given up on such grounds.

        Raises:
            EverythingFails: the fault is ours.
        """
        found = sample()
        if found is None and len(beside) > 1:
            return
        closed = self._instruments.breaker.state == "closed"
        if closed and len(beside) < LEAST_RECORDS and self.tries >= TRIES_ALONE:
            return
        others = "it came alone" if found is None else f"{found[0]} of {found[1]} records tried beside it fail too"
        raise EverythingFails(f"{type(error).__name__}: {error} ({others})")
