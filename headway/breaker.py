"""The stream's breaker (SEMANTICS S22): stops a job for causes of ours, never for what producers send.

Counts records, not attempts: of the newest 500 or more, 95 % must have failed for a cause of ours. An event that breaks
its contract is a letter and counts as passed, else one client's bad batch would stop everybody.

Open, the job takes nothing, keeps its membership, and says why. After a wait it is half open: one small batch tells
whether the cause is gone. Pure but for the draw that keeps instances from asking in step.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

# S22. Under 500 records a share says little; above 95 % there is nothing left that works.
LEAST_RECORDS = 500
OPEN_SHARE = 0.95

# Short enough that a restarted dependency is noticed at once, long enough that asking is no load.
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0

Cause = Literal[
    "dependency",  # a service that the job needs does not answer
    "handler",  # our code raised, or died, on the record
    "state",  # our own tables or topics cannot be read
]
State = Literal["closed", "open", "half-open"]


class Outcome(NamedTuple):
    """What became of some records: all of them, those that failed for a cause of ours, and the newest such cause."""

    records: int
    ours: int
    cause: Cause | None
    detail: str


def retry_delay_s(failures: int, *, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait after so many failures in a row: doubling, at most 30 s, between half and all of it."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(16, max(0, failures - 1)))
    return longest * (0.5 + 0.5 * draw())


class Breaker:
    """Counts outcomes of one job instance and says whether it should go on."""

    def __init__(self, *, least_records: int = LEAST_RECORDS, open_share: float = OPEN_SHARE) -> None:
        self._least = least_records
        self._share = open_share
        self._window: deque[Outcome] = deque()
        self._records = 0
        self._ours = 0
        self.state: State = "closed"
        self.cause: Cause | None = None
        self.reason: str | None = None

    def note_passed(self, records: int) -> bool:
        """Count records that were done, letters for producers' faults included; True when this closes the breaker."""
        if self.state == "half-open":
            self._forget()
            self.state, self.cause, self.reason = "closed", None, None
            return True
        self._count(Outcome(records, 0, None, ""))
        return False

    def note_failed(self, records: int, *, cause: Cause, detail: str) -> bool:
        """Count records that failed for a cause of ours; True when this opens the breaker, or opens it again."""
        self._count(Outcome(records, records, cause, detail))
        enough = self._records >= self._least and self._ours >= self._share * self._records
        if self.state == "open" or not (enough or self.state == "half-open"):
            return False
        self.state, self.cause = "open", cause
        self.reason = f"{self._ours} of the last {self._records} records failed for a cause of ours; newest: {detail}"
        return True

    def try_again(self) -> None:
        """Half open: the next outcome decides."""
        if self.state == "open":
            self.state = "half-open"

    def _count(self, outcome: Outcome) -> None:
        self._window.append(outcome)
        self._records += outcome.records
        self._ours += outcome.ours
        while self._records - self._window[0].records >= self._least:
            gone = self._window.popleft()
            self._records -= gone.records
            self._ours -= gone.ours

    def _forget(self) -> None:
        self._window.clear()
        self._records = self._ours = 0
