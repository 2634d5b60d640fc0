"""One Spark session as a context: a JVM of its own, sized by the memory plan, gone when the block ends.

The heap of a driver is fixed when its JVM starts, and PySpark keeps one JVM for the life of a process, ``stop()`` or
not: a second session with another heap silently gets the first one's. So a session of ours starts its own JVM, ends it,
and refuses to start beside one that is there. Spark's own log goes to a file, as it would drown a command's output.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT, TimeoutExpired
from typing import TYPE_CHECKING, Any

from headway.errors import PermanentFailure
from headway.memory_plan import MemoryPlan, plan_memory
from headway.settings import LOOPBACK, Settings
from headway.spark_settings import SparkSettings, session_properties

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Flushing the event log and deleting scratch takes about a second; a JVM that needs longer hangs.
_END_S = 20.0


@dataclass(frozen=True, kw_only=True)
class RunningSpark:
    """A session, and where to look at it."""

    session: "SparkSession"
    plan: MemoryPlan
    application: str
    url: str
    event_log: Path


@contextmanager
def spark_session(name: str, settings: Settings, spark: SparkSettings) -> Iterator[RunningSpark]:
    """Give a session that nothing else uses; session and JVM end with the block, whatever ends it.

    Takes 5 to 15 s to start. One at a time in a process.

    Raises:
        ContractViolation: the sizes break a rule of Spark's memory, or a cluster lacks a setting.
        PermanentFailure: a JVM of Spark is here already, or Spark does not start; its log is named.
    """
    from pyspark import SparkContext

    memory = spark.check().memory(machine_cores=os.cpu_count() or 1)
    plan = plan_memory(memory)
    if SparkContext._gateway is not None:  # noqa: SLF001 - nothing public tells
        raise PermanentFailure(
            "spark: this process has a JVM of Spark already, whose heap cannot change. "
            "End that session's block first; a session made without Headway keeps its JVM until the process ends"
        )
    folder = settings.state / "spark"
    for part in ("events", "scratch", "warehouse"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    properties = session_properties(
        spark, memory, folder=folder, ui_port=settings.ports.spark_ui, python=sys.executable
    )
    with _environment(spark), _jvm(properties, log=folder / "driver.log") as context_of:
        session = context_of(name)
        try:
            context = session.sparkContext
            # uiWebUrl is None when a user's property turned the pages off.
            yield RunningSpark(
                session=session,
                plan=plan,
                application=context.applicationId,
                url=context.uiWebUrl or "",
                event_log=folder / "events" / f"eventlog_v2_{context.applicationId}",
            )
        finally:
            session.stop()


@contextmanager
def _jvm(
    properties: Mapping[str, str], *, log: Path
) -> Iterator[Any]:  # Any: a function, given what pyspark leaves untyped
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    conf = SparkConf(loadDefaults=False).setAll(list(properties.items()))

    def session_named(name: str) -> SparkSession:
        try:
            return SparkSession(SparkContext(conf=conf.setAppName(name), gateway=gateway))
        except Py4JError as error:
            raise PermanentFailure(f"spark: no session: {_first_line(error)}; Spark's log is {log}") from error

    with log.open("ab") as output:
        try:
            gateway = launch_gateway(  # type: ignore[no-untyped-call]  # pyspark leaves it so
                conf=conf, popen_kwargs={"stdout": output, "stderr": STDOUT}
            )
        except PySparkRuntimeError as error:
            raise PermanentFailure(
                f"spark: the JVM ended before it answered; its log is {log}. `headway doctor` checks Java"
            ) from error
        try:
            yield session_named
        finally:
            _end(gateway)
            SparkContext._gateway = None  # noqa: SLF001 - else the next session takes the dead JVM
            SparkContext._jvm = None  # noqa: SLF001 - likewise


def _end(gateway: Any) -> None:  # Any: py4j ships no types
    gateway.shutdown()
    # The JVM ends when its input does.
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(_END_S)
    except TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()


@contextmanager
def _environment(spark: SparkSettings) -> Iterator[None]:
    """Set what Spark reads from the environment alone, and put back what was there."""
    wanted: dict[str, str | None] = {
        # The pages listen where this says, on every interface without it.
        "SPARK_LOCAL_IP": LOOPBACK,
        "PYSPARK_PYTHON": spark.worker_python(sys.executable),
        # Another Spark on this machine is not the one that the plan was checked against.
        "SPARK_HOME": None,
        "PYSPARK_SUBMIT_ARGS": None,
    }
    before = {name: os.environ.get(name) for name in wanted}
    _put(wanted)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _first_line(error: Exception) -> str:
    # The first line of a Java error only says that there was one.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line.removeprefix(": ") for line in lines if line.startswith(":")), lines[0] if lines else "no reason")
