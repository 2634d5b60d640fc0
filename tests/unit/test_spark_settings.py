"""What a Spark session is made of, before any JVM starts."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from headway.errors import ContractViolation
from headway.memory_advice import Finding
from headway.memory_configuration import GIB, MIB
from headway.memory_rules import Rule
from headway.settings import project_root
from headway.spark_settings import SparkSettings, session_properties

POD: dict[str, Any] = {
    "master": "k8s://https://cluster:6443",
    "heap": "4g",
    "image": "headway:1",
    "driver_host": "driver.jobs",
}


def properties(**settings: Any) -> dict[str, str]:
    spark = SparkSettings(**settings).check()
    memory = spark.memory(machine_cores=8)
    return session_properties(spark, memory, folder=Path("/state/spark"), ui_port=18_080, python="/venv/bin/python")


@pytest.mark.parametrize(
    ("master", "cores", "deployment"),
    [
        ("local", 1, "local"),
        ("local[2]", 2, "local"),
        ("local[*]", 8, "local"),
        ("local[4,3]", 4, "local"),
        ("local-cluster[2,3,1024]", 3, "standalone"),
        ("spark://host:7077", 1, "standalone"),
        ("k8s://https://host", 1, "kubernetes"),
    ],
)
def test_the_master_says_where_and_how_many_at_once(master: str, cores: int, deployment: str) -> None:
    memory = SparkSettings(master=master).memory(machine_cores=8)

    assert (memory.cores, memory.deployment) == (cores, deployment)


def test_a_session_on_one_machine_listens_on_loopback_and_keeps_its_files_in_the_state_folder() -> None:
    found = properties()

    assert (found["spark.driver.host"], found["spark.driver.bindAddress"]) == ("127.0.0.1", "127.0.0.1")
    assert (found["spark.ui.port"], found["spark.port.maxRetries"]) == ("18080", "7")
    assert found["spark.eventLog.dir"] == "file:///state/spark/events"
    assert found["spark.local.dir"] == "/state/spark/scratch"
    assert found["spark.sql.session.timeZone"] == "UTC"
    assert found["spark.executorEnv.PYSPARK_PYTHON"] == "/venv/bin/python"


def test_a_local_session_tells_its_cores_so_that_workers_share_pyspark_memory() -> None:
    """Without them Spark 4.3 gives each of two workers all of it."""
    found = properties(master="local[2]", pyspark="2g")

    assert (found["spark.executor.cores"], found["spark.executor.pyspark.memory"]) == ("2", "2048m")


def test_arrow_is_on_and_never_given_up_in_silence() -> None:
    found = properties()

    assert found["spark.sql.execution.arrow.pyspark.enabled"] == "true"
    assert found["spark.sql.execution.arrow.pyspark.fallback.enabled"] == "false"


def test_a_session_on_kubernetes_says_what_client_mode_leaves_out() -> None:
    found = properties(**POD, pyspark="1g")

    assert found["spark.kubernetes.resource.type"] == "python"
    assert found["spark.executor.memoryOverheadFactor"] == "0.4"
    assert (found["spark.driver.host"], found["spark.executorEnv.PYSPARK_PYTHON"]) == ("driver.jobs", "python3")


def test_a_cluster_on_this_machine_needs_no_address_and_stays_on_loopback() -> None:
    found = properties(master="spark://127.0.0.1:7077", cores=2, executors=3)

    assert (found["spark.driver.bindAddress"], found["spark.executorEnv.PYSPARK_PYTHON"]) == (
        "127.0.0.1",
        "/venv/bin/python",
    )
    assert (found["spark.cores.max"], found["spark.driver.memory"]) == ("6", "1024m")


def test_a_cluster_elsewhere_is_answered_where_its_executors_come_from() -> None:
    found = properties(master="spark://host:7077", driver_host="10.0.0.1")

    assert (found["spark.driver.host"], found["spark.driver.bindAddress"]) == ("10.0.0.1", "0.0.0.0")


@pytest.mark.parametrize("missing", ["image", "driver_host"])
def test_a_cluster_without_an_address_for_its_executors_is_refused(missing: str) -> None:
    with pytest.raises(ContractViolation, match=f"HEADWAY_SPARK_{missing.upper()}"):
        SparkSettings(**POD | {missing: ""}).check()


def test_a_property_that_the_plan_decides_is_refused() -> None:
    with pytest.raises(ContractViolation, match=r"spark\.executor\.memory, which the memory plan decides"):
        SparkSettings(properties={"spark.executor.memory": "9g"}).check()


def test_other_properties_come_last() -> None:
    assert properties(properties={"spark.sql.session.timeZone": "CET"})["spark.sql.session.timeZone"] == "CET"


@pytest.mark.parametrize("master", ["yarn", "localhost", "local[two]", ""])
def test_a_master_that_is_none_is_refused(master: str) -> None:
    with pytest.raises(ValidationError, match=r"wanted local, local\[N\]"):
        SparkSettings(master=master)


def test_sizes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_SPARK_HEAP", "2g")
    monkeypatch.setenv("HEADWAY_SPARK_OFF_HEAP", "256m")

    memory = SparkSettings().memory(machine_cores=1)

    assert (memory.heap_bytes, memory.off_heap_enabled, memory.off_heap_bytes) == (2 * GIB, True, 256 * MIB)


def test_every_setting_and_every_rule_is_documented() -> None:
    page = (project_root() / "docs" / "spark.md").read_text()

    missing = [name for name in SparkSettings.model_fields if f"_{name.upper()}`" not in page]
    assert missing == []
    assert [rule for rule in get_args(Rule) if f"`{rule}`" not in page] == []
    assert [finding for finding in get_args(Finding) if f"`{finding}`" not in page] == []
