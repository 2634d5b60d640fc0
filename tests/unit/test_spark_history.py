"""Reading event logs: rolled, packed, cut off, or no event log at all."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headway.adapters.spark_history import newest_log, read_log
from headway.errors import ContractViolation, PermanentFailure
from headway.memory_reading import TaskReading

Event = dict[str, Any]

START: Event = {"Event": "SparkListenerApplicationStart", "App Name": "job", "App ID": "app-1"}
ENVIRONMENT: Event = {"Event": "SparkListenerEnvironmentUpdate", "Spark Properties": {"spark.master": "local[2]"}}
ADDED: Event = {"Event": "SparkListenerExecutorAdded", "Executor ID": "1", "Executor Info": {"Total Cores": 2}}
REMOVED: Event = {"Event": "SparkListenerExecutorRemoved", "Executor ID": "1", "Removed Reason": "exit code 137"}
MANAGER: Event = {
    "Event": "SparkListenerBlockManagerAdded",
    "Block Manager ID": {"Executor ID": "1"},
    "Maximum Onheap Memory": 100,
    "Maximum Offheap Memory": 7,
}
OTHER: Event = {"Event": "org.apache.spark.sql.execution.ui.SparkListenerSQLExecutionStart", "executionId": 1}


def submitted(description: str | None) -> Event:
    properties = {} if description is None else {"spark.job.description": description}
    info = {"Stage ID": 0, "Stage Attempt ID": 0, "Stage Name": "save at X"}
    return {"Event": "SparkListenerStageSubmitted", "Stage Info": info, "Properties": properties}


def metrics(stage: int, **peaks: int) -> Event:
    place = {"Executor ID": "1", "Stage ID": stage, "Stage Attempt ID": 0}
    return {"Event": "SparkListenerStageExecutorMetrics", **place, "Executor Metrics": peaks}


def ended(*, peak: int, spilled: int = 0) -> Event:
    return {
        "Event": "SparkListenerTaskEnd",
        "Stage ID": 0,
        "Stage Attempt ID": 0,
        "Task End Reason": {"Reason": "Success"},
        "Task Info": {"Executor ID": "1"},
        "Task Executor Metrics": {"JVMHeapMemory": peak},
        "Task Metrics": {
            "Executor Run Time": 100,
            "JVM GC Time": 5,
            "Peak Execution Memory": peak,
            "Memory Bytes Spilled": spilled,
            "Disk Bytes Spilled": spilled // 2,
            "Shuffle Read Metrics": {"Total Records Read": 3},
        },
    }


def lost() -> Event:
    reason = {"Reason": "ExecutorLostFailure", "Loss Reason": "Command exited with code 137"}
    return ended(peak=0) | {"Task End Reason": reason, "Task Metrics": None}


def written(folder: Path, *parts: list[Event], packed: bool = True) -> Path:
    log = folder / "eventlog_v2_app-1"
    log.mkdir(parents=True)
    (log / "appstatus_app-1").touch()
    for number, events in enumerate(parts, start=1):
        name = f"events_{number}_app-1"
        text = "".join(f"{json.dumps(event)}\n" for event in events).encode()
        if packed:
            with pa.output_stream(log / f"{name}.zstd", compression="zstd") as output:
                output.write(text)
        else:
            (log / name).write_bytes(text)
    return log


@pytest.mark.parametrize("packed", [True, False])
def test_a_log_in_several_files_is_one_run(tmp_path: Path, *, packed: bool) -> None:
    """Twelve files: the tenth comes after the ninth, not after the first."""
    last = [metrics(0, JVMHeapMemory=90), metrics(-1, JVMHeapMemory=95), REMOVED]
    head = [START, ENVIRONMENT, OTHER, ADDED, MANAGER, submitted("sort")]
    log = written(tmp_path, head, *[[ended(peak=n)] for n in range(10)], last, packed=packed)

    run = read_log(log)

    [stage], [executor] = run.stages, run.executors
    assert [task.peak_bytes for task in stage.tasks] == list(range(10))
    assert (stage.name, stage.run_ms, stage.gc_ms, stage.reads_shuffle) == ("sort", 1_000, 50, True)
    assert (executor.maximum_on_heap_bytes, executor.maximum_off_heap_bytes, executor.cores) == (100, 7, 2)
    assert (executor.peak("JVMHeapMemory"), stage.peak("JVMHeapMemory")) == (95, 90)
    assert executor.removed == "exit code 137"
    assert run.configuration().cores == 2


def test_a_task_whose_executor_was_lost_counts_as_a_failure_and_not_as_a_task_of_size_zero(tmp_path: Path) -> None:
    log = written(tmp_path, [START, ENVIRONMENT, submitted(None), ended(peak=8, spilled=4), lost()])

    [stage] = read_log(log).stages

    assert stage.tasks == (TaskReading(peak_bytes=8, spilled_bytes=4, spilled_disk_bytes=2),)
    assert (stage.failures, stage.name) == (("Command exited with code 137",), "save at X")


def test_a_running_application_is_read_as_far_as_it_wrote(tmp_path: Path) -> None:
    log = written(tmp_path, [START, ENVIRONMENT, submitted(None), *[ended(peak=n) for n in range(1, 3_000)]])
    [file] = log.glob("events_*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    (log / "more").touch()

    [stage] = read_log(log).stages

    assert 0 < len(stage.tasks) < 2_999


def test_a_log_that_only_a_jvm_reads_is_refused_with_the_setting_that_helps(tmp_path: Path) -> None:
    file = tmp_path / "events_1_app.lz4"
    file.write_bytes(b"LZ4Block")

    with pytest.raises(PermanentFailure, match=r"eventLog\.compression\.codec=zstd"):
        read_log(file)


def test_a_file_that_is_no_event_log_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.write_text("hello\n")

    with pytest.raises(ContractViolation, match="is it an event log"):
        read_log(file)


def test_without_a_log_the_way_to_one_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PermanentFailure, match="Run a job with a session of Headway"):
            newest_log(folder)


def test_the_newest_log_is_the_one_written_to_last(tmp_path: Path) -> None:
    import os

    old, new = (written(tmp_path / name, [START, ENVIRONMENT]) for name in ("a", "b"))
    for age, log in ((0, old), (60, new)):
        moved = tmp_path / f"log-{age}"
        log.rename(moved)
        for file in moved.iterdir():
            os.utime(file, (1_000_000 + age, 1_000_000 + age))

    assert newest_log(tmp_path) == tmp_path / "log-60"
