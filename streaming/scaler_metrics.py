"""The scaler's last round as metrics. Estimates that could not be made are absent, not 0."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from headway.scaling import Decision

_GAUGES: tuple[tuple[str, str, Callable[[Decision], float | None]], ...] = (
    ("instances_wanted", "Instances a job should have.", lambda each: each.instances),
    ("instances_ready", "Instances of a job that work.", lambda each: each.load.ready),
    (
        "instances_idle",
        "Instances of a job beyond its partitions; 0 unless somebody else started them.",
        lambda each: max(0, each.load.ready - each.load.partitions),
    ),
    ("instances_held", "1 when a person decides the number.", lambda each: each.load.held),
    ("lag_messages", "Messages that wait for a job, an estimate.", lambda each: each.load.lag),
    ("lag_seconds", "How long they take at the rate just measured.", lambda each: each.load.lag_s),
    (
        "instance_capacity_messages_per_second",
        "The most one instance was seen to handle.",
        lambda each: each.load.capacity_per_s,
    ),
)


class ScalerMetrics(Collector):
    """What Prometheus sees; nothing but the counters while a round fails."""

    def __init__(self) -> None:
        self._last: Sequence[Decision] = ()
        self._changes: Counter[tuple[str, str]] = Counter()
        self._failed = 0

    def note(self, decisions: Sequence[Decision]) -> None:
        """Show this round."""
        self._last = decisions
        for each in decisions:
            if each.changes:
                self._changes[each.load.job, "up" if each.instances > each.load.instances else "down"] += 1

    def forget(self) -> None:
        """Show that a round failed, and no figure of an older one."""
        self._last = ()
        self._failed += 1

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Give the metrics of the last round."""
        for name, told, value_of in _GAUGES:
            gauge = GaugeMetricFamily(f"headway_scaler_{name}", told, labels=["job"])
            for each in self._last:
                value = value_of(each)
                if value is not None:
                    gauge.add_metric([each.load.job], float(value))
            yield gauge
        changes = CounterMetricFamily("headway_scaler_changes", "Decisions to change.", labels=["job", "direction"])
        for (job, direction), count in sorted(self._changes.items()):
            changes.add_metric([job, direction], count)
        yield changes
        yield CounterMetricFamily(
            "headway_scaler_failed_rounds", "Rounds without an answer of log or fleet.", self._failed
        )
