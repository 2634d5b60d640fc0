"""Dagster with real parts: jobs launched through the webserver, models made with a real MLflow, the gate at work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from domains.flights.curated import FLIGHTS
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.mlflow import MlflowRegistry
from headway.errors import ContractViolation, PermanentFailure
from headway.registry import CANDIDATE, CHAMPION
from orchestration.launch import Dagster
from tests.free_ports import free_port
from tests.integration.trial_definitions import BAD, GOOD

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent.parent
MONTHS = ("2012-12-01", "2013-05-01")
END = "2013-05-21T00:00:00Z"
PERIOD = {"train_from": "2013-01-01T05:00:00Z", "train_until": "2013-05-06T04:00:00Z"}
PERIOD |= {"gate_until": "2013-05-13T04:00:00Z", "known_at": END}
START_TIMEOUT_S = 180.0
RUN_TIMEOUT_S = 300.0
INSTANCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""


@dataclass(frozen=True)
class Stack:
    """A webserver, a tracking server and a lake."""

    dagster: Dagster
    mlflow: str
    lake: Lake

    @property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.mlflow)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


@contextmanager
def running(command: list[str], *, env: dict[str, str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{command[2]} did not start: {log.read_text()[-3000:]}")
            time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("dagster")
    web, tracking = free_port(), free_port()
    mlflow = f"http://127.0.0.1:{tracking}"
    (folder / "dagster.yaml").write_text(INSTANCE)
    (folder / "workspace.yaml").write_text(
        "load_from: [{python_module: {module_name: tests.integration.trial_definitions, location_name: headway}}]"
    )
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(folder),
        "HEADWAY_STATE": str(folder / "state"),
        "HEADWAY_MLFLOW_URL": mlflow,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    server = [
        sys.executable,
        "-m",
        "headway.local.mlflow_server",
        "--port",
        str(tracking),
        "--data",
        str(folder / "ml"),
    ]
    pages = [sys.executable, "-m", "dagster_webserver", "-p", str(web), "-w", str(folder / "workspace.yaml")]
    with (
        running(server, env=env, log=folder / "mlflow.log", ready=lambda: answers(f"{mlflow}/health")),
        running(pages, env=env, log=folder / "web.log", ready=lambda: answers(f"http://127.0.0.1:{web}/server_info")),
        Dagster(f"http://127.0.0.1:{web}") as dagster,
    ):
        yield Stack(dagster, mlflow, Lake(folder / "state" / "lake"))


@pytest.fixture(scope="module")
def history(stack: Stack) -> Stack:
    cut: dict[str, Any] = {"config": {"end": END}}
    run(stack, "load_history", partitions=MONTHS, run_config={"ops": {"lake__events": cut}})
    steps = {f"features__{view.online_name}": cut for view in DOMAIN.views}
    run(stack, "backfill_features", partitions=MONTHS, run_config={"ops": steps})
    return stack


@pytest.fixture(scope="module")
def trained(history: Stack) -> Stack:
    run(history, f"train_{GOOD.name}", run_config=period(GOOD.name), tags={"retrain/reason": "a test"})
    return history


def run(stack: Stack, job: str, **launch: Any) -> None:
    stack.dagster.launch_and_wait(job, timeout_s=RUN_TIMEOUT_S, **launch)


def period(product: str) -> dict[str, Any]:
    return {"ops": {f"{product}__training_set": {"config": PERIOD}}}


def mlflow_runs(stack: Stack, experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def test_history_launched_through_the_webserver_is_in_the_lake_to_the_instant(history: Stack) -> None:
    times = history.lake.scan("events").select(pl.col("time").max()).collect().item()

    assert f"{times:%Y-%m-%d}" == "2013-05-20"
    assert (
        history.dagster.metadata(["lake", "events"])["rows_of_run"]
        == history.lake.read("events", columns=["id"]).height
    )


@pytest.mark.long
def test_days_of_the_warehouse_and_the_report_over_them_are_one_run(history: Stack) -> None:
    """By day here, the report not at all: one job holds both."""
    run(history, "curate", partitions=("2013-03-04", "2013-03-06"))

    flights = history.lake.read(FLIGHTS.table.name)
    assert set(flights["day"]) == {"2013-03-04", "2013-03-05", "2013-03-06"}
    told = history.dagster.metadata(["curated", "flights"])
    assert (told["rows_of_run"], told["days"]) == (flights.height, "2013-03-04 to 2013-03-06")
    assert history.dagster.metadata(["reports", "delays"])["flights"] == flights.height


def test_a_configuration_that_does_not_fit_is_refused_with_what_is_wrong(stack: Stack) -> None:
    with pytest.raises(ContractViolation, match="bogus"):
        stack.dagster.launch("load_history", run_config={"ops": {"bogus": {}}}, partitions=MONTHS)


def test_a_job_that_does_not_exist_is_refused(stack: Stack) -> None:
    with pytest.raises(ContractViolation, match="no_such_job"):
        stack.dagster.launch("no_such_job")


def test_a_model_that_passes_the_gate_becomes_a_version_with_the_alias_candidate(trained: Stack) -> None:
    version = trained.registry.alias(GOOD.name, CANDIDATE)

    assert version is not None
    assert version.digest == trained.dagster.metadata([GOOD.name, "candidate"])["digest"]
    _, manifest = trained.registry.load(GOOD.name, version.version)
    assert manifest.training.tables.keys() == {"events", *(f"features.{view}" for view in GOOD.feature_views)}
    assert trained.registry.alias(GOOD.name, CHAMPION) is None


def test_one_training_is_one_finished_mlflow_run_with_its_figures_and_files(trained: Stack) -> None:
    from mlflow import MlflowClient

    [dagster_run] = trained.dagster.latest_runs({"retrain/reason": "a test"})
    runs = mlflow_runs(trained, GOOD.name)
    [found] = [each for each in runs if each.data.tags["dagster_run_id"] == dagster_run.run_id]

    assert found.info.status == "FINISHED"
    assert found.data.tags["retrain/reason"] == "a test"
    assert found.data.tags["headway.verdict"] == "passed"
    assert found.data.params["trees"] == str(GOOD.model.trees)
    assert found.data.metrics["holdout_roc_auc"] > 0.6
    plots = {file.path for file in MlflowClient(trained.mlflow).list_artifacts(found.info.run_id, "plots")}
    assert {"plots/ranking.png", "plots/calibration.png", "plots/importance.png"} <= plots


def test_a_planted_bad_model_is_stopped_by_the_gate_and_its_verdict_is_kept(history: Stack) -> None:
    """Its labels are shuffled: it cannot rank, whatever it says."""
    with pytest.raises(PermanentFailure, match=r"check gate: .*floor \(ROC AUC\): got .* wanted"):
        run(history, f"train_{BAD.name}", run_config=period(BAD.name))

    [found] = [each for each in mlflow_runs(history, BAD.name) if "headway.verdict" in each.data.tags]
    assert found.info.status == "FAILED"
    assert found.data.tags["headway.verdict"] == "refused"
    assert "floor (ROC AUC)" in found.data.tags["headway.reason"]
    assert history.dagster.metadata([BAD.name, "model"])["passed"] is False
    assert history.registry.versions(BAD.name) == []
    assert history.registry.alias(BAD.name, CANDIDATE) is None


def test_training_the_same_snapshot_again_gives_the_version_it_already_has(trained: Stack) -> None:
    run(trained, f"train_{GOOD.name}", run_config=period(GOOD.name))

    assert [version.version for version in trained.registry.versions(GOOD.name)] == [1]


def test_labels_that_may_still_change_end_the_run_and_fail_its_mlflow_run(history: Stack) -> None:
    early = period(BAD.name)
    early["ops"][f"{BAD.name}__training_set"]["config"] = {**PERIOD, "gate_until": "2013-05-20T04:00:00Z"}

    with pytest.raises(PermanentFailure, match="labels mature at"):
        run(history, f"train_{BAD.name}", run_config=early)

    assert {each.info.status for each in mlflow_runs(history, BAD.name)} == {"FAILED"}
