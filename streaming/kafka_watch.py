"""What Kafka's replication looks like, as metrics: ``python -m streaming.kafka_watch``, /metrics on a port of the block.

Reads the whole cluster every few seconds; a scrape only shows the last reading. While the brokers do not answer only
``headway_kafka_up 0`` is there: a stale figure is a wrong one. Decides nothing; the verdict is `headway.kafka_health`'s.
"""

import sys
from collections import Counter
from collections.abc import Iterator

import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headway.adapters.kafka_cluster import read_cluster
from headway.adapters.kafka_topics import admin_client
from headway.errors import TransientFailure
from headway.kafka_health import Health, judge, leaders_of
from headway.logs import configure_logging
from headway.settings import LOOPBACK, Settings
from headway.stopping import stop_event
from streaming.health import Health as HealthServer
from streaming.provision import declared_cluster

# Half of Prometheus' usual interval, so that no scrape shows the same reading twice.
EVERY_S = 7.0

_LOG = structlog.get_logger()


class KafkaMetrics(Collector):
    """The last reading as Prometheus sees it."""

    def __init__(self) -> None:
        self.health: Health | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the metrics of the last reading."""
        yield _gauge("up", "Whether any broker answers.", float(self.health is not None))
        if self.health is not None:
            yield from describe(self.health)


def describe(health: Health) -> Iterator[GaugeMetricFamily]:
    """Give a verdict as metrics."""
    cluster = health.cluster
    yield _gauge("brokers", "Brokers that are up.", len(cluster.brokers))
    yield _gauge("brokers_declared", "Brokers there should be.", health.declared.brokers)
    yield _gauge("partitions", "Partitions of our topics and of Kafka's own.", len(cluster.partitions))
    yield _gauge("partitions_offline", "Partitions without a leader: neither read nor written.", len(health.offline))
    yield _gauge("partitions_under_min_in_sync", "Partitions that refuse acks=all.", len(health.under_min_in_sync))
    yield _gauge("partitions_under_replicated", "Partitions with a copy behind or gone.", len(health.under_replicated))
    yield _gauge("partitions_skewed", "Partitions not led by their preferred copy.", len(health.skewed))
    leaders = GaugeMetricFamily("headway_kafka_leaders", "Partitions that a broker leads.", labels=["broker"])
    for broker, count in leaders_of(cluster.partitions, cluster.brokers).items():
        leaders.add_metric([str(broker)], count)
    yield leaders
    problems = GaugeMetricFamily("headway_kafka_problems", "What is not as declared, by kind.", labels=["kind"])
    for kind, count in sorted(Counter(problem.kind for problem in health.problems).items()):
        problems.add_metric([kind], count)
    yield problems
    if cluster.quorum is not None:
        yield _gauge("quorum_leader", "Node that leads the controllers; -1 for nobody.", cluster.quorum.leader or -1)
        yield _gauge("quorum_epoch", "Grows with each election of a controller.", cluster.quorum.epoch)


def main() -> int:
    """Read the cluster until told to stop."""
    configure_logging("kafka-watch")
    stop = stop_event()
    settings = Settings()
    declared = declared_cluster(settings)
    admin = admin_client(settings.kafka_bootstrap)
    metrics = KafkaMetrics()
    REGISTRY.register(metrics)
    server = HealthServer(LOOPBACK, settings.ports.kafka_watch)
    before: list[str] = []
    while not stop.is_set():
        try:
            metrics.health = judge(read_cluster(admin, [topic.name for topic in declared.topics]), declared)
            now = [problem.told for problem in metrics.health.problems]
        except TransientFailure as error:
            metrics.health, now = None, [str(error)]
        server.ready.set()
        if now != before:
            _LOG.log(30 if now else 20, "replication changed", problems=len(now), first=now[:5])
        before = now
        stop.wait(EVERY_S)
    server.close()
    return 0


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"headway_kafka_{name}", told, value=value)


if __name__ == "__main__":
    sys.exit(main())
