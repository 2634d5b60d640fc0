"""What a stream job counts, as Prometheus metrics: ``headway_job_*``, in base units, with labels that stay few."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headway.clock import monotonic_s

Stage = Literal[
    "poll",  # a poll that brought something; waiting for nothing is no work
    "restore",  # reading a partition's state back
    "handle",  # the handler's own time
    "write",  # a sink's own time
    "commit",  # outputs and offsets, in one transaction
]
Error = Literal[
    "not-reachable",  # the log could not be read
    "not-committed",  # the transaction was refused or its outcome is unknown
    "not-restored",  # state could not be read back
    "held-back",  # a batch was put back, as something of ours does not answer
    "handler-failed",  # one record given up because our code raised on it
    "crashed",  # one record given up because our process died on it
]
Rebalance = Literal["assigned", "revoked", "lost"]

# From one record to the largest batch, in steps of about three.
_BATCH_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 2000)
_BYTES_BUCKETS = tuple(1024 * 4**power for power in range(8))
# A transaction takes 5-15 ms, a batch of 2,000 some 40 ms, an outage seconds.
_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class JobMetrics:
    """The metrics of one job instance; ``registry`` is Prometheus' own in a process, and a new one in a test."""

    def __init__(self, job: str, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str) -> Counter:
            return Counter(f"headway_job_{name}", about, ["job"], registry=registry).labels(job)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"headway_job_{name}", about, ["job"], registry=registry).labels(job)

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"headway_job_{name}", about, ["job"], registry=registry, buckets=buckets).labels(job)

        self._job = job
        self.messages = counter("messages_total", "Messages done: handled or stored, and committed.")
        self.records = counter("records_total", "Records written in the same transactions, letters included.")
        self.letters = counter("letters_total", "Letters among those records.")
        self._errors = Counter(
            "headway_job_errors_total", "What went wrong, by kind.", ["job", "kind"], registry=registry
        )
        self._rebalances = Counter(
            "headway_job_rebalances_total", "News of the group, by kind.", ["job", "kind"], registry=registry
        )
        self._opened = Counter(
            "headway_job_breaker_opened_total", "How often the breaker opened, by cause.", ["job", "cause"],
            registry=registry,
        )  # fmt: skip
        self.batch_messages = histogram("batch_messages", "Messages per polled batch.", _BATCH_BUCKETS)
        self.batch_bytes = histogram("batch_bytes", "Bytes of keys and values per polled batch.", _BYTES_BUCKETS)
        self._stages = Histogram(
            "headway_job_stage_seconds", "Time per batch, by stage.", ["job", "stage"], registry=registry,
            buckets=_SECONDS_BUCKETS,
        )  # fmt: skip
        self._lag = Gauge(
            "headway_job_lag_messages", "Offsets between what was polled and the end.", ["job", "topic"],
            registry=registry,
        )  # fmt: skip
        self.lag_seconds = gauge(
            "lag_seconds", "Age of the newest message done while there are newer ones; 0 at the end."
        )
        self.buffered_bytes = gauge("buffered_bytes", "Bytes a sink has taken and not written.")
        self.partitions = gauge("partitions", "Partitions this instance owns.")
        self.idle = gauge("idle", "1 for a member of the group that owns no partition.")
        self.paused = gauge("paused", "1 while the job takes nothing: it waits, or its breaker is open.")
        self.breaker_open = gauge("breaker_open", "1 while the breaker is open or half open.")

    def count_error(self, kind: Error) -> None:
        """Count one error."""
        self._errors.labels(self._job, kind).inc()

    def count_rebalance(self, kind: Rebalance) -> None:
        """Count one piece of news."""
        self._rebalances.labels(self._job, kind).inc()

    def count_opening(self, cause: str) -> None:
        """Count one opening of the breaker."""
        self._opened.labels(self._job, cause).inc()

    def show_lag(self, topic: str, messages: int) -> None:
        """Set the lag in one topic."""
        self._lag.labels(self._job, topic).set(messages)

    @contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Observe how long the body takes, whether it succeeds or not."""
        started = monotonic_s()
        try:
            yield
        finally:
            self.observe(stage, monotonic_s() - started)

    def observe(self, stage: Stage, seconds: float) -> None:
        """Observe a time taken elsewhere."""
        self._stages.labels(self._job, stage).observe(seconds)
