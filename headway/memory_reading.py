"""What a Spark application said of its memory, as values: executors, stages and their tasks. Pure.

Read from an event log or from the driver's REST API by `headway.adapters.spark_history` and `spark_rest`; judged by
`headway.memory_advice`. A figure that was not told is None, never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from headway.memory_configuration import MemoryConfiguration, read_properties


@dataclass(frozen=True, kw_only=True)
class TaskReading:
    """One finished task."""

    peak_bytes: int
    spilled_bytes: int
    spilled_disk_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Roughly what it would have held without spilling: its peak, and what was moved out of memory."""
        return self.peak_bytes + self.spilled_bytes


@dataclass(frozen=True, kw_only=True)
class StageReading:
    """One attempt of a stage."""

    stage: int
    name: str
    tasks: tuple[TaskReading, ...]
    run_ms: int
    gc_ms: int
    reads_shuffle: bool
    failures: tuple[str, ...] = ()
    peaks: Mapping[str, int] | None = None

    @property
    def spilled_bytes(self) -> int:
        """In memory; on disk it is smaller or larger, by compression."""
        return sum(task.spilled_bytes for task in self.tasks)

    @property
    def spilled_disk_bytes(self) -> int:
        """On disk."""
        return sum(task.spilled_disk_bytes for task in self.tasks)

    @property
    def peak_bytes(self) -> int:
        """The most execution memory that one task held."""
        return max((task.peak_bytes for task in self.tasks), default=0)

    @property
    def needed_bytes(self) -> int:
        """The most that one task would have held without spilling."""
        return max((task.needed_bytes for task in self.tasks), default=0)

    @property
    def skew(self) -> float | None:
        """How many times the middle task's need the largest is; None for a single task, or when the middle needs none."""
        middle = median(task.needed_bytes for task in self.tasks) if len(self.tasks) > 1 else 0
        return self.needed_bytes / middle if middle else None

    def peak(self, name: str) -> int | None:
        """Return the peak of the executor that held most while the stage ran; see `ExecutorReading.peak`."""
        return (self.peaks or {}).get(name) or None


@dataclass(frozen=True, kw_only=True)
class ExecutorReading:
    """One executor: what Spark gave it, what it peaked at, and why it is gone. Sizes are bytes, None when not told."""

    name: str
    cores: int
    maximum_on_heap_bytes: int | None = None
    maximum_off_heap_bytes: int | None = None
    peaks: Mapping[str, int] | None = None
    removed: str | None = None

    def peak(self, name: str) -> int | None:
        """Return a peak by Spark's name for it, such as ``JVMHeapMemory``; Spark writes 0 for what it did not measure."""
        return (self.peaks or {}).get(name) or None


@dataclass(frozen=True, kw_only=True)
class RunReading:
    """One application, running or ended."""

    application: str
    properties: Mapping[str, str]
    executors: tuple[ExecutorReading, ...]
    stages: tuple[StageReading, ...]

    @property
    def workers(self) -> tuple[ExecutorReading, ...]:
        """The executors that run tasks: the driver only where it is the only one."""
        return tuple(each for each in self.executors if each.name != "driver") or self.executors

    def configuration(self) -> MemoryConfiguration:
        """Return what its executors were configured with; the most cores where they differ."""
        return read_properties(self.properties, cores=max((each.cores for each in self.workers), default=1) or 1)
