"""What a run's figures say should change; usually not the memory."""

from dataclasses import replace

import pytest

from headway.memory_advice import advise, told_peaks
from headway.memory_configuration import GIB, MIB
from headway.memory_reading import ExecutorReading, RunReading, StageReading, TaskReading

PROPERTIES = {"spark.master": "local[2]", "spark.driver.memory": "4g"}  # unified 2,277.6 MiB, protected half of it


def task(peak_mib: int, *, spilled_mib: int = 0) -> TaskReading:
    return TaskReading(
        peak_bytes=peak_mib * MIB, spilled_bytes=spilled_mib * MIB, spilled_disk_bytes=spilled_mib * MIB // 2
    )


def stage(*tasks: TaskReading, **fields: object) -> StageReading:
    base = StageReading(stage=3, name="join", tasks=tasks, run_ms=1_000, gc_ms=10, reads_shuffle=True)
    return replace(base, **fields)  # type: ignore[arg-type]  # fields of a stage


def run(*stages: StageReading, executor: ExecutorReading | None = None, **properties: str) -> RunReading:
    return RunReading(
        application="app",
        properties=PROPERTIES | {name.replace("__", "."): value for name, value in properties.items()},
        executors=(executor or ExecutorReading(name="driver", cores=2),),
        stages=stages,
    )


def findings(reading: RunReading) -> list[str]:
    return [each.finding for each in advise(reading)]


def test_one_large_partition_is_skew_whatever_the_memory() -> None:
    [advice] = advise(run(stage(*[task(50)] * 9, task(1_100, spilled_mib=4_000))))

    assert advice.finding == "skew"
    assert advice.change.startswith("Not the memory")
    assert "102 times" in advice.seen


def test_alike_partitions_that_are_too_large_are_too_few() -> None:
    """Each needs 3,100 MiB of the 1,138.8 it gets: at a margin of a half, five parts for each of the ten."""
    [advice] = advise(run(stage(*[task(1_100, spilled_mib=2_000)] * 10)))

    assert advice.finding == "too-few-partitions"
    assert "50 partitions instead of 10 (spark.sql.shuffle.partitions" in advice.change


def test_the_partitions_of_a_scan_are_made_smaller_elsewhere() -> None:
    [advice] = advise(run(stage(*[task(1_100, spilled_mib=2_000)] * 10, reads_shuffle=False)))

    assert "maxPartitionBytes" in advice.change


def test_a_cache_in_the_way_of_a_sort_is_named_with_its_size() -> None:
    cached = stage(task(1_100, spilled_mib=600), peaks={"OnHeapStorageMemory": 1_500 * MIB})

    [advice] = advise(run(cached))

    assert advice.finding == "cache-in-the-way"
    assert "1,500.0 MiB were cached" in advice.seen


def test_the_same_sort_without_a_cache_is_not_blamed_on_one() -> None:
    assert findings(run(stage(task(1_100, spilled_mib=600)))) == ["too-few-partitions"]


def test_off_heap_sorts_are_judged_by_the_off_heap_pool() -> None:
    reading = run(
        stage(task(200, spilled_mib=100), peaks={"OnHeapStorageMemory": GIB, "OffHeapStorageMemory": 300 * MIB}),
        spark__memory__offHeap__enabled="true",
        spark__memory__offHeap__size=str(400 * MIB),
    )

    [advice] = advise(reading)

    assert (advice.finding, "of the 200.0 MiB it gets" in advice.seen) == ("cache-in-the-way", True)


def test_garbage_is_named_when_it_is_a_tenth_of_a_run_worth_judging() -> None:
    assert findings(run(stage(task(10), run_ms=100_000, gc_ms=20_000))) == ["garbage"]
    assert findings(run(stage(task(10), run_ms=1_000, gc_ms=200))) == ["healthy"]
    assert findings(run(stage(task(10), run_ms=100_000, gc_ms=9_000))) == ["healthy"]


@pytest.mark.parametrize(
    ("removed", "finding"),
    [
        ("The executor with id 1 exited with exit code 137(SIGKILL, possible container OOM).", "container-killed"),
        ("Command exited with code 137", "container-killed"),
        ("The executor with id 1 exited with exit code 52(JVM OOM).", "heap-exhausted"),
        ("Executor heartbeat timed out after 130000 ms", "executor-lost"),
    ],
)
def test_a_lost_executor_is_told_by_the_reason_spark_gives(removed: str, finding: str) -> None:
    assert findings(run(executor=ExecutorReading(name="1", cores=2, removed=removed))) == [finding]


def test_an_executor_that_was_not_needed_any_more_is_no_loss() -> None:
    gone = ExecutorReading(name="1", cores=2, removed="Executor decommission: spark scale down")

    assert findings(run(executor=gone)) == ["healthy"]


@pytest.mark.parametrize(
    ("failure", "finding"),
    [
        ("java.lang.OutOfMemoryError Java heap space", "heap-exhausted"),
        ("org.apache.spark.memory.SparkOutOfMemoryError [UNABLE_TO_ACQUIRE_MEMORY] 65536 bytes", "execution-refused"),
        ("org.apache.spark.api.python.PythonException MemoryError: Unable to allocate 1.2 GiB", "worker-memory"),
        ("org.apache.spark.SparkException Python worker exited unexpectedly (crashed)", "worker-memory"),
    ],
)
def test_a_failed_task_is_told_by_its_error(failure: str, finding: str) -> None:
    assert findings(run(stage(failures=(failure,)))) == [finding]


def test_a_bug_in_the_job_is_no_matter_of_memory() -> None:
    assert findings(run(stage(failures=("java.lang.ArithmeticException [DIVIDE_BY_ZERO]",)))) == ["healthy"]


def test_ten_tasks_of_one_cause_give_one_advice() -> None:
    assert findings(run(stage(failures=("java.lang.OutOfMemoryError Java heap space",) * 10))) == ["heap-exhausted"]


def test_a_killed_container_is_never_answered_with_a_larger_heap() -> None:
    peaks = {"ProcessTreePythonRSSMemory": 900 * MIB}
    [advice] = advise(run(executor=ExecutorReading(name="1", cores=2, removed="exit code 137", peaks=peaks)))

    assert "not the heap" in advice.change
    assert "Python peaked at 900.0 MiB" in advice.reason


def test_an_idle_heap_is_said_to_be_too_large() -> None:
    idle = ExecutorReading(name="driver", cores=2, peaks={"JVMHeapMemory": 500 * MIB})
    busy = ExecutorReading(name="driver", cores=2, peaks={"JVMHeapMemory": 3_000 * MIB})

    assert findings(run(stage(task(10)), executor=idle)) == ["heap-too-large"]
    assert findings(run(stage(task(10)), executor=busy)) == ["healthy"]


def test_what_was_not_measured_is_left_out() -> None:
    peaks = {"JVMHeapMemory": 5 * MIB, "ProcessTreePythonRSSMemory": 0}

    assert told_peaks(ExecutorReading(name="1", cores=1, peaks=peaks)) == "heap 5.0 MiB"
    assert told_peaks(ExecutorReading(name="1", cores=1)).startswith("no peaks were written")
