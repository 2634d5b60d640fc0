"""The memory plan beside a real Spark: each session has a JVM of its own, in a process of its own."""

from pathlib import Path
from typing import Any

import pytest

from headway.memory_configuration import MIB
from tests.free_ports import free_block
from tests.spark_world import run_command, run_script, standalone_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FIVE = {
    "smallest heap": ["--heap", "450m", "--cores", "1"],
    "heap": ["--heap", "1g", "--cores", "2"],
    "fractions": ["--heap", "900m", "--fraction", "0.7", "--storage-fraction", "0.3", "--cores", "2"],
    "off-heap": ["--heap", "600m", "--off-heap", "200m", "--storage-fraction", "0.25", "--cores", "1"],
    "off-heap and PySpark": ["--heap", "800m", "--off-heap", "100m", "--pyspark", "1301m", "--cores", "2"],
}


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    return {"state": tmp_path, "port_base": free_block()}


def test_a_running_session_tells_what_was_planned_and_its_log_says_leave_it(world: dict[str, Any]) -> None:
    code, facts = run_command("compare", *FIVE["off-heap and PySpark"], **world)

    assert code == 0
    told = {(each["where"], each["name"]): each["told_bytes"] for each in facts["compared"]}
    assert told.keys() == {
        *(("JVM", name) for name in ("heap", "unified", "storage", "off-heap", "off-heap storage", "page")),
        ("Python worker", "address space"),
        ("executor driver", "unified"),
        ("executor driver", "off-heap"),
    }
    assert told["JVM", "off-heap"] == 100 * MIB
    assert told["Python worker", "address space"] == 650 * MIB

    code, facts = run_command("advise", **world)

    assert (code, [each["finding"] for each in facts["advice"]]) == (0, ["healthy"])


def test_pods_are_as_large_as_sparks_own_kubernetes_code_makes_them(world: dict[str, Any]) -> None:
    """In client mode, where nobody tells that code that the application is Python."""
    found = run_script("pods", **world)

    assert len(found) == 5
    assert [each["spark"] for each in found] == [each["planned"] for each in found]
    assert found[0]["spark"] == 5_734


@pytest.mark.long
@pytest.mark.parametrize("name", FIVE)
def test_unified_and_storage_memory_are_the_plans_within_one_percent(name: str, world: dict[str, Any]) -> None:
    code, facts = run_command("compare", *FIVE[name], **world)

    figures = {each["name"]: each["off_by"] for each in facts["compared"] if each["where"] == "JVM"}
    assert {"unified", "storage", "off-heap", "off-heap storage"} <= figures.keys()
    assert max(figures.values()) <= 0.01
    assert (code, facts["holds"]) == (0, True)


def test_without_java_the_log_and_the_doctor_are_named(world: dict[str, Any]) -> None:
    variables = {"JAVA_HOME": str(world["state"] / "no-java-here")}
    code, facts = run_command("compare", **world, variables=variables)

    assert (code, facts["kind"]) == (1, "PermanentFailure")
    assert "spark/driver.log. `headway doctor` checks Java" in facts["error"]
    assert "no-java-here" in (world["state"] / "spark" / "driver.log").read_text()


@pytest.mark.long
def test_a_property_spark_cannot_use_is_told_in_its_own_words(world: dict[str, Any]) -> None:
    variables = {"HEADWAY_SPARK_PROPERTIES": '{"spark.serializer": "no.such.Serializer"}'}
    code, facts = run_command("compare", **world, variables=variables)

    assert (code, facts["kind"]) == (1, "PermanentFailure")
    assert "spark: no session:" in facts["error"]
    assert "no.such.Serializer" in facts["error"]


@pytest.mark.long
def test_a_standalone_cluster_gives_executors_of_the_size_planned(world: dict[str, Any]) -> None:
    """Master, worker, driver and executor: four JVMs, all on loopback, found by the master's address alone."""
    with standalone_cluster(world["state"], world["port_base"]) as master:
        variables = {"HEADWAY_SPARK_MASTER": master, "HEADWAY_SPARK_EXECUTORS": "1", "HEADWAY_SPARK_CORES": "2"}
        code, facts = run_command("compare", "--heap", "650m", "--off-heap", "80m", **world, variables=variables)

    told = {(each["where"], each["name"]): each["told_bytes"] for each in facts["compared"]}
    assert (code, told) == (
        0,
        {("executor 0", "unified"): int(350 * MIB * 0.6), ("executor 0", "off-heap"): 80 * MIB},
    )


@pytest.mark.long
def test_an_executor_in_a_process_of_its_own_tells_what_was_planned(world: dict[str, Any]) -> None:
    """A standalone cluster: master and worker in the driver's JVM, the executor in another with another heap."""
    variables = {"HEADWAY_SPARK_MASTER": "local-cluster[1,2,700]", "HEADWAY_SPARK_DRIVER_HEAP": "600m"}
    code, facts = run_command("compare", "--heap", "700m", "--pyspark", "1200m", **world, variables=variables)

    told = {(each["where"], each["name"]): each["told_bytes"] for each in facts["compared"]}
    assert (code, told["executor 0", "unified"]) == (0, int(400 * MIB * 0.6))
    assert told["Python worker", "address space"] == 600 * MIB
    assert not [where for where, _ in told if where in ("JVM", "executor driver")]


@pytest.mark.long
def test_a_jvm_on_the_serial_collector_is_found_to_have_less_than_planned(world: dict[str, Any]) -> None:
    """What a JVM with one core chooses by itself. It also shows that the comparison can fail."""
    variables = {"HEADWAY_SPARK_PROPERTIES": '{"spark.driver.extraJavaOptions": "-XX:+UseSerialGC"}'}
    code, facts = run_command("compare", "--heap", "600m", "--cores", "1", **world, variables=variables)

    unified = {each["name"]: each for each in facts["compared"] if each["where"] == "JVM"}["unified"]
    assert (code, facts["holds"]) == (1, False)
    assert unified["told_bytes"] < 0.95 * unified["planned_bytes"]


@pytest.mark.long
@pytest.mark.parametrize("sizes", [("--heap", "600m"), ("--heap", "600m", "--off-heap", "160m")], ids=["heap", "off"])
def test_sorts_spill_and_fit_as_predicted_and_caches_give_way_only_to_the_protected_part(
    sizes: tuple[str, ...], world: dict[str, Any]
) -> None:
    code, facts = run_command("show", *sizes, **world)

    assert [(each["name"], each["held"]) for each in facts["trials"]] == [
        ("fits", True),
        ("spills", True),
        ("evicts", True),
        ("keeps", True),
    ], facts
    assert code == 0


@pytest.mark.long
def test_a_sort_that_spilled_does_not_with_the_partitions_it_was_advised(world: dict[str, Any]) -> None:
    found = run_script("follow_advice", **world)

    assert (found["first"]["findings"], found["first"]["spilled"] > 0) == (["too-few-partitions"], True), found
    assert (found["second"]["findings"], found["second"]["spilled"]) == (["healthy"], 0), found
    assert "skew" in found["heavy"]["findings"], found
    for each in (found["first"], found["second"], found["heavy"]):
        assert (each["told by REST"], each["same tasks"]) == (each["findings"], True), found


@pytest.mark.long
def test_a_worker_may_use_what_the_plan_gives_it_and_no_more(world: dict[str, Any]) -> None:
    """The plan's rule is that a worker needs 512 MiB before any data: all the rest of its limit is for data."""
    found = run_script("overflow", **world)

    assert found == {"within": [True, ["healthy"]], "beyond": [False, ["worker-memory"]]}


@pytest.mark.long
def test_each_session_has_its_own_heap_and_leaves_nothing_behind(world: dict[str, Any]) -> None:
    found = run_script("two_sessions", **world)

    assert found["unified"] == [94_371_840, int(400 * MIB * 0.6)]
    assert "whose heap cannot change" in found["refused"]
    assert found["compared by address"] == 0
    assert (found["left"], found["environment_kept"]) == ([], True)
    assert (found["session_zone"], found["worker_zone"]) == ("UTC", "UTC")
    assert found["python"] == found["ours"]
    assert all(address.endswith("127.0.0.1") for address in found["listens"]), found["listens"]
    assert found["url"] == f"http://127.0.0.1:{world['port_base'] + 80}"
