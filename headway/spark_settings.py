"""What a Spark session is made of: where it runs, its sizes, and the Spark properties that follow.

`SparkSettings()` reads ``HEADWAY_SPARK_*`` when it is called: ``HEADWAY_SPARK_MASTER``, ``HEADWAY_SPARK_HEAP`` and so on.
Sizes go through the memory plan, so a session that would be killed later is refused before its JVM starts.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from headway.errors import ContractViolation
from headway.memory_configuration import MemoryConfiguration, deployment_of, parse_size
from headway.settings import LOOPBACK

# Drivers on one machine take the next port when theirs is taken; as many as the block keeps for them.
UI_PORTS = 8
# In case a cluster has two Pythons; on one machine it is ours, whatever is first on PATH.
_CLUSTER_PYTHON = "python3"
_HERE = (LOOPBACK, "localhost")
_THREADS = re.compile(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?")
_CLUSTER_IN_PROCESS = re.compile(r"local-cluster\[\d+,\s*(\d+),\s*\d+\]")


class SparkSettings(BaseSettings):
    """Where Spark runs and with what. Sizes carry their unit: ``1g``, ``512m``."""

    model_config = SettingsConfigDict(env_prefix="HEADWAY_SPARK_", frozen=True, extra="ignore")

    master: str = Field(default="local[2]", description="local[N], spark://host:port or k8s://https://host:port")
    heap: str = Field(default="1g", description="heap of an executor; locally of the driver, which is the executor")
    driver_heap: str = Field(default="1g", description="heap of the driver of a cluster")
    fraction: float = Field(default=0.6, description="part of the heap, less 300 MiB, that Spark manages")
    storage_fraction: float = Field(default=0.5, description="part of that whose cached blocks stay")
    off_heap: str = Field(default="0", description="memory outside the heap that Spark manages; 0: none")
    pyspark: str = Field(default="", description="Python workers of an executor together; no limit when empty")
    overhead: str = Field(default="", description="beside the heap of a pod; Spark's share of the heap when empty")
    overhead_factor: float | None = Field(default=None, description="that share; Spark's own when empty")
    minimum_overhead: str = Field(default="384m", description="the least that share comes to")
    cores: int = Field(default=0, ge=0, description="of an executor; 0: those of local[N], else 1")
    executors: int = Field(default=2, ge=1, description="in a cluster")
    native: str = Field(
        default="0", description="what LightGBM and the like allocate in an executor, outside every heap"
    )
    image: str = Field(default="", description="of executors on Kubernetes")
    namespace: str = Field(default="default", description="of executors on Kubernetes")
    driver_host: str = Field(default="", description="where a cluster's executors reach this process")
    python: str = Field(default="", description="of the workers; ours on one machine, python3 in a cluster, when empty")
    properties: dict[str, str] = Field(default_factory=dict, description="other Spark properties, as JSON")

    @field_validator("master")
    @classmethod
    def _is_a_master(cls, master: str) -> str:
        known = ("spark://", "k8s://")
        if _THREADS.fullmatch(master) or _CLUSTER_IN_PROCESS.fullmatch(master) or master.startswith(known):
            return master
        raise ValueError(
            f"got {master!r}, wanted local, local[N], local[*], spark://host:port or k8s://https://host:port"
        )

    def memory(self, *, machine_cores: int) -> MemoryConfiguration:
        """Return the sizes, for the plan.

        Raises:
            ContractViolation: something is no size.
        """
        off_heap = parse_size(self.off_heap)
        return MemoryConfiguration(
            heap_bytes=parse_size(self.heap),
            fraction=self.fraction,
            storage_fraction=self.storage_fraction,
            off_heap_enabled=off_heap > 0,
            off_heap_bytes=off_heap,
            pyspark_bytes=parse_size(self.pyspark) if self.pyspark else None,
            overhead_bytes=parse_size(self.overhead) if self.overhead else None,
            overhead_factor=self.overhead_factor,
            minimum_overhead_bytes=parse_size(self.minimum_overhead),
            deployment=deployment_of(self.master),
            cores=self.cores or _cores(self.master, machine_cores=machine_cores),
            native_bytes=parse_size(self.native),
        )

    @property
    def on_one_machine(self) -> bool:
        """Whether driver and executors share this machine, and nothing needs to listen beyond loopback."""
        return self.master.startswith(("local", *(f"spark://{host}:" for host in _HERE)))

    def worker_python(self, ours: str) -> str:
        """Return the interpreter of Python workers; ``python3`` on PATH, Spark's default, lacks our packages."""
        return self.python or (ours if self.on_one_machine else _CLUSTER_PYTHON)

    def check(self) -> Self:
        """Return these settings when a session can be made of them.

        Raises:
            ContractViolation: a cluster lacks what it needs, or a property is one the plan decides.
        """
        needed = {"driver_host": self.driver_host} if not self.on_one_machine else {}
        if self.master.startswith("k8s://"):
            needed["image"] = self.image
        for name, value in needed.items():
            if not value or value in _HERE:
                raise ContractViolation(
                    f"spark: {name} is {value or 'empty'!r} with master {self.master}, wanted what executors on other "
                    f"machines can use. Set HEADWAY_SPARK_{name.upper()}, or use local[2]"
                )
        decided = sorted(self.properties.keys() & self.memory(machine_cores=1).properties().keys())
        if decided:
            raise ContractViolation(
                f"spark: properties name {', '.join(decided)}, which the memory plan decides. "
                "Use HEADWAY_SPARK_HEAP, _FRACTION, _OFF_HEAP, _PYSPARK, _OVERHEAD or _CORES"
            )
        return self


def read_spark_settings(given: Mapping[str, Any]) -> SparkSettings:  # Any: values of all fields
    """Return the settings of the environment, those given in their place.

    Raises:
        ContractViolation: names each setting that is none, with what was wanted.
    """
    try:
        return SparkSettings(**given)
    except ValidationError as error:
        told = (f"HEADWAY_SPARK_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors())
        raise ContractViolation("; ".join(told)) from error


def session_properties(
    spark: SparkSettings, memory: MemoryConfiguration, *, folder: Path, ui_port: int, python: str
) -> dict[str, str]:
    """Return every Spark property of a session of ours; the user's own come last.

    Args:
        spark: the settings.
        memory: the sizes, already planned.
        folder: for event logs, spilled data and tables without a place.
        ui_port: of the driver's pages and REST API, the first of a row.
        python: this process' interpreter.
    """
    return {
        **memory.properties(),
        **_of_the_place(spark, memory, python=python),
        "spark.ui.port": str(ui_port),
        "spark.port.maxRetries": str(UI_PORTS - 1),
        "spark.ui.showConsoleProgress": "false",
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": (folder / "events").as_uri(),
        # What the advice after a run needs: peaks by stage, seen often enough for stages of a second.
        "spark.eventLog.logStageExecutorMetrics": "true",
        "spark.executor.metrics.pollingInterval": "500",
        "spark.executor.processTreeMetrics.enabled": "true",
        "spark.local.dir": str(folder / "scratch"),
        "spark.sql.warehouse.dir": (folder / "warehouse").as_uri(),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Else a type Arrow lacks makes the same job ten times slower, with a warning nobody reads.
        "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",
        "spark.driver.extraJavaOptions": _JVM,
        "spark.executor.extraJavaOptions": _JVM,
        **spark.properties,
    }


# G1, as a JVM with one core chooses the serial collector, whose largest heap is 3 to 7 % under -Xmx.
_JVM = "-XX:+UseG1GC -Duser.timezone=UTC"


def _of_the_place(spark: SparkSettings, memory: MemoryConfiguration, *, python: str) -> dict[str, str]:
    workers = {
        "spark.master": spark.master,
        "spark.executorEnv.TZ": "UTC",
        "spark.executorEnv.PYSPARK_PYTHON": spark.worker_python(python),
    }
    if memory.deployment != "local":
        workers["spark.driver.memory"] = f"{parse_size(spark.driver_heap) >> 20}m"
    if memory.deployment == "standalone":
        # Such a cluster hands out cores, not executors, and all it has unless told.
        workers["spark.cores.max"] = str(spark.executors * memory.cores)
    if spark.on_one_machine:
        return workers | {"spark.driver.host": LOOPBACK, "spark.driver.bindAddress": LOOPBACK}
    workers["spark.driver.host"] = spark.driver_host
    workers["spark.driver.bindAddress"] = "0.0.0.0"  # noqa: S104 - executors come from other machines
    if memory.deployment == "kubernetes":
        workers["spark.executor.instances"] = str(spark.executors)
        workers["spark.kubernetes.container.image"] = spark.image
        workers["spark.kubernetes.namespace"] = spark.namespace
    return workers


def _cores(master: str, *, machine_cores: int) -> int:
    if found := _THREADS.fullmatch(master):
        return machine_cores if found[1] == "*" else int(found[1] or 1)
    if found := _CLUSTER_IN_PROCESS.fullmatch(master):
        return int(found[1])
    return 1
