"""Sensors on an ephemeral instance: what they start, what they skip, and that the same evidence starts one run."""

import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # exported without __all__

from assets.names import topic_key
from assets.resources import LakeResource, LogResource, RegistryResource
from headway.adapters.delta import Lake
from headway.adapters.memory_registry import MemoryRegistry
from headway.clock import to_us
from headway.drift import Hold, Retrain, Window, WindowStatistics
from headway.errors import TransientFailure
from headway.monitoring import decision_row
from headway.monitoring_tables import decisions_table
from headway.registry import ModelRegistry, ModelVersion
from orchestration.definitions import defs
from orchestration.offsets import read_offsets
from orchestration.sensors import live_version_sensor, retraining_sensor, topic_offsets_sensor
from products.catalogue import all_products

PRODUCT = next(iter(all_products().values()))
LIVE = ModelVersion(product=PRODUCT.name, version=3, digest="d3", model_sha256="m", run="r", tags={})
TRAINED = Window(from_us=to_us(datetime(2013, 1, 1, tzinfo=UTC)), until_us=to_us(datetime(2013, 5, 27, 4, tzinfo=UTC)))
WEEK = WindowStatistics(
    from_us=to_us(datetime(2013, 9, 9, 4, tzinfo=UTC)),
    until_us=to_us(datetime(2013, 9, 16, 4, tzinfo=UTC)),
    rows=6000,
    rate=0.3,
    mean_prediction=0.2,
    calibration_gap=-0.1,
    log_loss=0.5,
    excess_log_loss=0.1,
    average_precision=0.6,
    divergence=0.1,
    worst_slice="UA",
    worst_slice_gap=-0.2,
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def decide(root: Path, decision: Retrain | Hold) -> None:
    lake, table = Lake(root), decisions_table(PRODUCT)
    lake.create(table)
    now_us = to_us(datetime(2013, 9, 17, 16, tzinfo=UTC))
    row = decision_row(
        PRODUCT, decision, model=LIVE, trained=TRAINED, weeks=[WEEK], known_at_us=now_us, decided_at_us=now_us
    )
    lake.append(table.name, row)


def tick(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, *, cursor: str | None = None, **resources: Any
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
        return sensor.evaluate_tick(context)


def retraining() -> dg.SensorDefinition:
    job = next(job for job in defs.jobs or () if job.name == f"train_{PRODUCT.name}")
    return retraining_sensor(PRODUCT, job)  # type: ignore[arg-type]  # jobs are of several kinds; this one is an asset job


def test_without_a_decision_nothing_is_trained(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    found = tick(retraining(), instance, lake=LakeResource(root=str(tmp_path)))

    assert (found.run_requests, found.skip_message) == ([], "no decision yet")


def test_a_decision_to_hold_is_skipped_with_its_reason(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    decide(tmp_path, Hold("week of 2013-09-09: within limits"))

    found = tick(retraining(), instance, lake=LakeResource(root=str(tmp_path)))

    assert (found.run_requests, found.skip_message) == ([], "week of 2013-09-09: within limits")


def test_a_decision_to_train_starts_a_run_with_its_period_and_reason(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    decide(tmp_path, Retrain("divergence for 2 weeks"))

    [request] = tick(retraining(), instance, lake=LakeResource(root=str(tmp_path))).run_requests

    assert request.run_key == "2013-09-16T04:00:00Z+v3"
    assert request.tags["retrain/reason"] == "divergence for 2 weeks"
    assert request.tags["retrain/window"] == "2013-09-16T04:00:00Z"
    [config] = request.run_config["ops"].values()
    assert config["config"] == {
        "train_from": "2013-04-16T00:00:00Z",
        "train_until": "2013-09-09T04:00:00Z",
        "gate_until": "2013-09-16T04:00:00Z",
        "known_at": "2013-09-17T16:00:00Z",
    }


def test_the_same_evidence_asks_for_the_same_run_and_another_week_for_another(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Dagster starts a run key once; a decision made again after a repeat of the monitoring must not look new."""
    decide(tmp_path, Retrain("divergence for 2 weeks"))
    [first] = tick(retraining(), instance, lake=LakeResource(root=str(tmp_path))).run_requests
    decide(tmp_path, Retrain("the same, decided again"))
    [second] = tick(retraining(), instance, lake=LakeResource(root=str(tmp_path))).run_requests

    assert first.run_key == second.run_key


class Registry(RegistryResource):
    def open(self) -> ModelRegistry:
        registry = MemoryRegistry()
        registry._versions[PRODUCT.name] = [LIVE]
        if self.url:
            registry._aliases[PRODUCT.name, self.url] = 1
        return registry


class Away(RegistryResource):
    def open(self) -> ModelRegistry:
        raise TransientFailure("MLflow is away")


def test_the_live_version_is_recorded_once_per_change(instance: dg.DagsterInstance) -> None:
    sensor = live_version_sensor(PRODUCT)

    first = tick(sensor, instance, registry=Registry(url="live"))
    again = tick(sensor, instance, cursor=first.cursor, registry=Registry(url="live"))

    [observed] = first.asset_events
    assert observed.metadata["version"].value == 3
    assert (again.asset_events, again.skip_message) == ([], "version 3 is still live")


@pytest.mark.parametrize(("registry", "told"), [(Registry(), "no version is live"), (Away(), "MLflow is away")])
def test_no_live_version_and_no_registry_are_reasons_to_skip(
    registry: RegistryResource, told: str, instance: dg.DagsterInstance
) -> None:
    assert tick(live_version_sensor(PRODUCT), instance, registry=registry).skip_message == told


class Brokers:
    """An admin client of a broker with one topic."""

    def __init__(self, *, end: int) -> None:
        self.end = end

    def list_topics(self, timeout: float) -> Any:  # noqa: ARG002 - the client's signature
        return SimpleNamespace(topics={"events.raw": SimpleNamespace(partitions=[0, 1])})

    def list_offsets(self, wanted: dict[Any, Any], request_timeout: float) -> dict[Any, Any]:  # noqa: ARG002 - likewise
        answers = {}
        for place, spec in wanted.items():
            answers[place] = Future[Any]()
            is_end = type(spec) is type(OffsetSpec.latest())  # type: ignore[no-untyped-call]
            answers[place].set_result(SimpleNamespace(offset=self.end + place.partition if is_end else 0))
        return answers


class Log(LogResource):
    end: int

    def admin(self) -> Any:
        return Brokers(end=self.end)


def test_offsets_are_read_of_topics_that_exist() -> None:
    found = read_offsets(Brokers(end=7), ["events.raw", "not.there"])  # type: ignore[arg-type]  # a stand-in

    assert list(found) == ["events.raw"]
    assert found["events.raw"].metadata() == {"partition 0": 7, "partition 1": 8, "next_offsets": 15}


def test_a_topic_is_recorded_when_it_has_moved(instance: dg.DagsterInstance) -> None:
    sensor = topic_offsets_sensor(["events.raw"])

    first = tick(sensor, instance, log=Log(end=7))
    still = tick(sensor, instance, cursor=first.cursor, log=Log(end=7))
    moved = tick(sensor, instance, cursor=first.cursor, log=Log(end=9))

    assert [event.asset_key for event in first.asset_events] == [topic_key("events.raw")]
    assert (still.asset_events, still.skip_message) == ([], "no topic has moved")
    assert len(moved.asset_events) == 1


def test_without_a_broker_offsets_are_skipped(instance: dg.DagsterInstance) -> None:
    found = tick(topic_offsets_sensor(["events.raw"]), instance, log=LogResource(bootstrap="127.0.0.1:1"))

    assert "is the broker up?" in found.skip_message
