"""Where a Spark executor's bytes go, and which settings are refused. The same figures are held to Spark's own elsewhere."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.errors import ContractViolation
from headway.memory_configuration import GIB, MIB, MemoryConfiguration, parse_size, read_properties
from headway.memory_plan import lay_out, plan_memory
from headway.memory_rules import MINIMUM_HEAP_BYTES, broken_rules

# A busy machine is no failure.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FOUR = MemoryConfiguration(heap_bytes=4 * GIB)
POD = replace(FOUR, deployment="kubernetes")


def sizes(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most).map(lambda mib: mib * MIB)


@st.composite
def configurations(draw: st.DrawFn) -> MemoryConfiguration:
    off_heap = draw(st.one_of(st.just(0), sizes(1, 20_000)))
    return MemoryConfiguration(
        heap_bytes=draw(sizes(450, 60_000)),
        fraction=draw(st.floats(0.05, 0.9)),
        storage_fraction=draw(st.floats(0, 0.99)),
        off_heap_enabled=off_heap > 0,
        off_heap_bytes=off_heap,
        pyspark_bytes=draw(st.one_of(st.none(), sizes(512 * 16, 30_000))),
        overhead_bytes=draw(st.one_of(st.none(), sizes(10_000, 20_000))),
        overhead_factor=draw(st.one_of(st.none(), st.floats(0.7, 2.0))),
        deployment=draw(st.sampled_from(["local", "standalone"])),
        cores=draw(st.integers(1, 16)),
    )


def rules(configuration: MemoryConfiguration) -> set[str]:
    return {broken.rule for broken in broken_rules(configuration)}


def test_four_gibibytes_are_divided_as_spark_divides_them() -> None:
    """FEATURES a.5's check value, to the byte; the pod has 4,505 MiB and not 4,505.6, as Spark counts whole ones."""
    plan = plan_memory(replace(POD, application="jvm"))

    assert (plan.unified_bytes, plan.storage_bytes) == (2_388_236_697, 1_194_118_348)
    assert plan.user_bytes == 4 * GIB - 300 * MIB - 2_388_236_697
    assert plan.container_bytes == 4_505 * MIB


@pytest.mark.parametrize(
    ("changes", "container_mib"),
    [
        ({}, 5_734),
        ({"overhead_factor": 0.2}, 4_915),
        ({"overhead_bytes": 700 * MIB}, 4_796),
        ({"minimum_overhead_bytes": 2 * GIB}, 6_144),
        ({"pyspark_bytes": GIB}, 6_758),
        ({"off_heap_enabled": True, "off_heap_bytes": 1_500_000_000}, 7_164),
    ],
)
def test_a_pod_has_heap_overhead_off_heap_and_pyspark_memory(changes: dict[str, Any], container_mib: int) -> None:
    assert plan_memory(replace(POD, **changes)).container_bytes == container_mib * MIB


def test_the_default_fraction_is_that_of_spark_since_2_0() -> None:
    assert (MemoryConfiguration().fraction, plan_memory(MemoryConfiguration()).unified_bytes) == (0.6, 455_501_414)


@calm
@given(configurations())
def test_every_byte_of_the_heap_is_in_one_segment(configuration: MemoryConfiguration) -> None:
    plan = plan_memory(configuration)
    heap = [each for each in plan.segments() if each.region == "heap"]

    assert sum(each.size_bytes for each in heap) == configuration.heap_bytes
    assert all(each.size_bytes >= 0 for each in plan.segments())
    assert sum(each.size_bytes for each in plan.segments()) == plan.container_bytes


@calm
@given(configurations(), sizes(1, 1_000))
def test_more_heap_takes_nothing_from_any_segment(configuration: MemoryConfiguration, more_bytes: int) -> None:
    less, more = (
        lay_out(configuration),
        lay_out(replace(configuration, heap_bytes=configuration.heap_bytes + more_bytes)),
    )

    for before, after in zip(less.segments(), more.segments(), strict=True):
        assert after.size_bytes >= before.size_bytes


@calm
@given(configurations(), st.integers(1, 32), sizes(0, 60_000))
def test_shares_of_all_tasks_fit_and_only_protected_blocks_cost_them(
    configuration: MemoryConfiguration, tasks: int, cached_bytes: int
) -> None:
    plan = plan_memory(configuration)
    empty, beside = (plan.task_share(cached_bytes=cached, tasks=tasks) for cached in (0, cached_bytes))
    pool = plan.off_heap_bytes if configuration.off_heap_enabled else plan.unified_bytes
    protected = plan.off_heap_storage_bytes if configuration.off_heap_enabled else plan.storage_bytes

    assert 0 <= beside.least_bytes <= beside.most_bytes <= empty.most_bytes
    assert empty.most_bytes * tasks <= pool
    assert beside.most_bytes >= (pool - protected) // tasks


@calm
@given(configurations())
def test_what_is_written_for_spark_is_read_back_as_it_was(configuration: MemoryConfiguration) -> None:
    """Of the overhead nothing is written where no container is made."""
    written = configuration.properties() | {
        "spark.master": {"local": "local[1]"}.get(configuration.deployment, "spark://h:1")
    }

    found = read_properties(written, cores=configuration.cores)

    assert found == replace(configuration, overhead_bytes=None, overhead_factor=0.1)


@pytest.mark.parametrize(("application", "factor"), [("python", 0.4), ("jvm", 0.1)])
def test_what_is_written_for_kubernetes_says_python_in_client_mode_too(application: Any, factor: float) -> None:
    configuration = replace(POD, application=application, overhead_bytes=900 * MIB)

    found = read_properties(configuration.properties() | {"spark.master": "k8s://https://h"}, cores=1)

    assert found == replace(configuration, overhead_factor=factor)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("heap-minimum", {"heap_bytes": MINIMUM_HEAP_BYTES - 1}),
        ("memory-fraction", {"fraction": 1.5}),
        ("memory-fraction", {"fraction": 0.0}),
        ("memory-fraction", {"fraction": 0.95}),
        ("memory-fraction", {"fraction": float("nan")}),
        ("storage-fraction", {"storage_fraction": 1.0}),
        ("storage-fraction", {"storage_fraction": -0.1}),
        ("off-heap-size", {"off_heap_enabled": True}),
        ("off-heap-not-enabled", {"off_heap_bytes": GIB}),
        ("cores", {"cores": 0}),
        ("task-cpus", {"task_cpus": 2}),
        ("task-cpus", {"task_cpus": 0}),
        ("overhead-factor", {"overhead_factor": 0.0}),
        ("negative-size", {"native_bytes": -1}),
        ("pyspark-worker", {"pyspark_bytes": GIB, "cores": 4}),
        ("pyspark-worker", {"pyspark_bytes": GIB, "native_bytes": GIB}),
    ],
)
def test_a_setting_that_breaks_a_rule_is_refused_by_its_name(rule: str, changes: dict[str, Any]) -> None:
    configuration = replace(FOUR, **changes)

    assert rule in rules(configuration)
    with pytest.raises(ContractViolation, match=rf"got .*wanted .*\({rule}\)"):
        plan_memory(configuration)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("overhead-holds-native", {"native_bytes": 2 * GIB}),
        ("overhead-holds-native", {"overhead_bytes": 100 * MIB}),
        ("overhead-holds-native", {"heap_bytes": GIB, "cores": 4}),
        ("pyspark-not-in-pod", {"application": "jvm", "pyspark_bytes": GIB}),
    ],
)
def test_a_pod_without_room_is_refused(rule: str, changes: dict[str, Any]) -> None:
    assert rules(replace(POD, **changes)) == {rule}


def test_native_memory_counts_in_the_workers_when_they_have_a_limit() -> None:
    """LightGBM runs inside the Python workers: PySpark memory holds it, and the overhead need not."""
    native = replace(POD, native_bytes=2 * GIB)

    assert rules(native) == {"overhead-holds-native"}
    assert rules(replace(native, pyspark_bytes=3 * GIB)) == set()


def test_the_smallest_heap_spark_starts_with_is_planned() -> None:
    assert plan_memory(MemoryConfiguration(heap_bytes=MINIMUM_HEAP_BYTES)).unified_bytes == 94_371_840


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("450m", 450 * MIB), ("4g", 4 * GIB), ("4 GiB", 4 * GIB), ("512kb", 512 << 10), ("0", 0)]
)
def test_a_size_carries_its_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["4096", "1.5g", "4x", "", "-1g"])
def test_a_size_without_a_unit_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ContractViolation, match="wanted a whole number and its unit"):
        parse_size(text)


def test_a_bare_number_counts_what_spark_counts() -> None:
    """MiB everywhere, bytes in the off-heap size: the same 2,048 is two gibibytes or two kibibytes."""
    properties = {
        "spark.master": "local[2]",
        "spark.driver.memory": "2048",
        "spark.memory.offHeap.enabled": "true",
        "spark.memory.offHeap.size": "2048",
    }

    found = read_properties(properties, cores=2)

    assert (found.heap_bytes, found.off_heap_bytes) == (2 * GIB, 2_048)
    assert rules(found) == {"off-heap-size"}
