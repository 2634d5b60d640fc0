"""Where the bytes of a Spark executor go: the heap's segments, what lies beside the heap, and each task's share. Pure.

The arithmetic is that of Spark 4.3.0 (UnifiedMemoryManager, MemoryManager, ResourceProfile), to the byte; the
integration tests hold it to what running applications say of themselves. Two things bite. The heap is what the JVM
calls its largest, which is ``-Xmx`` under G1 and less under the serial collector, which a JVM chooses by itself on one
core: a session of ours asks for G1. And the border between execution and storage is not a wall: execution takes all
free memory and evicts cached blocks down to the protected part, caching never takes anything from execution.
"""

from dataclasses import dataclass
from typing import Literal

from headway.memory_configuration import MIB, MemoryConfiguration
from headway.memory_rules import RESERVED_BYTES, beside_heap_bytes, broken_rules, overhead_bytes, refuse_broken

Region = Literal["heap", "beside"]

_SMALLEST_PAGE_BYTES, _LARGEST_PAGE_BYTES = MIB, 64 * MIB
# A page on the heap is an array; under G1 Spark leaves its header's 16 bytes out, else it would fill a region and a bit.
_ARRAY_HEADER_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of an executor's memory."""

    name: str
    size_bytes: int
    region: Region
    meaning: str


@dataclass(frozen=True, kw_only=True)
class TaskShare:
    """What one of ``tasks`` running tasks gets of execution memory: waits until it has the least, is given the most."""

    tasks: int
    least_bytes: int
    most_bytes: int


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The memory of one executor. ``storage_bytes`` is the protected part of unified memory, not what may be cached."""

    configuration: MemoryConfiguration
    reserved_bytes: int
    user_bytes: int
    unified_bytes: int
    storage_bytes: int
    execution_bytes: int
    off_heap_storage_bytes: int
    off_heap_execution_bytes: int
    pyspark_bytes: int
    overhead_bytes: int
    container_bytes: int

    @property
    def off_heap_bytes(self) -> int:
        """Memory outside the heap that Spark manages."""
        return self.off_heap_storage_bytes + self.off_heap_execution_bytes

    @property
    def spare_overhead_bytes(self) -> int:
        """What the overhead has left when the JVM, native libraries and unlimited workers have theirs; may be negative."""
        return self.overhead_bytes - beside_heap_bytes(self.configuration)

    @property
    def worker_bytes(self) -> int | None:
        """The limit of each Python worker's address space, in whole MiB as Spark sets it; None without a limit."""
        if self.configuration.pyspark_bytes is None:
            return None
        return self.pyspark_bytes // MIB // max(self.configuration.tasks, 1) * MIB

    @property
    def page_bytes(self) -> int:
        """The page in which sorts, joins and aggregations take execution memory."""
        off_heap = self.configuration.off_heap_enabled
        pool = self.off_heap_execution_bytes if off_heap else self.execution_bytes
        wanted = pool // self.configuration.cores // 16
        page = min(max(_next_power_of_two(wanted), _SMALLEST_PAGE_BYTES), _LARGEST_PAGE_BYTES)
        return page if off_heap else page - _ARRAY_HEADER_BYTES

    def task_share(self, *, cached_bytes: int, tasks: int) -> TaskShare:
        """Return each task's part while ``cached_bytes`` are cached in the pool that sorts and joins use.

        Cached blocks within the protected part stay, those beyond it give way, so they cost execution nothing.
        """
        if self.configuration.off_heap_enabled:
            pool, protected = self.off_heap_bytes, self.off_heap_storage_bytes
        else:
            pool, protected = self.unified_bytes, self.storage_bytes
        reachable = pool - min(cached_bytes, protected)
        return TaskShare(tasks=tasks, least_bytes=reachable // (2 * tasks), most_bytes=reachable // tasks)

    def segments(self) -> tuple[Segment, ...]:
        """Return all parts; those of the heap add up to it, and all that a container holds to the container."""
        heap = (
            ("reserved", self.reserved_bytes, "Spark's own, never counted"),
            ("user", self.user_bytes, "rows in flight, closures, broadcasts, metadata; overflow is OutOfMemoryError"),
            ("storage", self.storage_bytes, "protected: cached blocks that execution may not evict"),
            ("execution", self.execution_bytes, "sorts, joins, aggregations; caches borrow it and are evicted"),
        )
        beside = (
            ("off-heap storage", self.off_heap_storage_bytes, "protected, for OFF_HEAP caches"),
            ("off-heap execution", self.off_heap_execution_bytes, "sorts and joins when off-heap is enabled"),
            ("PySpark", self.pyspark_bytes, "address space of the Python workers"),
            ("overhead", self.overhead_bytes, "the JVM's own, native libraries, workers without a limit"),
        )
        return (
            *(Segment(name=name, size_bytes=size, region="heap", meaning=told) for name, size, told in heap),
            *(
                Segment(name=name, size_bytes=size, region="beside", meaning=told)
                for name, size, told in beside
                if size
            ),
        )


def plan_memory(configuration: MemoryConfiguration) -> MemoryPlan:
    """Return the plan of a configuration that keeps every rule.

    Raises:
        ContractViolation: names each rule that is broken, with field, got, wanted and the way out.
    """
    refuse_broken(broken_rules(configuration))
    return lay_out(configuration)


def lay_out(configuration: MemoryConfiguration) -> MemoryPlan:
    """Return the segments of a configuration as Spark would make them, unsafe ones too."""
    heap = configuration.heap_bytes
    unified = int((heap - RESERVED_BYTES) * configuration.fraction)
    storage = int(unified * configuration.storage_fraction)
    off_heap_storage = int(configuration.off_heap_bytes * configuration.storage_fraction)
    # Spark adds the parts of a container in whole MiB, each rounded down.
    off_heap = configuration.off_heap_bytes // MIB * MIB if configuration.off_heap_enabled else 0
    pyspark = (configuration.pyspark_bytes or 0) // MIB * MIB
    in_container = pyspark if (configuration.deployment, configuration.application) != ("kubernetes", "jvm") else 0
    overhead = overhead_bytes(configuration)
    return MemoryPlan(
        configuration=configuration,
        reserved_bytes=RESERVED_BYTES,
        user_bytes=heap - RESERVED_BYTES - unified,
        unified_bytes=unified,
        storage_bytes=storage,
        execution_bytes=unified - storage,
        off_heap_storage_bytes=off_heap_storage,
        off_heap_execution_bytes=configuration.off_heap_bytes - off_heap_storage,
        pyspark_bytes=pyspark,
        overhead_bytes=overhead,
        container_bytes=heap // MIB * MIB + overhead + off_heap + in_container,
    )


def _next_power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length() if number > 1 else 1
