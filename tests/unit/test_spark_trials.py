"""The judge of the trials: what has to be seen on a real Spark, and that seeing something else is a failure."""

import pytest

from headway.adapters.spark_jvm import JvmMemory
from headway.adapters.spark_trials import Moment, _judge
from headway.memory_configuration import MIB, MemoryConfiguration
from headway.memory_plan import plan_memory
from headway.memory_reading import StageReading, TaskReading

PLAN = plan_memory(MemoryConfiguration(heap_bytes=600 * MIB))  # unified 180 MiB, protected 90


def moment(*, cached_mib: float = 0, partitions: int = 0) -> Moment:
    memory = JvmMemory(
        largest_heap_bytes=600 * MIB,
        unified_bytes=PLAN.unified_bytes,
        storage_bytes=PLAN.storage_bytes,
        off_heap_bytes=0,
        off_heap_storage_bytes=0,
        page_bytes=PLAN.page_bytes,
        cached_bytes=int(cached_mib * MIB),
        cached_off_heap_bytes=0,
        executing_bytes=0,
    )
    return Moment(memory=memory, partitions=partitions)


def stage(name: str, *, peak_mib: int, spilled_mib: int) -> StageReading:
    task = TaskReading(peak_bytes=peak_mib * MIB, spilled_bytes=spilled_mib * MIB, spilled_disk_bytes=0)
    return StageReading(stage=0, name=name, tasks=(task,), run_ms=1, gc_ms=0, reads_shuffle=False)


def seen(
    *,
    fits_spilled: int = 0,
    spills_spilled: int = 100,
    before: float = 150,
    after: float = 89,
    evicting_peak: int = 80,
    keeping_spilled: int = 0,
    beside: int = 0,
    alone: int = 1,
) -> set[str]:
    moments = {
        "evicts: before": moment(cached_mib=before),
        "evicts: after": moment(cached_mib=after),
        "keeps: sorting": moment(partitions=beside),
        "keeps: alone": moment(partitions=alone),
    }
    stages = {
        "fits": stage("fits", peak_mib=150, spilled_mib=fits_spilled),
        "spills": stage("spills", peak_mib=170, spilled_mib=spills_spilled),
        "evicts": stage("evicts", peak_mib=evicting_peak, spilled_mib=50),
        "keeps": stage("keeps", peak_mib=170, spilled_mib=keeping_spilled),
    }
    return {trial.name for trial in _judge(PLAN, moments, stages) if not trial.held}


def test_what_spark_promises_is_accepted() -> None:
    assert seen() == set()


@pytest.mark.parametrize(
    ("trial", "changed"),
    [
        ("fits", {"fits_spilled": 1}),
        ("spills", {"spills_spilled": 0}),
        ("evicts", {"after": 150}),  # nothing was evicted
        ("evicts", {"after": 60}),  # more than what is not protected
        ("evicts", {"before": 90}),  # there was nothing beyond the protected part
        ("evicts", {"evicting_peak": 40}),  # the sort did not use what it could
        ("keeps", {"beside": 1}),  # the cache took execution's memory
        ("keeps", {"keeping_spilled": 5}),  # or made it spill
        ("keeps", {"alone": 0}),  # or the block never fits, and nothing was shown
    ],
)
def test_anything_else_is_a_failure_of_that_trial(trial: str, changed: dict[str, int]) -> None:
    assert seen(**changed) == {trial}
