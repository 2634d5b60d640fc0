"""What happens outside and Dagster should know: offsets of topics, the live version, a decision to train.

A sensor reads, asks `headway` or nobody, and answers; it decides nothing itself. Run keys are the evidence, so the same
evidence never starts a second run. What bites: a run key counts as used whatever became of its run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.names import serving_key, topic_key
from assets.resources import LakeResource, LogResource, RegistryResource
from headway.clock import format_us, to_us
from headway.errors import HeadwayError
from headway.monitoring_tables import decisions_table
from headway.product import Product
from headway.registry import LIVE
from orchestration.jobs import Job, train_config
from orchestration.offsets import Offsets, read_offsets

# Often enough to watch a demonstration; a read costs 10 ms.
_EVERY_S = 15
_OBSERVE_EVERY_S = 30
_PERIOD = ("train_from", "train_until", "gate_until", "known_at")


def topic_offsets_sensor(topics: Sequence[str]) -> dg.SensorDefinition:
    """Return the sensor that records how far each topic has come, when that has changed."""

    @dg.sensor(
        name="topic_offsets",
        minimum_interval_seconds=_OBSERVE_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records the end offset of every partition of every topic that moved.",
    )
    def observe(context: dg.SensorEvaluationContext, log: LogResource) -> dg.SensorResult | dg.SkipReason:
        try:
            found = read_offsets(log.admin(), topics)
        except HeadwayError as error:
            return dg.SkipReason(str(error))
        before: Mapping[str, Any] = json.loads(context.cursor or "{}")
        moved = [topic for topic, offsets in found.items() if offsets.as_json() != before.get(topic)]
        if not moved:
            return dg.SkipReason("no topic has moved")
        return dg.SensorResult(
            asset_events=[_observation(topic, found[topic]) for topic in moved],
            cursor=json.dumps({topic: offsets.as_json() for topic, offsets in found.items()}),
        )

    return observe


def live_version_sensor(product: Product) -> dg.SensorDefinition:
    """Return the sensor that records which version is live, when that has changed."""

    @dg.sensor(
        name=f"{product.name}_live_version",
        minimum_interval_seconds=_OBSERVE_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records the version behind the load balancer (registry alias `live`).",
    )
    def observe(context: dg.SensorEvaluationContext, registry: RegistryResource) -> dg.SensorResult | dg.SkipReason:
        try:
            live = registry.open().alias(product.name, LIVE)
        except HeadwayError as error:
            return dg.SkipReason(str(error))
        if live is None:
            return dg.SkipReason("no version is live")
        if context.cursor == live.digest:
            return dg.SkipReason(f"version {live.version} is still live")
        observed = dg.AssetObservation(
            serving_key(product),
            metadata={"version": live.version, "digest": live.digest, "mlflow_run_id": live.run},
            tags={"dagster/data_version": live.digest[:40]},
        )
        return dg.SensorResult(asset_events=[observed], cursor=live.digest)

    return observe


def retraining_sensor(product: Product, job: Job) -> dg.SensorDefinition:
    """Return the sensor that trains when the newest decision says so."""

    @dg.sensor(
        name=f"{product.name}_retraining",
        job=job,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a training when the newest retraining decision is to train; each decision once.",
    )
    def watch(lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
        row = newest_decision(product, lake)
        if row is None:
            return dg.SkipReason("no decision yet")
        if row["decision"] != "retrain":
            return dg.SkipReason(row["reason"])
        window = _text(row["until"])
        return dg.RunRequest(
            run_key=f"{window}+v{row['model_version']}",
            run_config=train_config(product, {name: _text(row[name]) for name in _PERIOD}),
            tags={
                "retrain/reason": row["reason"],
                "retrain/window": window,
                "retrain/model_version": str(row["model_version"]),
            },
        )

    return watch


def newest_decision(product: Product, lake: LakeResource) -> Mapping[str, Any] | None:
    """Return the decision made last, or None when there is none."""
    opened, name = lake.open(), decisions_table(product).name
    if not opened.exists(name):
        return None
    rows = opened.read(name).sort("decided_at")
    return None if rows.is_empty() else rows.row(-1, named=True)


def _observation(topic: str, offsets: Offsets) -> dg.AssetObservation:
    return dg.AssetObservation(topic_key(topic), metadata=offsets.metadata())


def _text(instant: Any) -> str:  # Any: a cell of the table, a datetime here
    return format_us(to_us(instant))
