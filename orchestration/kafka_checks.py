"""Kafka's replication as asset checks: one on every topic that is an asset, from one reading of the cluster."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from assets.names import topic_key
from assets.resources import LogResource, settings
from headway.errors import TransientFailure
from headway.kafka_health import Health, judge

REPLICATED = "replicated"
_COLUMNS = ("partition", "leader", "copies", "in_sync")


def replication_checks(topics: Sequence[str]) -> dg.AssetChecksDefinition:
    """Return the checks of these topics. Not blocking: what reads a topic is better placed to wait than we to forbid."""
    specs = [
        dg.AssetCheckSpec(
            REPLICATED,
            asset=topic_key(topic),
            blocking=False,
            description="As declared, led, and every copy in sync; brokers and quorum count for every topic.",
        )
        for topic in topics
    ]

    @dg.multi_asset_check(name="kafka_replication", specs=specs, can_subset=True)
    def replicated(context: dg.AssetCheckExecutionContext, log: LogResource) -> Iterator[dg.AssetCheckResult]:
        asked = {key.asset_key for key in context.selected_asset_check_keys}
        try:
            health, why = _read(log), ""
        except TransientFailure as error:
            health, why = None, str(error)
        for topic in topics:
            if topic_key(topic) in asked:
                yield _result(topic, health, why)

    return replicated


def _read(log: LogResource) -> Health:
    from headway.adapters.kafka_cluster import read_cluster
    from streaming.provision import declared_cluster

    declared = declared_cluster(settings())
    return judge(read_cluster(log.admin(), [topic.name for topic in declared.topics]), declared)


def _result(topic: str, health: Health | None, why: str) -> dg.AssetCheckResult:
    if health is None:
        return _verdict(topic, passed=False, metadata={"problems": [why]})
    problems = [problem.told for problem in health.problems if problem.topic in (topic, "")]
    rows = [
        dg.TableRecord(
            {
                "partition": part.number,
                "leader": "nobody" if part.leader is None else str(part.leader),
                "copies": ", ".join(map(str, part.replicas)),
                "in_sync": ", ".join(map(str, part.in_sync)),
            }
        )
        for part in health.cluster.partitions
        if part.topic == topic
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "int" if name == "partition" else "string") for name in _COLUMNS])
    told: dict[str, Any] = {  # Any: Dagster's metadata values
        "problems": problems,
        "brokers_up": len(health.cluster.brokers),
        "brokers_declared": health.declared.brokers,
        "copies": health.declared.copies.told,
        "partitions": dg.MetadataValue.table(rows, schema=schema),
    }
    return _verdict(topic, passed=not problems, metadata=told)


def _verdict(topic: str, *, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=topic_key(topic),
        check_name=REPLICATED,
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
    )
