"""What to change after a run, from what it said of its memory; usually the partitions and not the memory. Pure.

More memory moves the point at which a sort spills and does nothing for one partition that holds half of the rows. So
the order of questions is: is the work uneven, are there too few parts, is a cache in the way, and only then the size.
Refuses to judge what was not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headway.memory_configuration import MIB, told_size
from headway.memory_plan import MemoryPlan, lay_out
from headway.memory_reading import ExecutorReading, RunReading, StageReading

Finding = Literal[
    "skew",
    "too-few-partitions",
    "cache-in-the-way",
    "garbage",
    "heap-exhausted",
    "execution-refused",
    "container-killed",
    "worker-memory",
    "executor-lost",
    "heap-too-large",
    "healthy",
]

# The largest task needs this many times the middle one's memory: no size is right for both.
_UNEVEN = 3.0
# Between two tasks the sizes differ anyway, and the sorter's array of pointers doubles.
_MARGIN = 1.5
# Above a tenth of task time in collections, Spark's own pages mark a task red; below ten seconds it is start-up.
_GARBAGE_SHARE = 0.1
_GARBAGE_LEAST_MS = 10_000
# A heap whose peak is under a third of it was paid for and not used.
_IDLE_HEAP = 1 / 3

_KILLED = ("137", "oomkilled", "exceeding memory limits", "container killed", "memory overhead exceeded")
_HEAP = ("java heap space", "gc overhead limit exceeded", "exit code 52", "status 52", "code 52")
_REFUSED = ("unable_to_acquire_memory", "unable to acquire", "sparkoutofmemoryerror")
_WORKER = ("memoryerror", "python worker exited unexpectedly", "cannot allocate memory")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One thing to change, or to leave: where it was seen, with its figures, what to do, and why that."""

    finding: Finding
    where: str
    seen: str
    change: str
    reason: str

    def __str__(self) -> str:
        """The whole advice as one line."""
        return f"{self.where}: {self.seen} ({self.finding}). {self.change} {self.reason}"


def advise(run: RunReading) -> tuple[Advice, ...]:
    """Say what to change, most certain first; one advice that says so when there is nothing."""
    plan = lay_out(run.configuration())
    found = (*_losses(run, plan), *_spills(run, plan), *_garbage(run))
    return found or tuple(_nothing(run, plan))


def _spills(run: RunReading, plan: MemoryPlan) -> Iterator[Advice]:
    for stage in run.stages:
        if stage.spilled_bytes:
            yield _spill(stage, plan, cached_bytes=stage.peak(_pool(plan)) or 0)


def _spill(stage: StageReading, plan: MemoryPlan, *, cached_bytes: int) -> Advice:
    running = min(len(stage.tasks), plan.configuration.tasks) or 1
    share = plan.task_share(cached_bytes=cached_bytes, tasks=running).most_bytes
    alone = plan.task_share(cached_bytes=0, tasks=running).most_bytes
    seen = (
        f"spilled {told_size(stage.spilled_bytes)} of memory as {told_size(stage.spilled_disk_bytes)} on disk; "
        f"the largest of {len(stage.tasks)} tasks needed about {told_size(stage.needed_bytes)} of the {told_size(share)} it gets"
    )
    where = f"stage {stage.stage} ({stage.name})"
    if stage.skew is not None and stage.skew >= _UNEVEN:
        return Advice(
            finding="skew",
            where=where,
            seen=f"{seen}, {stage.skew:.0f} times the middle one's",
            change="Not the memory: split the heavy key (spark.sql.adaptive.skewJoin for joins, a salted key otherwise).",
            reason="One partition holds most rows; memory for it would lie idle in every other task.",
        )
    if share < stage.needed_bytes <= alone:
        return Advice(
            finding="cache-in-the-way",
            where=where,
            seen=f"{seen}, and {told_size(cached_bytes)} were cached",
            change="Not the memory: unpersist what is not read again, cache to disk, or lower spark.memory.storageFraction.",
            reason=f"Without the protected part of the cache a task gets {told_size(alone)}, which is enough.",
        )
    return Advice(
        finding="too-few-partitions",
        where=where,
        seen=seen,
        change=f"Not the memory: {_more_partitions(stage, plan, cached_bytes=cached_bytes)}",
        reason=f"{'One task did all of it' if len(stage.tasks) == 1 else 'The tasks are alike'}, so smaller parts fit; "
        "a larger heap only moves the point at which they spill.",
    )


def _more_partitions(stage: StageReading, plan: MemoryPlan, *, cached_bytes: int) -> str:
    # Smaller parts run side by side, where one large part may have run alone.
    share = plan.task_share(cached_bytes=cached_bytes, tasks=plan.configuration.tasks).most_bytes
    times = max(2, -(-int(stage.needed_bytes * _MARGIN) // max(share, 1)))
    wanted = len(stage.tasks) * times
    if stage.reads_shuffle:
        return (
            f"{wanted} partitions instead of {len(stage.tasks)} (spark.sql.shuffle.partitions, and a smaller "
            "spark.sql.adaptive.advisoryPartitionSizeInBytes, else Spark joins them again)."
        )
    return f"{wanted} partitions instead of {len(stage.tasks)} (repartition before the sort, or a smaller maxPartitionBytes)."


def _garbage(run: RunReading) -> Iterator[Advice]:
    run_ms, gc_ms = (
        (sum(each) for each in zip(*((s.run_ms, s.gc_ms) for s in run.stages), strict=True)) if run.stages else (0, 0)
    )
    if run_ms >= _GARBAGE_LEAST_MS and gc_ms > _GARBAGE_SHARE * run_ms:
        yield Advice(
            finding="garbage",
            where="all stages",
            seen=f"{gc_ms / run_ms:.0%} of {run_ms / 1000:,.0f} s of task time went to garbage collection",
            change="Fewer tasks at once per executor, fewer cached frames or cached on disk; then a larger heap.",
            reason="Collections cost by live objects: rows in flight of all tasks together, and caches of plain objects.",
        )


def _losses(run: RunReading, plan: MemoryPlan) -> Iterator[Advice]:
    failures = [(f"stage {s.stage} ({s.name})", text) for s in run.stages for text in s.failures]
    gone = [(f"executor {each.name}", each.removed) for each in run.executors if each.removed is not None]
    told: set[str] = set()
    for where, text in (*gone, *failures):
        advice = _loss(where, text, run, plan)
        if advice is not None and advice.finding not in told:
            told.add(advice.finding)
            yield advice


def _loss(where: str, text: str, run: RunReading, plan: MemoryPlan) -> Advice | None:
    low, seen = text.lower(), " ".join(text.split())[:160]
    if any(mark in low for mark in _REFUSED):
        return Advice(
            finding="execution-refused",
            where=where,
            seen=seen,
            change="Fewer tasks at once per executor (spark.task.cpus), or smaller rows; then a larger heap.",
            reason=f"A task is sure of {told_size(plan.task_share(cached_bytes=0, tasks=plan.configuration.tasks).least_bytes)}"
            " and something that cannot spill asked for more.",
        )
    if any(mark in low for mark in _HEAP):
        return Advice(
            finding="heap-exhausted",
            where=where,
            seen=seen,
            change="Smaller partitions, no collect or broadcast of large frames; then a larger heap, never a larger fraction.",
            reason=f"Sorts and joins would have spilled: the {told_size(plan.user_bytes)} of user memory ran out.",
        )
    if any(mark in low for mark in _WORKER):
        return Advice(
            finding="worker-memory",
            where=where,
            seen=seen,
            change="Smaller Arrow batches (spark.sql.execution.arrow.maxRecordsPerBatch), then more PySpark memory.",
            reason=f"A Python worker is limited to {told_size(plan.worker_bytes)} of address space."
            if plan.worker_bytes is not None
            else "A Python worker ended; without PySpark memory only the container limits it.",
        )
    if any(mark in low for mark in _KILLED):
        return _killed(where, seen, run, plan)
    if where.startswith("executor") and "decommission" not in low and "idle" not in low:
        return Advice(
            finding="executor-lost",
            where=where,
            seen=seen,
            change="Read that executor's log first.",
            reason="The reason given names no memory, and lost executors also come from preempted or broken machines.",
        )
    return None


def _killed(where: str, seen: str, run: RunReading, plan: MemoryPlan) -> Advice:
    python = max((each.peak("ProcessTreePythonRSSMemory") or 0 for each in run.workers), default=0)
    measured = f" Python peaked at {told_size(python)}." if python else ""
    return Advice(
        finding="container-killed",
        where=where,
        seen=seen,
        change="Raise spark.executor.memoryOverhead, or give PySpark memory and fewer cores; not the heap.",
        reason=f"The system ended the process, so what grew is beside the heap: {told_size(plan.overhead_bytes)} of overhead"
        f" hold the JVM's own, native libraries and workers.{measured}",
    )


def _nothing(run: RunReading, plan: MemoryPlan) -> Iterator[Advice]:
    heap = plan.configuration.heap_bytes
    used = max((each.peak("JVMHeapMemory") or 0 for each in run.workers), default=0)
    peak = max((stage.peak_bytes for stage in run.stages), default=0)
    seen = f"nothing spilled, no executor was lost; a task held {told_size(peak)} of execution memory at most"
    if used and used < heap * _IDLE_HEAP and heap > 1024 * MIB:
        yield Advice(
            finding="heap-too-large",
            where=run.application,
            seen=f"{seen}, and the heap peaked at {told_size(used)} of {told_size(heap)}",
            change="A smaller heap, or more tasks at once per executor.",
            reason="What is reserved and not used is paid for.",
        )
    else:
        yield Advice(
            finding="healthy",
            where=run.application,
            seen=seen,
            change="Leave the memory as it is.",
            reason=f"Time is elsewhere; the plan gives unified memory {told_size(plan.unified_bytes)}.",
        )


def _pool(plan: MemoryPlan) -> str:
    return "OffHeapStorageMemory" if plan.configuration.off_heap_enabled else "OnHeapStorageMemory"


def told_peaks(executor: ExecutorReading) -> str:
    """Return an executor's peaks as one line; what was not measured is left out."""
    names = {
        "JVMHeapMemory": "heap",
        "OnHeapUnifiedMemory": "unified",
        "OnHeapExecutionMemory": "execution",
        "OnHeapStorageMemory": "storage",
        "OffHeapUnifiedMemory": "off-heap",
        "ProcessTreePythonRSSMemory": "Python",
    }
    told = [f"{word} {told_size(size)}" for name, word in names.items() if (size := executor.peak(name)) is not None]
    return ", ".join(told) or "no peaks were written (spark.eventLog.logStageExecutorMetrics)"
