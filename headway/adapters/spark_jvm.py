"""What the JVM and the Python workers of a local session say of their memory, asked directly.

The REST API does not tell the protected part of storage, nor who holds what at this moment. Spark's own
UnifiedMemoryManager does; it is reached by reflection, as pyspark's jars lack a class that one of SparkEnv's methods
names, and py4j looks at all methods before it calls one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class JvmMemory:
    """The memory manager of the driver's JVM at one moment."""

    largest_heap_bytes: int
    unified_bytes: int
    storage_bytes: int
    off_heap_bytes: int
    off_heap_storage_bytes: int
    page_bytes: int
    cached_bytes: int
    cached_off_heap_bytes: int
    executing_bytes: int


def read_jvm(session: "SparkSession") -> JvmMemory:
    """Return what the memory manager of this session's driver holds; of executors only where they are the driver."""
    jvm: Any = session.sparkContext._jvm  # noqa: SLF001 - the door pyspark gives
    manager = _manager(session)
    region = _field(jvm, "org.apache.spark.memory.UnifiedMemoryManager", "onHeapStorageRegionSize")
    return JvmMemory(
        largest_heap_bytes=jvm.java.lang.Runtime.getRuntime().maxMemory(),
        unified_bytes=manager.maxHeapMemory(),
        storage_bytes=region.get(manager),
        off_heap_bytes=manager.maxOffHeapMemory(),
        off_heap_storage_bytes=manager.offHeapStorageMemory(),
        page_bytes=manager.pageSizeBytes(),
        cached_bytes=manager.onHeapStorageMemoryUsed(),
        cached_off_heap_bytes=manager.offHeapStorageMemoryUsed(),
        executing_bytes=manager.onHeapExecutionMemoryUsed(),
    )


def cached_partitions(session: "SparkSession") -> int:
    """Return how many partitions of all cached frames are in memory; takes no part in what is broadcast."""
    scala = session.sparkContext._jsc.sc()  # noqa: SLF001 - nothing public tells
    return sum(each.numCachedPartitions() for each in scala.getRDDStorageInfo())


def worker_limit_bytes(session: "SparkSession") -> int | None:
    """Return the address space a Python worker may use, as a worker finds it; None when it is not limited."""
    [limit] = session.sparkContext.parallelize([0], 1).mapPartitions(_limit).collect()
    return limit


def settle(session: "SparkSession") -> None:
    """Wait until everything that happened so far is in the REST API, which hears of it through a queue."""
    session.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()  # noqa: SLF001 - nothing public tells


def _limit(_rows: "Iterable[int]") -> list[int | None]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [None if soft == resource.RLIM_INFINITY else soft]


def _manager(session: "SparkSession") -> Any:  # Any: py4j ships no types
    context = session.sparkContext
    held = _field(context._jvm, "org.apache.spark.SparkEnv", "_memoryManager")  # noqa: SLF001 - as above
    return held.get(context._jsc.sc().env())  # noqa: SLF001 - as above


def _field(jvm: Any, of: str, name: str) -> Any:  # Any: likewise
    found = jvm.java.lang.Class.forName(of).getDeclaredField(name)
    found.setAccessible(True)
    return found
