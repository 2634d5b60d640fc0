"""An ended or running application as its event log tells it: one JSON event a line, usually in rolled, packed files.

Spark 4 writes a folder ``eventlog_v2_<application>`` of ``events_<n>_<application>.zstd``. Files are read line by line, as
a long application's log is larger than memory. A running application's last file may end in the middle; what was
written is read.
"""

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.errors import ContractViolation, PermanentFailure
from headway.memory_reading import ExecutorReading, RunReading, StageReading, TaskReading

Event = Mapping[str, Any]  # Any: Spark's JSON

_ROLLED = re.compile(r"events_(\d+)_")


def newest_log(folder: Path) -> Path:
    """Return the log in ``folder`` that was written to last.

    Raises:
        PermanentFailure: there is none.
    """
    logs = [each for each in folder.glob("*") if _files(each)] if folder.is_dir() else []
    if not logs:
        raise PermanentFailure(
            f"event log: none in {folder}. Run a job with a session of Headway, or name a log: advise --log FILE"
        )
    return max(logs, key=lambda log: max(file.stat().st_mtime for file in _files(log)))


def read_log(log: Path) -> RunReading:
    """Return what an application's log tells.

    Args:
        log: a folder of rolled files, or one file.

    Raises:
        PermanentFailure: there is no log, or it is packed in a way this cannot read.
        ContractViolation: it is no event log.
    """
    files = _files(log)
    if not files:
        raise PermanentFailure(f"event log: {log} holds no file named events_*")
    found = _Found()
    for event in (event for file in files for event in _events(file)):
        found.take(event)
    if not found.properties:
        raise ContractViolation(f"event log: {log} has no SparkListenerEnvironmentUpdate; is it an event log of Spark?")
    return found.reading()


def _files(log: Path) -> list[Path]:
    if log.is_file():
        return [log] if not log.name.startswith((".", "appstatus")) else []
    rolled = [(int(name[1]), file) for file in log.glob("events_*") if (name := _ROLLED.match(file.name))]
    return [file for _, file in sorted(rolled)]


def _events(file: Path) -> Iterator[Event]:
    suffix = file.name.removesuffix(".inprogress").rpartition(".")[2]
    if suffix in ("lz4", "lzf", "snappy"):
        raise PermanentFailure(
            f"event log: {file} is packed with {suffix}, which only a JVM reads. "
            "Write it with spark.eventLog.compression.codec=zstd, or compare with --url while the application runs"
        )
    packed = pa.input_stream(file, compression="zstd") if suffix == "zstd" else pa.input_stream(file, compression=None)
    with io.BufferedReader(packed) as lines:
        try:
            for line in lines:
                yield json.loads(line)
        except (OSError, json.JSONDecodeError):
            return  # a running application's last frame or line, not yet whole


@dataclass
class _Stage:
    name: str = ""
    tasks: list[TaskReading] = field(default_factory=list)
    run_ms: int = 0
    gc_ms: int = 0
    reads_shuffle: bool = False
    failures: list[str] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)


@dataclass
class _Found:
    application: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    stages: defaultdict[tuple[int, int], _Stage] = field(default_factory=lambda: defaultdict(_Stage))
    cores: dict[str, int] = field(default_factory=dict)
    maxima: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    peaks: defaultdict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    removed: dict[str, str] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """Note what one event tells; events of other kinds tell nothing about memory."""
        match event["Event"].rpartition(".")[2].removeprefix("SparkListener"):
            case "ApplicationStart":
                self.application = event.get("App ID") or event["App Name"]
            case "EnvironmentUpdate":
                self.properties = dict(event["Spark Properties"])
            case "ExecutorAdded":
                self.cores[event["Executor ID"]] = event["Executor Info"]["Total Cores"]
            case "ExecutorRemoved":
                self.removed[event["Executor ID"]] = event["Removed Reason"]
            case "BlockManagerAdded":
                sizes = (event.get("Maximum Onheap Memory"), event.get("Maximum Offheap Memory"))
                self.maxima[event["Block Manager ID"]["Executor ID"]] = sizes
            case "StageSubmitted":
                told = (event.get("Properties") or {}).get("spark.job.description")
                self._stage(event["Stage Info"]).name = told or event["Stage Info"]["Stage Name"]
            case "StageExecutorMetrics":
                _raise(self.peaks[event["Executor ID"]], event["Executor Metrics"])
                if (event["Stage ID"], event["Stage Attempt ID"]) in self.stages:  # -1: between stages
                    _raise(self._stage(event).peaks, event["Executor Metrics"])
            case "TaskEnd":
                self._task(event)

    def reading(self) -> RunReading:
        """Return all that was noted."""
        names = sorted(self.cores.keys() | self.maxima.keys())
        return RunReading(
            application=self.application,
            properties=self.properties,
            executors=tuple(self._executor(name) for name in names),
            stages=tuple(
                StageReading(
                    stage=number,
                    name=stage.name,
                    tasks=tuple(stage.tasks),
                    run_ms=stage.run_ms,
                    gc_ms=stage.gc_ms,
                    reads_shuffle=stage.reads_shuffle,
                    failures=tuple(stage.failures),
                    peaks=stage.peaks or None,
                )
                for (number, _), stage in sorted(self.stages.items())
            ),
        )

    def _executor(self, name: str) -> ExecutorReading:
        on_heap, off_heap = self.maxima.get(name, (None, None))
        return ExecutorReading(
            name=name,
            cores=self.cores.get(name, 0),
            maximum_on_heap_bytes=on_heap,
            maximum_off_heap_bytes=off_heap,
            peaks=self.peaks.get(name),
            removed=self.removed.get(name),
        )

    def _stage(self, event: Event) -> _Stage:
        return self.stages[event["Stage ID"], event["Stage Attempt ID"]]

    def _task(self, event: Event) -> None:
        stage = self._stage(event)
        _raise(self.peaks[event["Task Info"]["Executor ID"]], event.get("Task Executor Metrics") or {})
        reason = event["Task End Reason"]
        if reason["Reason"] != "Success":
            told = (reason.get(part) for part in ("Class Name", "Description", "Loss Reason"))
            stage.failures.append(" ".join(text for text in told if text) or reason["Reason"])
        metrics = event.get("Task Metrics")
        if metrics is None:  # the executor was lost before it could tell
            return
        stage.run_ms += metrics["Executor Run Time"]
        stage.gc_ms += metrics["JVM GC Time"]
        stage.reads_shuffle |= metrics["Shuffle Read Metrics"]["Total Records Read"] > 0
        stage.tasks.append(
            TaskReading(
                peak_bytes=metrics["Peak Execution Memory"],
                spilled_bytes=metrics["Memory Bytes Spilled"],
                spilled_disk_bytes=metrics["Disk Bytes Spilled"],
            )
        )


def _raise(kept: dict[str, int], metrics: Mapping[str, int]) -> None:
    for name, size in metrics.items():
        kept[name] = max(size, kept.get(name, 0))
