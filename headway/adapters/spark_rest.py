"""A running application as its driver's REST API tells it; the same reading as from an event log.

The API is a view that lags behind the scheduler by moments: for a verdict on an ended run its event log is better.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from headway.errors import DependencyDown, PermanentFailure
from headway.memory_reading import ExecutorReading, RunReading, StageReading, TaskReading

# Pages of ten thousand tasks come in well under a second, but the first answer loads a driver's classes: on two busy
# cores that took more than 10 s.
_TIMEOUT_S = 60.0
_MOST_TASKS = 10_000


def read_driver(url: str, *, application: str | None = None) -> RunReading:
    """Return what the driver at ``url`` tells of its application.

    Args:
        url: where its pages are, for example ``http://127.0.0.1:18080``.
        application: its id; the first when None, as a driver has one and only a history server more.

    Raises:
        DependencyDown: nothing answers there.
        PermanentFailure: there is no such application, or what answers is no Spark.
    """
    base = f"{url.rstrip('/')}/api/v1/applications"
    name = application or _first(base)
    environment = _get(f"{base}/{name}/environment")
    return RunReading(
        application=name,
        properties=dict(environment["sparkProperties"]),
        executors=tuple(_executor(told) for told in _get(f"{base}/{name}/allexecutors")),
        stages=tuple(_stages(f"{base}/{name}/stages")),
    )


def _first(base: str) -> str:
    found = _get(base)
    if not found:
        raise PermanentFailure(f"Spark: {base} lists no application")
    return str(found[0]["id"])


def _executor(told: Mapping[str, Any]) -> ExecutorReading:  # Any: Spark's JSON
    memory = told.get("memoryMetrics") or {}
    return ExecutorReading(
        name=told["id"],
        cores=told["totalCores"],
        maximum_on_heap_bytes=memory.get("totalOnHeapStorageMemory"),
        maximum_off_heap_bytes=memory.get("totalOffHeapStorageMemory"),
        peaks=told.get("peakMemoryMetrics"),
        removed=told.get("removeReason"),
    )


def _stages(url: str) -> Iterator[StageReading]:
    for told in sorted(_get(url), key=lambda stage: (stage["stageId"], stage["attemptId"])):
        # Sums tell whether any task held memory; only the tasks tell how evenly.
        held = told["peakExecutionMemory"] or told["memoryBytesSpilled"] or told["numFailedTasks"]
        place = f"{url}/{told['stageId']}/{told['attemptId']}/taskList?length={_MOST_TASKS}"
        tasks = [task for task in (_get(place) if held else []) if task.get("taskMetrics")]
        yield StageReading(
            stage=told["stageId"],
            name=told.get("description") or told["name"],
            tasks=tuple(_task(task["taskMetrics"]) for task in tasks),
            run_ms=told["executorRunTime"],
            gc_ms=told["jvmGcTime"],
            reads_shuffle=told["shuffleReadRecords"] > 0,
            failures=tuple(task["errorMessage"] for task in tasks if task.get("errorMessage")),
            peaks=told.get("peakExecutorMetrics"),
        )


def _task(metrics: Mapping[str, Any]) -> TaskReading:  # Any: Spark's JSON
    return TaskReading(
        peak_bytes=metrics["peakExecutionMemory"],
        spilled_bytes=metrics["memoryBytesSpilled"],
        spilled_disk_bytes=metrics["diskBytesSpilled"],
    )


def _get(url: str) -> Any:  # Any: JSON
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - an address the operator gave
            return json.load(answer)
    except HTTPError as error:
        raise PermanentFailure(f"Spark: {url} answered {error.code}; is it a driver's address?") from error
    except json.JSONDecodeError as error:
        raise PermanentFailure(f"Spark: {url} answered something that is no JSON; is it a driver's address?") from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise DependencyDown("Spark driver", f"{url}: {error}; start the application, or give --url") from error
