"""Rules of Spark's memory: what an executor must not be set to, and why. Pure.

Spark itself refuses a small heap and a storage fraction of 1. It takes, and runs with, a memory fraction of 1.5, an
off-heap size that is not enabled, a pod without room for its Python workers; those end as a killed container.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headway.errors import ContractViolation
from headway.memory_configuration import MIB, OVERHEAD_FACTOR, MemoryConfiguration

# UnifiedMemoryManager.RESERVED_SYSTEM_MEMORY_BYTES of Spark 4.3.0; a heap under 1.5 of it does not start.
RESERVED_BYTES = 300 * MIB
MINIMUM_HEAP_BYTES = RESERVED_BYTES * 3 // 2
# Above it the rest of the heap is too little for what tasks hold outside Spark's accounting (rows in flight, closures,
# broadcasts, metadata), and jobs end in OutOfMemoryError instead of spilling.
HIGHEST_FRACTION = 0.9
# PySpark memory is a limit of the worker's address space, not of what it touches: pandas and pyarrow map 508 MiB and
# use 126, measured with pandas 2.3 and pyarrow 25. Less ends in MemoryError, or in a library that cannot be loaded.
WORKER_ADDRESS_BYTES = 512 * MIB
WORKER_RESIDENT_BYTES = 128 * MIB

Rule = Literal[
    "heap-minimum",
    "memory-fraction",
    "storage-fraction",
    "off-heap-size",
    "off-heap-not-enabled",
    "cores",
    "task-cpus",
    "overhead-factor",
    "negative-size",
    "overhead-holds-native",
    "pyspark-worker",
    "pyspark-not-in-pod",
]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """One rule that a configuration breaks: which, where, what it is, what it has to be, the cost and the way out."""

    rule: Rule
    field: str
    got: str
    wanted: str
    reason: str
    way_out: str

    def __str__(self) -> str:
        """The whole finding as one line."""
        return f"{self.field}: got {self.got}, wanted {self.wanted} ({self.rule}): {self.reason}. {self.way_out}"


def broken_rules(configuration: MemoryConfiguration) -> tuple[Broken, ...]:
    """Give every rule that a configuration breaks; those about sums only when the single values make sense."""
    values = (*_heap(configuration), *_off_heap(configuration), *_tasks(configuration), *_overhead(configuration))
    return values or tuple(_sums(configuration))


def refuse_broken(broken: tuple[Broken, ...]) -> None:
    """Pass when there are none.

    Raises:
        ContractViolation: names every rule that is broken.
    """
    if broken:
        raise ContractViolation("unsafe Spark memory. " + " ".join(str(each) for each in broken))


def jvm_own_bytes(configuration: MemoryConfiguration) -> int:
    """Return what a JVM needs beside its heap (threads, code, class data, network buffers), by Spark's own estimate."""
    heap_mib = configuration.heap_bytes // MIB
    return max(int(OVERHEAD_FACTOR * heap_mib) * MIB, 384 * MIB)


def beside_heap_bytes(configuration: MemoryConfiguration) -> int:
    """Return what the overhead has to hold: the JVM's own, and native memory and Python workers without a place."""
    needed = jvm_own_bytes(configuration)
    if configuration.application == "jvm":
        return needed + configuration.native_bytes
    if configuration.pyspark_bytes is not None:
        return needed
    return needed + configuration.tasks * WORKER_RESIDENT_BYTES + configuration.native_bytes


def overhead_bytes(of: MemoryConfiguration) -> int:
    """Return the overhead Spark adds: as given, else the factor's share of the heap in whole MiB, at least the minimum."""
    if of.overhead_bytes is not None:
        return of.overhead_bytes // MIB * MIB
    by_factor = int(of.factor * (of.heap_bytes // MIB)) * MIB
    return max(by_factor, of.minimum_overhead_bytes // MIB * MIB)


def _heap(of: MemoryConfiguration) -> Iterator[Broken]:
    if of.heap_bytes < MINIMUM_HEAP_BYTES:
        yield Broken(
            rule="heap-minimum",
            field="heap",
            got=_mib(of.heap_bytes),
            wanted=f"at least {_mib(MINIMUM_HEAP_BYTES)}",
            reason="Spark sets 300 MiB aside and does not start with less than 1.5 times that",
            way_out="Give 1g or more; for tiny work use no Spark",
        )
    if not 0 < of.fraction <= HIGHEST_FRACTION:
        yield Broken(
            rule="memory-fraction",
            field="spark.memory.fraction",
            got=f"{of.fraction:g}",
            wanted=f"above 0, at most {HIGHEST_FRACTION:g}",
            reason="Spark takes any positive number, above 1 too, and then promises memory the heap does not have",
            way_out="Leave it at 0.6",
        )
    if not 0 <= of.storage_fraction < 1:
        yield Broken(
            rule="storage-fraction",
            field="spark.memory.storageFraction",
            got=f"{of.storage_fraction:g}",
            wanted="from 0 to below 1",
            reason="it is the part of unified memory whose cached blocks execution may not evict; all of it leaves none",
            way_out="Leave it at 0.5, or lower it when sorts and joins spill beside a cache",
        )


def _off_heap(of: MemoryConfiguration) -> Iterator[Broken]:
    if of.off_heap_enabled and of.off_heap_bytes < MIB:
        yield Broken(
            rule="off-heap-size",
            field="spark.memory.offHeap.size",
            got=f"{of.off_heap_bytes} bytes",
            wanted="at least 1 MiB, as it is enabled",
            reason="Spark does not start",
            way_out="Give a size, or do not enable it",
        )
    if of.off_heap_bytes > 0 and not of.off_heap_enabled:
        yield Broken(
            rule="off-heap-not-enabled",
            field="spark.memory.offHeap.enabled",
            got="false",
            wanted=f"true, as its size is {_mib(of.off_heap_bytes)}",
            reason="sorts and joins would not use it, OFF_HEAP caches would, and no pod has room for it",
            way_out="Enable it, or take the size away",
        )


def _tasks(of: MemoryConfiguration) -> Iterator[Broken]:
    if of.cores < 1:
        yield Broken(
            rule="cores",
            field="spark.executor.cores",
            got=str(of.cores),
            wanted="at least 1",
            reason="an executor without cores runs no task",
            way_out="Give the cores of one executor",
        )
    if not 0 < of.task_cpus <= max(of.cores, 1):
        yield Broken(
            rule="task-cpus",
            field="spark.task.cpus",
            got=f"{of.task_cpus:g}",
            wanted=f"above 0, at most the {of.cores} cores",
            reason="a task that asks for more cores than an executor has is never scheduled, and the job hangs",
            way_out="Raise the cores, or lower this",
        )


def _overhead(of: MemoryConfiguration) -> Iterator[Broken]:
    if of.overhead_factor is not None and of.overhead_factor <= 0:
        yield Broken(
            rule="overhead-factor",
            field="spark.executor.memoryOverheadFactor",
            got=f"{of.overhead_factor:g}",
            wanted="above 0",
            reason="Spark makes no pod with it",
            way_out="Leave it out, or set spark.executor.memoryOverhead, which replaces it",
        )
    sizes = {
        "spark.memory.offHeap.size": of.off_heap_bytes,
        "spark.executor.pyspark.memory": of.pyspark_bytes,
        "spark.executor.memoryOverhead": of.overhead_bytes,
        "spark.executor.minMemoryOverhead": of.minimum_overhead_bytes,
        "native": of.native_bytes,
    }
    for name, size_bytes in sizes.items():
        if size_bytes is not None and size_bytes < 0:
            yield Broken(
                rule="negative-size",
                field=name,
                got=f"{size_bytes} bytes",
                wanted="0 or more",
                reason="it is a size",
                way_out="Leave it out",
            )


def _sums(of: MemoryConfiguration) -> Iterator[Broken]:
    if of.pyspark_bytes is not None and (of.deployment, of.application) == ("kubernetes", "jvm"):
        yield Broken(
            rule="pyspark-not-in-pod",
            field="spark.kubernetes.resource.type",
            got="not python",
            wanted=f"python, as PySpark memory is {_mib(of.pyspark_bytes)}",
            reason="in client mode Spark limits the workers to it and leaves it out of the pod, which is then killed",
            way_out="Set spark.kubernetes.resource.type=python, as a session of Headway does",
        )
    elif of.pyspark_bytes is not None:
        # Native libraries run inside the workers of a Python application, under the same limit.
        needed = WORKER_ADDRESS_BYTES * of.tasks + of.native_bytes
        if of.pyspark_bytes < needed:
            yield Broken(
                rule="pyspark-worker",
                field="spark.executor.pyspark.memory",
                got=f"{_mib(of.pyspark_bytes)} for {of.tasks} workers",
                wanted=f"at least {_mib(needed)}",
                reason="it limits address space, of which a worker with pandas and pyarrow needs 512 MiB before any data",
                way_out="Raise it, lower the cores, or leave it out and raise spark.executor.memoryOverhead",
            )
    yield from _container(of)


def _container(of: MemoryConfiguration) -> Iterator[Broken]:
    needed = beside_heap_bytes(of)
    given = overhead_bytes(of)
    if of.deployment == "kubernetes" and given < needed:
        yield Broken(
            rule="overhead-holds-native",
            field="spark.executor.memoryOverhead",
            got=_mib(given),
            wanted=f"at least {_mib(needed)}",
            reason="native memory of LightGBM and Python workers without PySpark memory live here beside the JVM's own; "
            "over the limit the container is killed (exit code 137) with the heap half empty",
            way_out="Set the overhead, or PySpark memory; application jvm when no Python runs in executors",
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:g} MiB" if size_bytes % MIB == 0 else f"{size_bytes / MIB:,.1f} MiB"
