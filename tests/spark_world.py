"""Scripts that run Spark in a process of their own and print JSON: a JVM's heap is fixed once in a process' life."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from headway.settings import project_root

# A session takes ten seconds on a quiet machine and minutes on one that builds eight other things.
DEADLINE_S = 570


def run_script(function: str, *, state: Path, port_base: int, module: str = "spark_world") -> Any:
    """Run a function of this module, or of another of the tests', in another process and return what it prints."""
    code = f"import json; from tests import {module}; print(json.dumps({module}.{function}()))"
    done = _python("-c", code, state=state, port_base=port_base, variables={})
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_command(
    *arguments: str, state: Path, port_base: int, variables: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Run ``headway spark-memory ... --json`` and return its exit code and its facts."""
    return run_headway("spark-memory", *arguments, state=state, port_base=port_base, variables=variables)


def run_headway(
    *arguments: str,
    state: Path,
    port_base: int,
    variables: Mapping[str, str] | None = None,
    deadline_s: float = DEADLINE_S,
) -> tuple[int, Any]:
    """Run ``headway ... --json`` and return its exit code and its facts."""
    given = ("-m", "headway.cli", *arguments, "--json")
    done = _python(*given, state=state, port_base=port_base, variables=variables or {}, deadline_s=deadline_s)
    assert done.stdout, done.stderr[-4_000:]
    return done.returncode, json.loads(done.stdout)


def _python(
    *arguments: str, state: Path, port_base: int, variables: Mapping[str, str], deadline_s: float = DEADLINE_S
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HEADWAY_STATE": str(state),
        "HEADWAY_PORT_BASE": str(port_base),
        "PYTHONPATH": str(project_root()),
        **variables,
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project_root(),
        env=environment,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
    )


@contextmanager
def standalone_cluster(state: Path, port_base: int) -> Iterator[str]:
    """Give the address of a master with one worker, both Spark's own, as long as the block lasts."""
    import pyspark

    spark = Path(pyspark.__file__).parent
    master, pages = f"spark://127.0.0.1:{port_base + 1}", port_base + 2
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m", "SPARK_HOME": str(spark)}
    work = f"--port {port_base + 3} --webui-port {port_base + 4} --cores 2 --memory 1g --work-dir {state}/work"
    commands = (
        ["master.Master", *f"--host 127.0.0.1 --port {port_base + 1} --webui-port {pages}".split()],
        ["worker.Worker", master, "--host", "127.0.0.1", *work.split()],
    )
    with ExitStack() as running, (state / "cluster.log").open("wb") as log:
        for name, *arguments in commands:
            call = [str(spark / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", *arguments]
            daemon = running.enter_context(subprocess.Popen(call, env=environment, stdout=log, stderr=log))
            running.callback(daemon.terminate)
        deadline = time.monotonic() + DEADLINE_S / 2
        while _workers(pages) != 1:
            assert time.monotonic() < deadline, (state / "cluster.log").read_text()[-4_000:]
            time.sleep(0.2)
        yield master


def _workers(pages: int) -> int:
    try:
        with urlopen(f"http://127.0.0.1:{pages}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
    except (URLError, ConnectionError, TimeoutError):
        return 0


def two_sessions() -> dict[str, Any]:
    """Open two sessions after one another, try a third inside the first, and look at what they are."""
    import psutil

    from headway.adapters.spark import spark_session
    from headway.adapters.spark_jvm import read_jvm
    from headway.cli import main
    from headway.errors import PermanentFailure
    from headway.settings import Settings
    from headway.spark_settings import SparkSettings

    before = {name: os.environ.get(name) for name in ("SPARK_LOCAL_IP", "PYSPARK_PYTHON", "SPARK_HOME")}
    found: dict[str, Any] = {"unified": []}
    small, large = (SparkSettings(heap=heap, master="local[1]") for heap in ("450m", "700m"))
    with spark_session("first", Settings(), small) as running:
        found["unified"].append(read_jvm(running.session).unified_bytes)
        try:
            with spark_session("second", Settings(), large):
                found["refused"] = None
        except PermanentFailure as refusal:
            found["refused"] = str(refusal)
        found |= _in_session(running.session)
        [java] = [child for child in psutil.Process().children() if "java" in child.name()]
        found["listens"] = sorted({c.laddr.ip for c in java.net_connections("inet") if c.status == psutil.CONN_LISTEN})
        found["url"] = running.url
        found["compared by address"] = main(["spark-memory", "compare", "--url", running.url])
    found["left"] = [child.name() for child in psutil.Process().children()]
    with spark_session("third", Settings(), large) as running:
        found["unified"].append(read_jvm(running.session).unified_bytes)
    found["environment_kept"] = before == {name: os.environ.get(name) for name in before}
    return found


def _in_session(session: Any) -> dict[str, Any]:  # Any: pyspark is imported in the process that runs it
    def told(batches: Any) -> Any:
        import pandas as pd

        for batch in batches:
            yield pd.DataFrame({"python": [sys.executable] * len(batch), "clock": [os.environ["TZ"]] * len(batch)})

    row = session.range(1).mapInPandas(told, "python string, clock string").collect()[0]
    zone = session.sql("SELECT current_timezone()").collect()[0][0]
    return {"python": row["python"], "worker_zone": row["clock"], "session_zone": zone, "ours": sys.executable}


def follow_advice() -> dict[str, Any]:
    """Run a sort that spills, read what to change, change that, and run it again; then one with a heavy key."""
    import re

    from headway.adapters.spark import spark_session
    from headway.adapters.spark_history import read_log
    from headway.adapters.spark_jvm import settle
    from headway.adapters.spark_rest import read_driver
    from headway.memory_advice import advise
    from headway.settings import Settings
    from headway.spark_settings import SparkSettings

    spark = SparkSettings(heap="600m", master="local[1]", properties={"spark.sql.adaptive.enabled": "false"})

    def sort(key: str, partitions: int) -> dict[str, Any]:
        with spark_session("advised", Settings(), spark) as running:
            columns = ", ".join(f"xxhash64(id, {n}) AS c{n}" for n in range(30))
            frame = running.session.sql(f"SELECT {key} AS place, {columns} FROM range(0, 1600000, 1, 2)")
            placed = frame.repartition(partitions, "place").sortWithinPartitions("c0")
            placed.write.format("noop").mode("overwrite").save()
            settle(running.session)
            told = read_driver(running.url)
        run = read_log(running.event_log)
        found = advise(run)
        return {
            "findings": [each.finding for each in found],
            "change": " ".join(each.change for each in found),
            "spilled": sum(stage.spilled_bytes for stage in run.stages),
            "told by REST": [each.finding for each in advise(told)],
            "same tasks": [s.tasks for s in told.stages if s.peak_bytes]
            == [s.tasks for s in run.stages if s.peak_bytes],
        }

    first = sort("id", 2)
    wanted = int(re.findall(r"(\d+) partitions instead of 2", first["change"])[0])
    return {"first": first, "wanted": wanted, "second": sort("id", wanted), "heavy": sort("if(id % 20 > 0, 0, id)", 12)}


def overflow() -> dict[str, Any]:
    """Let a Python worker allocate within the limit that the plan gives it, and then beyond it."""
    import numpy as np
    from pyspark.errors import PythonException

    from headway.adapters.spark import spark_session
    from headway.adapters.spark_history import read_log
    from headway.memory_advice import advise
    from headway.settings import Settings
    from headway.spark_settings import SparkSettings

    def allocate(size_bytes: int) -> tuple[bool, list[str]]:
        def fill(batches: Any) -> Any:
            for batch in batches:
                np.zeros(size_bytes, dtype=np.uint8)
                yield batch

        spark = SparkSettings(heap="600m", pyspark="1g", master="local[1]")
        with spark_session("allocates", Settings(), spark) as running:
            limit = running.plan.worker_bytes
            assert limit is not None
            try:
                running.session.range(0, 1, 1, 1).mapInPandas(fill, "id long").collect()
            except PythonException:
                done = False
            else:
                done = True
        return done, [each.finding for each in advise(read_log(running.event_log))]

    from headway.memory_configuration import GIB
    from headway.memory_rules import WORKER_ADDRESS_BYTES

    return {"within": allocate(GIB - WORKER_ADDRESS_BYTES), "beyond": allocate(GIB)}


def pods() -> list[dict[str, Any]]:
    """Ask Spark's own Kubernetes code for the pods of several configurations; no cluster is needed for that."""
    from pyspark.java_gateway import launch_gateway

    from headway.memory_configuration import GIB, MIB, MemoryConfiguration
    from headway.memory_plan import plan_memory
    from headway.spark_settings import SparkSettings, session_properties

    gateway = launch_gateway()  # type: ignore[no-untyped-call]  # pyspark leaves it so
    found = []
    cluster: dict[str, Any] = {"master": "k8s://https://h", "image": "i", "driver_host": "d", "cores": 2}
    for sizes in (
        {"heap": "4g"},
        {"heap": "4g", "pyspark": "1536m"},
        {"heap": "3001m", "off_heap": "1500001k", "overhead_factor": 0.3333},
        {"heap": "2g", "overhead": "1g", "native": "100m"},
    ):
        spark = SparkSettings(**cluster, **sizes).check()
        memory = spark.memory(machine_cores=1)
        written = session_properties(spark, memory, folder=Path("/s"), ui_port=1, python="python3")
        found.append({"planned": plan_memory(memory).container_bytes // MIB, "spark": _pod(gateway, written)})
    jvm = MemoryConfiguration(heap_bytes=4 * GIB, deployment="kubernetes", application="jvm")
    found.append({"planned": plan_memory(jvm).container_bytes // MIB, "spark": _pod(gateway, jvm.properties())})
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(DEADLINE_S)
    return found


def _pod(gateway: Any, properties: dict[str, str]) -> int:
    jvm = gateway.jvm

    def module(name: str) -> Any:
        return jvm.java.lang.Class.forName(name).getField("MODULE$").get(None)

    conf = jvm.org.apache.spark.SparkConf(False)
    needed = {"spark.driver.host": "d", "spark.driver.port": "7078", "spark.kubernetes.container.image": "i"}
    for name, value in {"spark.master": "k8s://https://h", "spark.app.name": "a", **needed, **properties}.items():
        conf.set(name, value)
    profiles, none = module("org.apache.spark.resource.ResourceProfile$"), module("scala.None$")
    profiles.clearDefaultProfile()
    executor = jvm.org.apache.spark.deploy.k8s.KubernetesExecutorConf(conf, "app", "1", none, 0)
    secret = module("org.apache.spark.internal.config.package$").AUTH_SECRET_FILE()
    security = jvm.org.apache.spark.SecurityManager(conf, none, secret)
    step = jvm.org.apache.spark.deploy.k8s.features.BasicExecutorFeatureStep(
        executor, security, profiles.getOrCreateDefaultProfile(conf)
    )
    return int(step.execResources().totalMemMiB())
