"""`headway parity` and the blocking check say of a planted error which feature, whose, and at which offset it begins."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.names import predictions_key
from assets.scoring import parity_check, predictions_asset
from domains.flights.domain import DOMAIN
from headway import cli
from headway.adapters.delta import Lake
from headway.lake import events_table
from headway.prediction_parity import check_predictions
from headway.predictions import predictions_table
from products.flight_delay.product import PRODUCT
from tests.assets_world import World
from tests.streaming_world import Corrupt
from tests.unit.test_parity_planted import drop, place_of_victim, replay, victim


def lake_of(root: Path, corrupt: Corrupt | None) -> Lake:
    """An afternoon's events and answers, as the loader leaves them."""
    predictions, events, _ = replay(corrupt)
    lake, answers = Lake(root), predictions_table(PRODUCT.name)
    for table, rows in ((events_table(DOMAIN), events), (answers, predictions)):
        lake.create(table)
        lake.append(table.name, rows)
    return lake


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One arrival never reached the aggregator."""
    return lake_of(tmp_path_factory.mktemp("planted"), drop)


@pytest.fixture(scope="module")
def first_told() -> tuple[str, ...]:
    """What names the arrival: its destination, and its place in the log."""
    topic, partition, offset = place_of_victim()
    return f"{topic}[{partition}]@{offset}, {victim().id}", "dest_delay.v1 count_3h of ORD"


@pytest.fixture
def world(planted: Lake) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(planted.path("events").parent, instance)


def test_the_command_names_feature_entity_and_offset(
    planted: Lake,
    first_told: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HEADWAY_LAKE", str(planted.path("events").parent))

    code = cli.main(["parity", "--json", str(tmp_path / "facts.json")])

    head, *told = capsys.readouterr().out.splitlines()
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert code == 1
    assert f" {facts['mismatched']} mismatches" in head
    assert facts["mismatched"] > 0
    named = [line for line in told if all(part in line for part in first_told)]
    assert named
    assert "not-counted at" in named[0]
    first = facts["mismatches"][0]["first"]["position"]
    assert (first["topic"], first["partition"], first["offset"]) == place_of_victim()


def test_the_check_blocks_and_names_feature_entity_and_offset(world: World, first_told: tuple[str, ...]) -> None:
    assets = [predictions_asset(PRODUCT), parity_check(PRODUCT)]

    result = world.run(assets, select=[], checked=[predictions_key(PRODUCT)])

    [check] = result.get_asset_check_evaluations()
    told = [str(each) for each in check.metadata["earliest"].value]  # type: ignore[union-attr] # a list, as it was given
    assert not result.success
    assert not check.passed
    assert check.blocking
    assert check.description is not None
    assert told[0] in check.description
    assert first_told[0] in check.description
    assert any(all(part in line for part in first_told) for line in told)


def test_a_clean_afternoon_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake_of(tmp_path / "lake", None)
    monkeypatch.setenv("HEADWAY_LAKE", str(tmp_path / "lake"))

    assert cli.main(["parity"]) == 0


def test_the_earliest_mismatch_of_all_views_comes_first(planted: Lake) -> None:
    """Views are judged one after the other: the first of the first view need not be the first of all."""
    report = check_predictions(
        planted.read(predictions_table(PRODUCT.name).name), planted.read("events"), PRODUCT.feature_views.values()
    )

    instants = [mismatch.as_of_us for mismatch in report.mismatches]
    assert instants == sorted(instants)
    assert len({mismatch.view for mismatch in report.mismatches}) > 1
