"""What one job instance is watched and guarded with: metrics, breaker, crash journal, watchdog, and what /readyz says.

The worker uses them; the composition root reads them. A worker without any, in a test or at a desk, makes its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry

from headway import failpoints
from headway.breaker import Breaker, Cause
from headway.clock import Clock, SystemClock, format_us, monotonic_s, to_us
from headway.letters import Reason
from headway.ports import EventLog, Message, TopicPartition
from streaming.job_metrics import JobMetrics, Rebalance
from streaming.quarantine import Quarantine
from streaming.watchdog import Watchdog

_LAG_EVERY_S = 1.0
# A step of a commit ends after 10 s by its own timeout, and so does the abort that follows. But librdkafka ignores the
# timeout of sending offsets when the group's coordinator was killed (its issues 5456 and 5511), and waits for ever.
COMMIT_STEP_DEADLINE_S = 22.0
_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Held:
    """Why a job takes nothing at the moment."""

    cause: Cause
    reason: str
    since: str


@dataclass(kw_only=True)
class Instruments:
    """The instruments of one job instance. ``quarantine`` and ``watchdog`` are None where a death is only a test's."""

    job: str = "job"
    instance: int = 0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    breaker: Breaker = field(default_factory=Breaker)
    quarantine: Quarantine | None = None
    watchdog: Watchdog | None = None
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.metrics = JobMetrics(self.job, self.registry)
        self.held: Held | None = None
        self._stuck_since: str | None = None
        self.member = False
        self.owned: frozenset[TopicPartition] = frozenset()
        self._newest_done_ms: int | None = None
        self._behind = False
        self._lag_shown_s = float("-inf")
        self.metrics.lag_seconds.set_function(self._lag_seconds)

    def hit(self, point: str) -> None:
        """Pass the job's fail-point of that name; the step it ends was in time."""
        if self.watchdog is not None:
            self.watchdog.restart()
        failpoints.hit(f"{self.job}.{point}")

    @contextmanager
    def in_hand(self, batch: Sequence[Message]) -> Iterator[None]:
        """Guard the body: the crash journal names the records, the watchdog has its deadline."""
        with ExitStack() as guards:
            if self.quarantine is not None:
                guards.enter_context(self.quarantine.in_hand(batch))
            if self.watchdog is not None:
                guards.enter_context(self.watchdog.watching())
            yield

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Guard a commit, step by step: no record is to blame for how it ends, and it may hang beyond its timeouts."""
        if self.watchdog is None:
            yield
            return
        with self.watchdog.watching(deadline_s=COMMIT_STEP_DEADLINE_S):
            yield

    def note_polled(self, batch: Sequence[Message]) -> None:
        """Take the size of a batch."""
        self._behind = True
        self.metrics.batch_messages.observe(len(batch))
        self.metrics.batch_bytes.observe(sum(len(m.value or b"") + len(m.key or b"") for m in batch))

    def note_done(self, batch: Sequence[Message]) -> None:
        """Count what was committed, and close a half open breaker."""
        self.metrics.messages.inc(len(batch))
        self._newest_done_ms = max(batch[-1].timestamp_ms, self._newest_done_ms or 0)
        if self.quarantine is not None:
            self.quarantine.note_done(batch)
        if self.breaker.note_passed(len(batch)):
            self.metrics.breaker_open.set(0)
            _LOG.warning("breaker closed", job=self.job)

    def note_failed(self, records: int, *, cause: Cause, detail: str) -> None:
        """Count records that failed for a cause of ours, and say so when that opens the breaker."""
        if self.breaker.note_failed(records, cause=cause, detail=detail):
            self.metrics.breaker_open.set(1)
            self.metrics.count_opening(cause)
            _LOG.error("breaker open", job=self.job, cause=cause, reason=self.breaker.reason)

    def note_given_up(self, message: Message, *, reason: Reason, detail: str) -> None:
        """Count a record that became a letter for a cause of ours; one among others that pass opens nothing anew."""
        self.metrics.messages.inc()
        self.metrics.count_error("crashed" if reason == "crashed" else "handler-failed")
        if self.quarantine is not None:
            self.quarantine.note_done([message])
        if self.breaker.state == "closed":
            self.note_failed(1, cause="handler", detail=detail)

    def note_held(self, cause: Cause, reason: str) -> None:
        """Say that the job takes nothing, and since when it makes no progress."""
        if self._stuck_since is None:
            self._stuck_since = format_us(to_us(self.clock.now()))
        self.held = Held(cause=cause, reason=reason, since=self._stuck_since)
        self.metrics.paused.set(1)

    def note_trying_again(self) -> None:
        """Say that the job takes records again, to see whether it can."""
        self.held = None
        self.metrics.paused.set(0)

    def note_going_on(self) -> None:
        """Say that the job makes progress."""
        self._stuck_since = None

    def note_group(
        self, kind: Rebalance, partitions: Sequence[TopicPartition], *, owned: frozenset[TopicPartition]
    ) -> None:
        """Take news of the group: ``kind`` happened to ``partitions``, and ``owned`` are ours now."""
        self.metrics.count_rebalance(kind)
        self.owned = owned
        self.metrics.partitions.set(len(owned))
        if kind == "lost":
            _LOG.warning("partitions lost", job=self.job, partitions=[f"{t}/{p}" for t, p in partitions])

    def observe_log(self, log: EventLog) -> None:
        """Take membership and lag from the log, the latter at most once a second."""
        self.member = log.is_member()
        self.metrics.idle.set(self.member and not self.owned)
        now_s = monotonic_s()
        if now_s - self._lag_shown_s < _LAG_EVERY_S:
            return
        self._lag_shown_s = now_s
        by_topic: dict[str, int] = {}
        for where, behind in log.lag().items():
            by_topic[where.topic] = by_topic.get(where.topic, 0) + behind
        for topic, behind in by_topic.items():
            self.metrics.show_lag(topic, behind)
        self._behind = any(by_topic.values())

    def readiness(self) -> tuple[bool, dict[str, object]]:
        """Return whether the job does what it is for, and what /readyz answers.

        An idle member is ready. One whose breaker is open is not: a roll-out of a broken handler must stop there.
        """
        open_now = self.breaker.state != "closed"
        held = self.held
        return self.member and not open_now, {
            "ready": self.member and not open_now,
            "job": self.job,
            "instance": self.instance,
            "partitions": len(self.owned),
            "owned": sorted(f"{topic}/{partition}" for topic, partition in self.owned),
            "idle": self.member and not self.owned,
            "breaker": self.breaker.state,
            "paused": None if held is None else {"cause": held.cause, "reason": held.reason, "since": held.since},
        }

    def _lag_seconds(self) -> float:
        if not self._behind or self._newest_done_ms is None:
            return 0.0
        return max(0.0, to_us(self.clock.now()) / 1e6 - self._newest_done_ms / 1e3)
