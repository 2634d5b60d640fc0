"""What a Collector counts: events by what became of them, and what waits. No label is a client's choice."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from serving.asgi import Answer

# A local acknowledgement takes 1-3 ms, one of three replicas 5-20; the deadline is 2.5 s.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class CollectorMetrics:
    """Counters of one process, in a registry of their own."""

    def __init__(self, *, in_flight: Callable[[], int], log_there: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"headway_collector_{name}", what, labels, registry=self._registry)

        self._refused = counter("refused", "Events and whole requests that were refused, by kind of problem", "kind")
        self._accepted = counter("accepted", "Events acknowledged by the log and answered 202")
        self._letters = counter("letters", "Letters acknowledged by the log")
        self._body_bytes = counter("body_bytes", "Bytes of the bodies that were read")
        self._acknowledge = Histogram(
            "headway_collector_acknowledge_seconds",
            "Time from a request's records being handed to the log to the last acknowledgement",
            buckets=_SECONDS,
            registry=self._registry,
        )
        gauges = (
            ("in_flight", "Requests being answered", in_flight),
            ("log_available", "1 while the event log takes records", log_there),
        )
        for name, what, read in gauges:
            Gauge(f"headway_collector_{name}", what, registry=self._registry).set_function(read)

    def accepted(self, events: int) -> None:
        """Count events that are in the log."""
        self._accepted.inc(events)

    def letter(self) -> None:
        """Count a letter that is in the log."""
        self._letters.inc()

    def refused(self, kind: str) -> None:
        """Count an event, or a request that never became events."""
        self._refused.labels(kind).inc()

    def read(self, size: int) -> None:
        """Count a body."""
        self._body_bytes.inc(size)

    def acknowledged(self, seconds: float) -> None:
        """Time one write."""
        self._acknowledge.observe(seconds)

    def page(self) -> Answer:
        """Give the metrics page."""
        return Answer(200, generate_latest(self._registry), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
