"""Watches the letter topics: counts by reason, tells each new cause once, and tells when the rate is unusual.

An alert goes out before the offsets are committed, so after a crash it may be told twice and is never left out. Causes
are remembered in ``letters.causes``, written in the transaction of the offsets: a restart tells nothing again. Runs as one
instance (`headway.scaling.ALONE`); one that takes over asks that topic before it calls a cause new.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from headway.clock import SECOND_US, Clock, to_us
from headway.errors import ContractViolation, HeadwayError, TransientFailure
from headway.letter_alerts import (
    MAX_CAUSES,
    Alert,
    Cause,
    RateWatch,
    cause_of,
    kept_cause,
    new_cause_alert,
    too_many_causes_alert,
)
from headway.letters import letter_of, letter_place
from headway.ports import Message
from streaming.runtime import Flushed

# Also how long a new cause waits to be told.
EVALUATE_EVERY_S = 5.0
# Bounds memory while an hour's letters are caught up with.
_BUFFERED = 5_000
# While nobody takes alerts: the newest are kept, and every one is in the log.
_KEPT_UNSENT = 1_000
_LOG = structlog.get_logger()

Send = Callable[[Sequence[Alert]], None]


class LetterMetrics:
    """What is counted, under ``headway_letters_``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"headway_letters_{name}", about, registry=registry)

        self.letters = Counter("headway_letters", "Letters read by this watcher.", ["reason"], registry=registry)
        self.causes = gauge("causes", "Causes ever seen.")
        self.new_cause = gauge("new_cause_timestamp_seconds", "When the newest cause was first seen; 0 for never.")
        self.rate = gauge("rate_ratio", "Letters per offered event within the window.")
        self.rate_alert = gauge("rate_alert", "1 while the alert about the rate stands.")
        self.unsent = gauge("alerts_unsent", "Alerts that no Alertmanager has taken yet.")


class LetterWatchSink:
    """The watcher as a sink of the letter topics.

    Attributes:
        known: reads the causes kept so far.
        accepted: how many events have ever been accepted, an estimate by offsets; asked every `EVALUATE_EVERY_S`.
        send: takes alerts beside the log; None when no Alertmanager is configured.
    """

    def __init__(
        self,
        *,
        known: Callable[[], Iterable[Message]],
        accepted: Callable[[], int],
        send: Send | None,
        clock: Clock,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._known = known
        self._accepted = accepted
        self._send = send
        self._clock = clock
        self._metrics = LetterMetrics(registry)
        self._rate = RateWatch()
        self._causes: dict[str, Cause] = {}
        self._uncommitted: list[Cause] = []
        self._overflowing = False
        self._recalled = False
        self._buffer: list[Message] = []
        self._unsent: deque[Alert] = deque(maxlen=_KEPT_UNSENT)
        self._evaluated_s = float("-inf")
        self._recall()

    def offer(self, batch: Sequence[Message]) -> None:
        """Take messages into the buffer."""
        self._buffer.extend(batch)

    def due(self, now_s: float) -> bool:
        """Whether the buffer is large, or it is time to evaluate, which it also is when nothing comes."""
        if now_s - self._evaluated_s < EVALUATE_EVERY_S and len(self._buffer) < _BUFFERED:
            return False
        self._evaluated_s = now_s
        return True

    def flush(self) -> Flushed:
        """Count, decide, tell; return the messages, and new causes to be kept with their offsets."""
        # What the last flush returned is committed, or `drop` would have been called.
        self._uncommitted, self._recalled = [], False
        alerts = [alert for message in self._buffer for alert in self._take(message)]
        now_us = to_us(self._clock.now())
        self._note_accepted(now_us)
        change = self._rate.decide(now_us)
        self._tell([*alerts, change] if change else alerts)
        self._metrics.causes.set(len(self._causes))
        self._metrics.rate.set(self._rate.rate(now_us).share)
        self._metrics.rate_alert.set(self._rate.firing is not None)
        taken, self._buffer = self._buffer, []
        return Flushed(messages=taken, letters=[cause.to_record() for cause in self._uncommitted])

    def drop(self) -> None:
        """Forget the buffer, and causes whose records were not committed: they are told again rather than never."""
        self._buffer = []
        for cause in self._uncommitted:
            self._causes.pop(cause.fingerprint, None)
        self._uncommitted = []

    def _take(self, message: Message) -> list[Alert]:
        try:
            letter = letter_of(message)
        except ContractViolation as violation:
            _LOG.warning("not a letter", reason=str(violation))
            return []
        written_us = message.timestamp_ms * 1000
        self._metrics.letters.labels(letter.reason).inc()
        self._rate.note_letter(letter.kind, written_us=written_us)
        cause = cause_of(letter_place(message), letter, written_us=written_us)
        if self._is_known(cause):
            return []
        if len(self._causes) >= MAX_CAUSES:
            told, self._overflowing = self._overflowing, True
            return [] if told else [too_many_causes_alert(written_us)]
        self._causes[cause.fingerprint] = cause
        self._uncommitted.append(cause)
        self._metrics.new_cause.set(written_us / SECOND_US)
        return [new_cause_alert(cause)]

    def _is_known(self, cause: Cause) -> bool:
        """Whether the cause was seen before, here or, as the topic tells, by another instance; asked once a flush."""
        if cause.fingerprint not in self._causes and not self._recalled and len(self._causes) < MAX_CAUSES:
            self._recalled = True
            self._recall()
        return cause.fingerprint in self._causes

    def _recall(self) -> None:
        for cause in map(kept_cause, self._known()):
            self._causes.setdefault(cause.fingerprint, cause)
        self._metrics.new_cause.set(max((c.first_us for c in self._causes.values()), default=0) / SECOND_US)

    def _note_accepted(self, now_us: int) -> None:
        try:
            self._rate.note_accepted(self._accepted(), at_us=now_us)
        except TransientFailure as failure:
            _LOG.warning("accepted events not known; the rate waits", reason=str(failure))

    def _tell(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            _LOG.warning(
                "alert",
                kind=alert.kind,
                key=alert.key,
                summary=alert.summary,
                resolved=alert.resolved,
                **dict(alert.facts),
            )
        if self._send is None:
            return
        pending = [*self._unsent, *alerts]
        if pending:
            try:
                self._send(pending)
                self._unsent.clear()
            except HeadwayError as failure:
                self._unsent = deque(pending, maxlen=_KEPT_UNSENT)
                _LOG.warning("alerts not sent; trying again", reason=str(failure), unsent=len(self._unsent))
        self._metrics.unsent.set(len(self._unsent))
