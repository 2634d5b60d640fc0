"""What a replica of the feature API counts: questions by outcome, and rows by what they were worth.

No label is a client's choice: a service nobody serves counts as ``unknown``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from headway.clock import SECOND_US, monotonic_s
from headway.features.services import FeatureService
from headway.service_reads import ServiceRead
from serving.asgi import Answer

Protocol = Literal["http", "grpc"]
# One row takes a millisecond; the wait for a watermark ends at 200 ms, a store that is away at 250 ms.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass
class Told:
    """What became of a question: ``ok``, the kind of its problem, or ``failed`` (cancelled, or an error of ours)."""

    outcome: str = "ok"


class FeatureMetrics:
    """Counters of one replica, in a registry of their own."""

    def __init__(self, services: Sequence[FeatureService]) -> None:
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "headway_feature_answers",
            "Answers by outcome: ok, or why it was refused",
            ["service", "protocol", "outcome"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "headway_feature_seconds",
            "Time from a question that could be read to its answer",
            ["service", "protocol"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        rows = Counter(
            "headway_feature_rows",
            "Rows read, by view and by whether there was one; of a stale view neither is certain",
            ["service", "view", "found"],
            registry=self._registry,
        )
        lag = Gauge(
            "headway_feature_lag_seconds",
            "How far the view's watermark was behind the instant asked for, at the newest answer",
            ["service", "view"],
            registry=self._registry,
        )
        self._names = {service.name for service in services}
        # Looked up once: a label look-up costs more than the counting.
        self._counted = {
            service.name: [
                (
                    rows.labels(service.name, served.name, "present"),
                    rows.labels(service.name, served.name, "missing"),
                    lag.labels(service.name, served.name),
                )
                for served in service.served
            ]
            for service in services
        }

    @contextmanager
    def asked(self, service: str, protocol: Protocol) -> Iterator[Told]:
        """Count one question when the block ends."""
        name = service if service in self._names else "unknown"
        began_s, told = monotonic_s(), Told()
        try:
            yield told
        except BaseException:
            told.outcome = "failed" if told.outcome == "ok" else told.outcome
            raise
        finally:
            self._answers.labels(name, protocol, told.outcome).inc()
            self._seconds.labels(name, protocol).observe(monotonic_s() - began_s)

    def refused(self, protocol: Protocol, kind: str) -> None:
        """Count what could not be read as a question at all."""
        self._answers.labels("unknown", protocol, kind).inc()

    def read(self, service: FeatureService, read: ServiceRead) -> None:
        """Count the rows of an answer."""
        for place, (present, missing, lag) in enumerate(self._counted[service.name]):
            stored = [row[place] for row in read.rows]
            found = sum(row is not None and row.event_timestamp_us is not None for row in stored)
            present.inc(found)
            missing.inc(len(read.rows) - found)
            watermark_us = read.states[place].watermark_us
            if watermark_us is not None:
                lag.set(max(0, read.as_of_us - watermark_us) / SECOND_US)

    def page(self) -> Answer:
        """Give the metrics page."""
        return Answer(200, generate_latest(self._registry), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
