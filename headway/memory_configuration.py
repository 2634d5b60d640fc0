"""What decides the memory of a Spark executor, as values: read from Spark properties, written as Spark properties. Pure.

Sizes are bytes. Spark reads a bare number as MiB in most of its memory settings and as bytes in
``spark.memory.offHeap.size``; sizes given to Headway carry their unit, so that nobody has to know which.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from headway.errors import ContractViolation

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

Deployment = Literal["local", "standalone", "kubernetes"]
# Whether executors run Python workers; on Kubernetes it also decides how large Spark makes the pod.
Application = Literal["python", "jvm"]

# Spark's defaults, read from the configuration entries of 4.3.0. The fraction has been 0.6 since 2.0, not 0.75.
DEFAULT_FRACTION = 0.6
DEFAULT_STORAGE_FRACTION = 0.5
DEFAULT_HEAP_BYTES = GIB
DEFAULT_MINIMUM_OVERHEAD_BYTES = 384 * MIB
OVERHEAD_FACTOR = 0.1
# On Kubernetes, for applications whose main resource is no JVM class.
PYTHON_OVERHEAD_FACTOR = 0.4

_UNITS = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": GIB, "t": GIB * KIB}
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(i?b)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class MemoryConfiguration:
    """One executor's settings; locally the driver is the executor, and ``heap_bytes`` is the driver's.

    ``native_bytes`` is what libraries such as LightGBM allocate outside every heap, in all tasks of one executor
    together: in the Python workers of a Python application, else in the JVM's process.
    """

    heap_bytes: int = DEFAULT_HEAP_BYTES
    fraction: float = DEFAULT_FRACTION
    storage_fraction: float = DEFAULT_STORAGE_FRACTION
    off_heap_enabled: bool = False
    off_heap_bytes: int = 0
    pyspark_bytes: int | None = None
    overhead_bytes: int | None = None
    overhead_factor: float | None = None
    minimum_overhead_bytes: int = DEFAULT_MINIMUM_OVERHEAD_BYTES
    deployment: Deployment = "local"
    application: Application = "python"
    cores: int = 1
    task_cpus: float = 1
    native_bytes: int = 0

    @property
    def tasks(self) -> int:
        """Tasks that run at once in one executor."""
        return int(self.cores / self.task_cpus)

    @property
    def factor(self) -> float:
        """The overhead factor that holds: as given, else Spark's for this deployment and application."""
        if self.overhead_factor is not None:
            return self.overhead_factor
        if (self.deployment, self.application) == ("kubernetes", "python"):
            return PYTHON_OVERHEAD_FACTOR
        return OVERHEAD_FACTOR

    def properties(self) -> dict[str, str]:
        """Return the Spark properties that make an executor like this; what is Spark's default is written as well."""
        heap = _in_mib(self.heap_bytes)
        written = {
            "spark.memory.fraction": str(self.fraction),
            "spark.memory.storageFraction": str(self.storage_fraction),
            "spark.memory.offHeap.enabled": str(self.off_heap_enabled).lower(),
            "spark.memory.offHeap.size": str(self.off_heap_bytes),
            "spark.executor.memory": heap,
            # Without it a local session gives each Python worker the whole PySpark memory instead of its share.
            "spark.executor.cores": str(self.cores),
            "spark.task.cpus": f"{self.task_cpus:g}",
        }
        if self.deployment == "local":
            written["spark.driver.memory"] = heap
        if self.pyspark_bytes is not None:
            written["spark.executor.pyspark.memory"] = _in_mib(self.pyspark_bytes)
        if self.deployment == "kubernetes":
            written |= self._pod_properties()
        return written

    def _pod_properties(self) -> dict[str, str]:
        # In client mode nobody but the application can say that it is Python: without the type, PySpark memory is set
        # in the workers and missing from the pod; without the factor, the pod has a JVM's 0.1.
        written = {
            "spark.executor.memoryOverheadFactor": str(self.factor),
            "spark.executor.minMemoryOverhead": _in_mib(self.minimum_overhead_bytes),
        }
        if self.application == "python":
            written["spark.kubernetes.resource.type"] = "python"
        if self.overhead_bytes is not None:
            written["spark.executor.memoryOverhead"] = _in_mib(self.overhead_bytes)
        return written


def read_properties(properties: Mapping[str, str], *, cores: int) -> MemoryConfiguration:
    """Return what an application was configured with.

    Args:
        properties: its Spark properties, as its environment page or its event log tells them.
        cores: of one executor, as Spark counted them; ``local[*]`` does not say.

    Raises:
        ContractViolation: a value that Spark would not take either.
    """
    found = {name: value for name, value in properties.items() if value != ""}
    deployment = deployment_of(found.get("spark.master", "local"))
    heap_name = "spark.driver.memory" if deployment == "local" else "spark.executor.memory"
    # A driver in client mode that does not say so is no Python application to the code that sizes pods.
    is_python = deployment != "kubernetes" or found.get("spark.kubernetes.resource.type") == "python"
    for_all = _number(found, "spark.kubernetes.memoryOverheadFactor", OVERHEAD_FACTOR)
    return MemoryConfiguration(
        heap_bytes=_size(found, heap_name, bare=MIB) or DEFAULT_HEAP_BYTES,
        fraction=_number(found, "spark.memory.fraction", DEFAULT_FRACTION),
        storage_fraction=_number(found, "spark.memory.storageFraction", DEFAULT_STORAGE_FRACTION),
        off_heap_enabled=found.get("spark.memory.offHeap.enabled", "false").lower() == "true",
        off_heap_bytes=_size(found, "spark.memory.offHeap.size", bare=1) or 0,
        pyspark_bytes=_size(found, "spark.executor.pyspark.memory", bare=MIB),
        overhead_bytes=_size(found, "spark.executor.memoryOverhead", bare=MIB),
        overhead_factor=_number(found, "spark.executor.memoryOverheadFactor", for_all),
        minimum_overhead_bytes=_size(found, "spark.executor.minMemoryOverhead", bare=MIB)
        or DEFAULT_MINIMUM_OVERHEAD_BYTES,
        deployment=deployment,
        application="python" if is_python else "jvm",
        cores=cores,
        task_cpus=_number(found, "spark.task.cpus", 1.0),
    )


def deployment_of(master: str) -> Deployment:
    """Return where a master puts executors."""
    # local-cluster is a standalone cluster whose master and workers live in the driver; its executors have JVMs.
    standalone = "://" in master or master.startswith("local-cluster")
    if master.startswith("k8s://"):
        return "kubernetes"
    return "standalone" if standalone else "local"


def parse_size(text: str, *, bare: int | None = None) -> int:
    """Return the bytes of a size such as ``4g``, ``450m`` or ``512MiB``; units are powers of 1,024, as in Spark.

    Args:
        text: the size.
        bare: what a number without unit counts; None refuses it.

    Raises:
        ContractViolation: not a size, or no unit where one is needed.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or (bare is None and not (found[2] or found[3]) and int(found[1])):
        raise ContractViolation(f"size: got {text!r}, wanted a whole number and its unit, for example 450m, 4g or 0")
    number, unit = int(found[1]), found[2].lower()
    return number * (bare if bare is not None and not (unit or found[3]) else _UNITS[unit])


def told_size(size_bytes: int) -> str:
    """Return a size as people read it, in MiB with one digit."""
    return f"{size_bytes / MIB:,.1f} MiB"


def _in_mib(size_bytes: int) -> str:
    return f"{size_bytes // MIB}m"


def _size(properties: Mapping[str, str], name: str, *, bare: int) -> int | None:
    return parse_size(properties[name], bare=bare) if name in properties else None


def _number(properties: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(properties.get(name, default))
    except ValueError as error:
        raise ContractViolation(f"{name}: got {properties[name]!r}, wanted a number") from error
