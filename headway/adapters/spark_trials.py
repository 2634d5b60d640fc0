"""Four short jobs on a real Spark that show what the plan promises: what fits, what spills, what is evicted, what is not.

Each is sized by the plan of the session it runs in, predicted before it runs, and judged by what Spark wrote in its
event log and by its own memory manager. One task at a time, as two would share execution memory by the moment.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.adapters.spark import RunningSpark, spark_session
from headway.adapters.spark_history import read_log
from headway.adapters.spark_jvm import JvmMemory, cached_partitions, read_jvm
from headway.commands import Say
from headway.errors import ContractViolation
from headway.memory_configuration import told_size
from headway.memory_forecast import forecast_sort, row_bytes, rows_within
from headway.memory_plan import MemoryPlan
from headway.memory_reading import StageReading
from headway.settings import Settings
from headway.spark_settings import SparkSettings

if TYPE_CHECKING:
    from pyspark import StorageLevel
    from pyspark.sql import DataFrame

# Wide rows, so that a sort's memory is its rows and not its pointers, and columns whose values do not compress.
_COLUMNS = 32
_ROW = row_bytes(_COLUMNS)
# Blocks small beside the protected part: how far eviction goes is seen to within one of them.
_BLOCKS = 40
_SPARE = 0.9  # of a share: a prediction that is sure
_FULL = 0.95  # of unified memory: room for no second copy of what is sorted
_CACHED = 0.85  # of unified memory: well beyond the protected part
_OVER = 1.4  # times a share


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One job: what was predicted, what was seen, and whether that is the same."""

    name: str
    predicted: str
    seen: str
    held: bool


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The memory manager at one moment, and how many partitions are cached."""

    memory: JvmMemory
    partitions: int


def run_trials(settings: Settings, spark: SparkSettings, say: Say) -> list[Trial]:
    """Run the four jobs in a session of their own, and judge them.

    Raises:
        ContractViolation: the session would run several tasks at once.
    """
    if spark.master not in ("local", "local[1]"):
        raise ContractViolation(f"spark: got master {spark.master}, wanted local[1]: the trials are sized for one task")
    moments: dict[str, Moment] = {}
    with spark_session("headway spark-memory show", settings, spark) as running:
        # Trying how each column packs takes ten times what storing it does, and these do not pack.
        running.session.conf.set("spark.sql.inMemoryColumnarStorage.compressed", "false")
        say(f"session {running.application}, unified memory {told_size(running.plan.unified_bytes)}, {running.url}")
        for name, trial in _TRIALS.items():
            say(f"{name} ...")
            running.session.sparkContext.setJobDescription(name)
            for moment in trial(running):
                moments[f"{name}: {moment}"] = _moment(running)
    stages = {stage.name: stage for stage in read_log(running.event_log).stages}
    return list(_judge(running.plan, moments, stages))


def _fits(running: RunningSpark) -> Iterator[str]:
    _sort(running, _rows(running.plan, _SPARE))
    yield "after"


def _spills(running: RunningSpark) -> Iterator[str]:
    _sort(running, _rows(running.plan, _OVER))
    yield "after"


def _evicts(running: RunningSpark) -> Iterator[str]:
    rows = int(_pool(running.plan)[0] * _CACHED / (8 * _COLUMNS))
    frame = _wide(running, rows, partitions=_BLOCKS).persist(_level(running))
    _run(frame)
    yield "before"
    running.session.sparkContext.setJobDescription("evicts")
    _sort(running, _rows(running.plan, _OVER))
    yield "after"
    frame.unpersist(blocking=True)


def _keeps(running: RunningSpark) -> Iterator[str]:
    rows = _rows(running.plan, _FULL)
    # The sort holds its memory while its rows are handed to the cache, in one task.
    _cache(running, _wide(running, rows, partitions=1).sortWithinPartitions("c1"))
    yield "sorting"
    running.session.catalog.clearCache()
    running.session.sparkContext.setJobDescription("keeps: alone")
    _cache(running, _wide(running, rows, partitions=1))
    yield "alone"
    running.session.catalog.clearCache()


_TRIALS: Mapping[str, Callable[[RunningSpark], Iterator[str]]] = {
    "fits": _fits,
    "spills": _spills,
    "evicts": _evicts,
    "keeps": _keeps,
}


def _judge(plan: MemoryPlan, moments: Mapping[str, Moment], stages: Mapping[str, StageReading]) -> Iterator[Trial]:
    for name, part in (("fits", _SPARE), ("spills", _OVER)):
        stage = stages[name]
        told = forecast_sort(plan, rows=_rows(plan, part), row=_ROW, tasks=1)
        yield Trial(
            name=name,
            predicted=f"{told.verdict}: a sort {told.reason}",
            seen=f"peak {told_size(stage.peak_bytes)}, spilled {told_size(stage.spilled_bytes)}",
            held=told.verdict == name and (stage.spilled_bytes > 0) == (name == "spills"),
        )
    yield _judge_eviction(plan, moments, stages["evicts"])
    yield _judge_keeping(moments, stages["keeps"])


def _judge_eviction(plan: MemoryPlan, moments: Mapping[str, Moment], stage: StageReading) -> Trial:
    pool, protected = _pool(plan)
    before, after = (_cached(plan, moments[f"evicts: {name}"]) for name in ("before", "after"))
    block = before // _BLOCKS
    return Trial(
        name="evicts",
        predicted=f"execution evicts cached blocks down to the protected {told_size(protected)}, and no further",
        seen=f"cached {told_size(before)} before, {told_size(after)} after (blocks of {told_size(block)}); "
        f"the sort held {told_size(stage.peak_bytes)}",
        held=before > protected + 2 * block
        and protected - 2 * block <= after <= protected
        and stage.peak_bytes >= pool - protected - 2 * plan.page_bytes,
    )


def _judge_keeping(moments: Mapping[str, Moment], stage: StageReading) -> Trial:
    beside, alone = (moments[f"keeps: {name}"].partitions for name in ("sorting", "alone"))
    return Trial(
        name="keeps",
        predicted="caching evicts no execution: beside a sort that fills memory the block is not stored, alone it is",
        seen=f"{beside} of 1 partition cached beside the sort, which held {told_size(stage.peak_bytes)} and spilled "
        f"{told_size(stage.spilled_bytes)}; {alone} of 1 alone",
        held=(beside, alone, stage.spilled_bytes) == (0, 1, 0) and stage.peak_bytes > 0,
    )


def _pool(plan: MemoryPlan) -> tuple[int, int]:
    """The pool that sorts use, and its protected part."""
    if plan.configuration.off_heap_enabled:
        return plan.off_heap_bytes, plan.off_heap_storage_bytes
    return plan.unified_bytes, plan.storage_bytes


def _cached(plan: MemoryPlan, moment: Moment) -> int:
    memory = moment.memory
    return memory.cached_off_heap_bytes if plan.configuration.off_heap_enabled else memory.cached_bytes


def _rows(plan: MemoryPlan, part: float) -> int:
    share = plan.task_share(cached_bytes=0, tasks=1).most_bytes
    return rows_within(int(share * part), _ROW, page=plan.page_bytes)


def _level(running: RunningSpark) -> "StorageLevel":
    from pyspark import StorageLevel

    # Not StorageLevel.OFF_HEAP, which goes to disk for want of memory and is called cached all the same.
    off_heap_only = StorageLevel(useDisk=False, useMemory=True, useOffHeap=True, deserialized=False)
    return off_heap_only if running.plan.configuration.off_heap_enabled else StorageLevel.MEMORY_ONLY


def _wide(running: RunningSpark, rows: int, *, partitions: int) -> "DataFrame":
    values = (f"xxhash64(id, {column}) AS c{column}" for column in range(1, _COLUMNS))
    return running.session.range(0, rows, 1, partitions).selectExpr("id", *values)


def _sort(running: RunningSpark, rows: int) -> None:
    _run(_wide(running, rows, partitions=1).sortWithinPartitions("c1"))


def _cache(running: RunningSpark, frame: "DataFrame") -> None:
    _run(frame.persist(_level(running)))


def _run(frame: "DataFrame") -> None:
    frame.write.format("noop").mode("overwrite").save()


def _moment(running: RunningSpark) -> Moment:
    return Moment(memory=read_jvm(running.session), partitions=cached_partitions(running.session))
