"""The sensor that shows the scaler's decisions, on an ephemeral instance."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.names import instances_key
from assets.resources import ScalingResource
from domains.flights.domain import DOMAIN
from headway.adapters.scaling_table import ScalingTable
from headway.backlog import Load, Policy
from headway.replica_scaling import Reading, ReplicaDecision, ReplicaLoad, ReplicaPolicy
from headway.scaling import Decision
from orchestration.scaling import job_instances_sensor

POLICY = Policy(most=2, extra=1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def decision(job: str, *, before: int, after: int) -> Decision:
    load = Load(
        job=job,
        instances=before,
        ready=before,
        held=False,
        partitions=4,
        lag=90_000,
        lag_s=90.0,
        input_per_s=0.0,
        peak_input_per_s=0.0,
        handled_per_s=1000.0,
        capacity_per_s=1000.0,
        agreeing=3,
        behind=True,
        calm_s=0.0,
    )
    return Decision(load=load, instances=after, reason="because")


def tick(instance: dg.DagsterInstance, file: Path, *, cursor: str | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        resources = {"scaling": ScalingResource(file=str(file))}
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
        return job_instances_sensor(DOMAIN).evaluate_tick(context)


def test_before_the_scaler_ever_decided_there_is_nothing_to_show(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    file = tmp_path / "decisions.sqlite"

    assert "nothing yet" in tick(instance, file).skip_message
    assert not file.exists()


def test_a_change_is_shown_once_with_the_inputs_of_its_decision(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    file = tmp_path / "decisions.sqlite"
    ScalingTable(file).record(
        [decision("enricher", before=1, after=2), decision("loader", before=1, after=1)], POLICY, at_us=1_000_000
    )

    found = tick(instance, file)
    again = tick(instance, file, cursor=found.cursor)

    (observed,) = found.asset_events
    assert observed.asset_key == instances_key(DOMAIN)
    shown = observed.metadata
    assert (shown["instances of enricher"].value, shown["instances of loader"].value) == (2, 1)
    (change,) = shown["changes"].records
    assert (change.data["job"], change.data["after"], change.data["lag"]) == ("enricher", 2, 90_000)
    assert again.skip_message == "no number has changed: enricher 2, loader 1"


def test_decisions_about_replicas_are_in_the_same_table_and_hide_no_job(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    file = tmp_path / "decisions.sqlite"
    made = ScalingTable(file)
    made.record([decision("enricher", before=1, after=2)], POLICY, at_us=1_000_000)
    readings = [[Reading(busy=0.9, in_flight=1.0)]]
    for second in range(2, 100):
        load = ReplicaLoad(job="delay.v1", instances=1, running=1, readings=readings, calm_s=float(second))
        often = ReplicaDecision(load=load, instances=2, reason="because")
        made.record([often], ReplicaPolicy(least=1, most=2), at_us=second * 1_000_000)

    (observed,) = tick(instance, file).asset_events

    assert [name for name in observed.metadata if name.startswith("instances of")] == ["instances of enricher"]
