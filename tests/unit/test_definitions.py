"""The code location as Dagster sees it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph as Graph

from assets.names import (
    CURATED_QUALITY,
    LAKE_EVENTS,
    curated_key,
    decision_key,
    dimension_key,
    features_key,
    online_key,
    predictions_key,
    producers_key,
    report_key,
    topic_key,
)
from domains.catalogue import all_domains
from headway.topics import EVENTS_RAW, FEATURES_INPUT, topic_table
from orchestration.definitions import defs
from products.catalogue import all_products

SNAPSHOT = Path(__file__).parent.parent / "snapshots" / "definitions.txt"
HEAVY = (
    "mlflow",
    "lightgbm",
    "feast",
    "ray",
    "pyspark",
    "pandas",
    "pandera",
    "sklearn",
    "matplotlib",
    "confluent_kafka",
)
LOAD = f"""
import socket, sys
def refuse(*_): raise RuntimeError("network")
socket.socket.connect = refuse
from orchestration.definitions import defs
defs.resolve_asset_graph()
print(*sorted(m for m in {HEAVY!r} if m in sys.modules))
"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return defs.resolve_asset_graph()


def told() -> Iterator[str]:
    """Every name a person or a script may rely on, one a line."""
    graph = defs.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        kind = "asset" if node.is_materializable else "external"
        partitions = "" if node.partitions_def is None else f" by {type(node.partitions_def).__name__}"
        yield f"{kind} {key.to_user_string()}{partitions}"
    for check in sorted(graph.asset_check_keys):
        blocking = " (blocking)" if graph.get(check).blocking else ""
        yield f"check {check.asset_key.to_user_string()}: {check.name}{blocking}"
    for job in sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")):
        yield f"job {job}"
    for sensor in sorted(defs.sensors or (), key=lambda each: each.name):
        yield f"sensor {sensor.name} every {sensor.minimum_interval_seconds} s, {sensor.default_status.value}"
    for schedule in sorted(defs.schedules or (), key=lambda each: each.name):
        assert isinstance(schedule, dg.ScheduleDefinition)
        yield f"schedule {schedule.name} at {schedule.cron_schedule}, {schedule.default_status.value}"


def test_definitions_load_with_an_empty_environment_without_network_and_without_heavy_imports() -> None:
    ran = subprocess.run(
        [sys.executable, "-I", "-c", LOAD], env={}, capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.returncode, ran.stdout.strip()) == (0, ""), ran.stderr


def test_every_definition_is_in_the_snapshot() -> None:
    """To accept a change: write ``told()`` into tests/snapshots/definitions.txt."""
    assert list(told()) == SNAPSHOT.read_text().splitlines()


def test_every_asset_has_group_owner_kinds_and_description(graph: Graph) -> None:
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]

    assert [n.key for n in nodes if not (n.owners and n.kinds and n.description and n.group_name != "default")] == []


def test_every_table_shows_its_columns(graph: Graph) -> None:
    tables = [node for key in graph.get_all_asset_keys() if "deltalake" in (node := graph.get(key)).kinds]

    assert tables
    assert all("dagster/column_schema" in node.metadata for node in tables)


def test_there_is_no_gap_from_the_producers_to_the_retraining_decision(graph: Graph) -> None:
    for product in all_products().values():
        behind = upstream(graph, decision_key(product))
        onwards = downstream(graph, producers_key(product.domain))

        assert {producers_key(product.domain), topic_key(EVENTS_RAW), topic_key(FEATURES_INPUT)} <= behind
        assert {LAKE_EVENTS, topic_key(f"predictions.{product.name}"), predictions_key(product)} <= behind
        assert decision_key(product) in onwards
        loose = {key for key in graph.get_all_asset_keys() if key != producers_key(product.domain)} - onwards
        assert loose == set()


def test_the_warehouse_goes_from_events_to_reports_and_from_dimensions_to_the_online_store(graph: Graph) -> None:
    for domain in all_domains().values():
        tables = {curated_key(table) for table in domain.curated}
        dimensions = {dimension.name: dimension_key(dimension) for dimension in domain.dimensions}
        assert all(graph.get(key).parent_keys == {LAKE_EVENTS} for key in tables)
        assert graph.get(CURATED_QUALITY).parent_keys == tables
        for report in domain.reports:
            parents = graph.get(report_key(report)).parent_keys
            assert parents
            assert parents <= tables | set(dimensions.values())
        for view in domain.statics:
            assert graph.get(features_key(view)).parent_keys == {dimensions[view.dimension]}
            assert features_key(view) in graph.get(online_key(domain)).parent_keys


def test_runs_that_write_the_same_tables_wait_for_each_other() -> None:
    instance = yaml.safe_load((SNAPSHOT.parent.parent.parent / "dagster.yaml").read_text())
    [limit] = instance["concurrency"]["runs"]["tag_concurrency_limits"]

    assert (limit["value"], limit["limit"]) == ({"applyLimitPerUniqueValue": True}, 1)
    jobs = {job.name: job.tags for job in defs.resolve_all_job_defs()}
    assert {name: jobs[name].get(limit["key"]) for name in ("curate", "load_dimensions", "load_history")} == {
        "curate": "curate",
        "load_dimensions": "load_dimensions",
        "load_history": None,
    }


def test_every_topic_that_carries_data_is_an_asset(graph: Graph) -> None:
    products = all_products().values()
    views = [view.qualified for product in products for view in product.domain.views]
    table = topic_table(views=views, products=all_products(), replication_factor=1, min_insync_replicas=1)
    shown = {key.path[1] for key in graph.get_all_asset_keys() if key.path[0] == "topics"}

    assert {topic.name for topic in table} - shown == {"state.dedupe"}, "repeats are the Enricher's memory alone"


def upstream(graph: Graph, key: dg.AssetKey) -> set[dg.AssetKey]:
    parents = graph.get(key).parent_keys
    return set(parents).union(*(upstream(graph, parent) for parent in parents))


def downstream(graph: Graph, key: dg.AssetKey) -> set[dg.AssetKey]:
    children = graph.get(key).child_keys
    return set(children).union(*(downstream(graph, child) for child in children))
