"""The picture of Spark's memory in Dagster, on an ephemeral instance."""

import json
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.spark_memory import spark_memory_job

EVENTS = [
    {"Event": "SparkListenerApplicationStart", "App Name": "job", "App ID": "app-1"},
    {"Event": "SparkListenerEnvironmentUpdate", "Spark Properties": {"spark.master": "local[2]"}},
    {"Event": "SparkListenerExecutorRemoved", "Executor ID": "driver", "Removed Reason": "exit code 137"},
    {"Event": "SparkListenerExecutorAdded", "Executor ID": "driver", "Executor Info": {"Total Cores": 2}},
]


def run() -> dg.ExecuteInProcessResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return spark_memory_job().execute_in_process(raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [output] = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return dict(output.step_output_data.metadata)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path))


def test_the_segments_are_drawn_and_listed() -> None:
    shown = metadata(run())

    assert shown["executor memory"].value.startswith("![executor memory](data:image/png;base64,")
    assert [record.data["segment"] for record in shown["segments"].records][:4] == [
        "reserved",
        "user",
        "storage",
        "execution",
    ]
    assert shown["unified MiB"].value == pytest.approx(434.4, abs=0.01)
    assert "advice" not in shown


def test_the_newest_run_is_judged_beside_the_plan(tmp_path: Path) -> None:
    log = tmp_path / "spark" / "events" / "eventlog_v2_app-1"
    log.mkdir(parents=True)
    (log / "events_1_app-1").write_text("".join(f"{json.dumps(event)}\n" for event in EVENTS))

    shown = metadata(run())

    assert shown["last run"].value == "app-1"
    assert "not the heap" in shown["advice"].records[0].data["change"]


def test_an_unsafe_setting_fails_the_step_with_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_SPARK_FRACTION", "1.5")

    result = run()

    [failed] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert not result.success
    assert failed.step_failure_data.user_failure_data is not None
    assert "(memory-fraction)" in str(failed.step_failure_data.user_failure_data.description)
