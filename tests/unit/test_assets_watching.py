"""Batch scoring, parity, labels, weekly verdicts and decisions, over two weeks of January in a real lake."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import msgspec
import numpy as np
import polars as pl
import pytest

from assets.domain import domain_assets
from assets.lake_reads import changelog_values, events_around
from assets.names import decision_key, labels_key, monitoring_key, predictions_key, results_key
from assets.product import product_assets
from domains.flights.domain import DOMAIN
from headway.adapters.results_database import ResultsDatabase
from headway.backfill import backfill
from headway.clock import to_us
from headway.drift import DriftLimits, Window
from headway.registry import CHAMPION
from headway.training import assemble, training_set
from headway.vector import Assembler
from products.catalogue import find_product
from tests.assets_world import World
from tests.serving_world import Trained, trained

FROM = datetime(2012, 12, 31, tzinfo=UTC)
UNTIL = datetime(2013, 1, 17, tzinfo=UTC)
WEEK = Window(from_us=to_us(datetime(2013, 1, 7, 5, tzinfo=UTC)), until_us=to_us(datetime(2013, 1, 14, 5, tzinfo=UTC)))
ASKED = {"start": "2013-01-06T04:00:00Z", "end": "2013-01-15T06:00:00Z"}
WEEKS = ("2012-12-31", "2013-01-14")
BASE = find_product("flight_delay")
PRODUCT = replace(BASE, drift=replace(BASE.drift, min_rows=500, patience=1))
PREDICTIONS, STEP = f"predictions.{PRODUCT.name}", predictions_key(PRODUCT).to_python_identifier()
WATCHING = [labels_key(PRODUCT), monitoring_key(PRODUCT), decision_key(PRODUCT)]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    window = Window(from_us=to_us(FROM), until_us=to_us(UNTIL))
    with dg.DagsterInstance.ephemeral() as instance:
        lake = World(root, instance).lake
        assert DOMAIN.load_history is not None
        events = DOMAIN.load_history().events_between(window.from_us, window.until_us)
        lake.bulk_load(DOMAIN, events, start_us=window.from_us, end_us=window.until_us)
        for view in DOMAIN.views:
            backfill(lake, view, window, mode="as_served")
    return root


@pytest.fixture
def world(history: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(history, tmp_path / "lake")
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(tmp_path / "lake", instance)
        promote(made, with_limits(divergence=1.0))
        yield made


def with_limits(*, divergence: float) -> Trained:
    model = trained(7)
    limits = DriftLimits(divergence=divergence, excess_log_loss=10.0, windows=8)
    return Trained(model.text, msgspec.structs.replace(model.manifest, limits=limits))


def promote(world: World, model: Trained) -> None:
    world.registry.set_alias(PRODUCT.name, CHAMPION, model.register(world.registry))


def assets() -> list[object]:
    # The checks of lake/events name the log, which no run here has.
    return [
        *product_assets(PRODUCT),
        *(a for a in domain_assets(DOMAIN) if not isinstance(a, dg.AssetChecksDefinition)),
    ]


def score(world: World, **config: str) -> dg.ExecuteInProcessResult:
    return world.run(assets(), select=[predictions_key(PRODUCT)], config={STEP: {**ASKED, **config}}, partitions=WEEKS)


def watch(world: World) -> dg.ExecuteInProcessResult:
    return world.run(assets(), select=WATCHING)


def test_a_batch_scores_what_training_would_have_seen_bit_for_bit(world: World) -> None:
    assert score(world).success

    lake, predictor = world.lake, trained(7).predictor()
    rows = training_set(
        PRODUCT,
        events=events_around(lake, PRODUCT, WEEK),
        reference=DOMAIN.load_reference(),
        values_at=changelog_values(lake, PRODUCT.feature_views.values(), WEEK),
        window=WEEK,
        known_at_us=to_us(UNTIL),
        views_shift_us=0,
    )
    vectors = assemble(PRODUCT, rows, assembler=Assembler(predictor.manifest.columns)).x
    wanted = rows.frame.select("as_of_us", "request").with_columns(score=predictor.score(vectors))
    batch = lake.read(PREDICTIONS).select(
        pl.col("as_of").dt.timestamp("us").alias("as_of_us"), "request", "probability"
    )
    both = wanted.join(batch, on=["as_of_us", "request"], how="left")
    assert both.height > 5000
    assert np.array_equal(both["score"].to_numpy(), both["probability"].to_numpy())


def test_scoring_an_interval_twice_changes_nothing(world: World) -> None:
    score(world)
    once = world.lake.read(PREDICTIONS).drop("requested_at", "run_id").sort("receipt")
    score(world)

    assert world.lake.read(PREDICTIONS).drop("requested_at", "run_id").sort("receipt").equals(once)
    assert once["receipt"].is_unique().all()


def test_applications_read_what_the_lake_holds_of_the_batch(world: World) -> None:
    """Twice, as a week is often scored again: the same rows, and those of requests are none of them."""
    score(world)
    served = (
        world.lake.read(PREDICTIONS)
        .head(2)
        .with_columns(source=pl.lit("request"), receipt=pl.lit("r-1"), subject=pl.lit(None, dtype=pl.String))
    )
    world.lake.append(PREDICTIONS, served)
    for _ in range(2):
        result = world.run(assets(), select=[results_key(PRODUCT)], partitions=WEEKS)

    assert result.success
    database = ResultsDatabase(f"sqlite:///{world.root / 'results.sqlite'}")
    window = Window(from_us=to_us(FROM), until_us=to_us(UNTIL))
    found = database.page(PRODUCT.name, window, rows=100_000, after=None, version=None)
    database.close()
    batch = world.lake.read(PREDICTIONS, predicate=pl.col("source") == "batch").sort("as_of", "subject")
    assert [(row.subject, row.receipt, row.probability) for row in found] == list(
        batch.select("subject", "receipt", "probability").iter_rows()
    )
    made = result.asset_materializations_for_node(results_key(PRODUCT).to_python_identifier())
    assert {each.metadata["rows_of_run"].value for each in made} == {batch.height}
    assert {row.run_id for row in found} == set(batch["run_id"])


def test_a_batch_shows_its_engine_its_rate_and_its_answers(world: World) -> None:
    result = score(world)

    made, *_ = result.asset_materializations_for_node(STEP)
    assert made.metadata["engine"].value == "process"
    assert made.metadata["rows_refused"].value == 0
    assert made.metadata["run_id"].value == result.run_id
    assert str(made.metadata["answers"].value).startswith("![answers](data:image/png;base64,")


def test_a_batch_leaves_answers_of_the_api_alone(world: World) -> None:
    score(world)
    served = world.lake.read(PREDICTIONS).head(2).with_columns(source=pl.lit("request"), receipt=pl.lit("r-1"))
    world.lake.append(PREDICTIONS, served)

    score(world)

    assert world.lake.read(PREDICTIONS, predicate=pl.col("source") == "request").height == 2


def test_a_batch_holds_parity_with_the_events(world: World) -> None:
    score(world)

    [parity] = world.run(assets(), select=[], checked=[predictions_key(PRODUCT)]).get_asset_check_evaluations()

    assert parity.passed
    assert int(str(parity.metadata["checked"].value)) > 100_000


def test_one_wrong_value_in_the_log_turns_parity_red_and_stops_the_decision(world: World) -> None:
    """Drift on data that was served wrong is a fault to mend, not a reason to train."""
    score(world)
    wrong = world.lake.read(PREDICTIONS).head(1)
    views = msgspec.json.decode(wrong["views"][0])
    origin = next(view for view in views if view["view"] == "origin_delay.v1")
    origin["values"][origin["features"].index("count_3h")] = 10_000
    broken = wrong.with_columns(views=pl.lit(msgspec.json.encode(views).decode()), receipt=pl.lit("wrong"))
    world.lake.append(PREDICTIONS, broken)

    result = world.run(assets(), select=WATCHING, checked=[predictions_key(PRODUCT)])

    assert not result.success
    assert not world.lake.exists(f"decisions.{PRODUCT.name}")


def test_only_whole_weeks_the_version_answered_in_are_judged(world: World) -> None:
    score(world)
    assert watch(world).success

    [week] = world.lake.read(f"monitoring.{PRODUCT.name}").to_dicts()
    assert (to_us(week["week"]), to_us(week["until"])) == (WEEK.from_us, WEEK.until_us)
    labels = world.lake.read(f"labels.{PRODUCT.name}", predicate=pl.col("label").is_not_null())
    assert week["rows"] == labels.filter(pl.col("window").is_between(week["week"], week["until"], closed="left")).height


def test_a_degraded_answer_counts_only_where_there_is_no_other(world: World) -> None:
    score(world)
    late = world.lake.read(PREDICTIONS).with_columns(
        source=pl.lit("stream"),
        receipt=pl.concat_str(pl.lit("stream-"), "receipt"),
        requested_at=pl.col("requested_at") + pl.duration(seconds=5),
        probability=pl.lit(0.99),
        degraded=pl.lit(value=True),
        views=pl.lit("[]"),
    )
    world.lake.append(PREDICTIONS, late)

    watch(world)

    [week] = world.lake.read(f"monitoring.{PRODUCT.name}").to_dicts()
    assert week["rows"] > 1000
    assert week["degraded"] == 0


def test_a_week_within_limits_is_a_reason_to_hold(world: World) -> None:
    score(world)
    watch(world)

    [decision] = world.lake.read(f"decisions.{PRODUCT.name}").to_dicts()
    assert (decision["decision"], decision["train_from"]) == ("hold", None)
    assert "within limits" in decision["reason"]


def test_a_week_over_its_limit_is_a_decision_to_train_on_what_came_before_it(world: World) -> None:
    promote(world, with_limits(divergence=0.0))
    score(world)
    watch(world)
    watch(world)  # a repeat decides the same and is not counted as an earlier training

    [decision] = world.lake.read(f"decisions.{PRODUCT.name}").to_dicts()
    assert decision["decision"] == "retrain"
    assert to_us(decision["train_until"]) == WEEK.from_us
    assert to_us(decision["gate_until"]) == to_us(decision["until"]) == WEEK.until_us


def test_a_verdict_stands_when_labels_are_corrected_later(world: World) -> None:
    score(world)
    watch(world)
    verdict = world.lake.read(f"monitoring.{PRODUCT.name}")
    arrived = world.lake.read("events", predicate=pl.col("type") == "flight.arrived.v1")
    moved = arrived.with_columns(arr_delay_min=pl.lit(300, dtype=pl.Int64), offset=pl.lit(1, dtype=pl.Int64))
    world.lake.append("events", moved)

    watch(world)

    again = world.lake.read(f"monitoring.{PRODUCT.name}")
    assert world.lake.read(f"labels.{PRODUCT.name}")["label"].drop_nulls().all()
    assert again.drop("known_at").equals(verdict.drop("known_at"))


def test_a_week_is_not_judged_before_its_labels_are_mature(world: World) -> None:
    score(world)
    early = {"known_at": "2013-01-14T20:00:00Z"}
    steps = [monitoring_key(PRODUCT), decision_key(PRODUCT)]

    result = world.run(assets(), select=WATCHING, config={key.to_python_identifier(): early for key in steps})

    assert result.success
    assert world.lake.read(f"monitoring.{PRODUCT.name}").is_empty()
    assert "no mature week" in world.lake.read(f"decisions.{PRODUCT.name}")["reason"][0]


def test_without_a_promoted_version_nothing_is_scored_and_the_reason_says_so(world: World) -> None:
    world.registry.delete_alias(PRODUCT.name, CHAMPION)

    result = score(world)

    [failure] = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "no version live or champion in the registry" in str(failure.event_specific_data)
