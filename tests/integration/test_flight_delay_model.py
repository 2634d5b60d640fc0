"""The product on its real data: what its model card and ADR 0008 claim. About 90 s, most of it six fits."""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from domains.flights.planted import PaddingRemoved
from domains.flights.reference import load_reference
from domains.flights.source import events_between
from headway.adapters.lightgbm import LightGbm
from headway.candidate import Candidate, make_candidate
from headway.clock import DAY_US, to_us
from headway.drift import (
    History,
    Hold,
    Retrain,
    Window,
    WindowStatistics,
    decide_retrain,
    warnings,
    weekly_windows,
)
from headway.evaluation import Quality, quality
from headway.features.definitions import FeatureView
from headway.features.offline import values_at
from headway.predictor import open_predictor
from headway.rolling import week_statistics
from headway.training import AS_OF, Matrix, TrainingSet, assemble, training_set
from products.flight_delay.product import PRODUCT

pytestmark = pytest.mark.integration
NEW_YORK = ZoneInfo(PRODUCT.drift.zone)


def midnight_us(month: int, day: int) -> int:
    return to_us(datetime(2013, month, day, tzinfo=NEW_YORK))


YEAR_US = (to_us(datetime(2012, 12, 30, tzinfo=UTC)), to_us(datetime(2013, 10, 1, tzinfo=UTC)))
LEARNED = Window(from_us=midnight_us(1, 1), until_us=midnight_us(7, 1))
JULY = Window(from_us=midnight_us(7, 1), until_us=midnight_us(8, 1))
JUDGED = Window(from_us=midnight_us(7, 1), until_us=midnight_us(9, 16))
PLANTED = PaddingRemoved(from_us=midnight_us(9, 2), carriers=frozenset({"B6", "EV", "UA"}))


class World(NamedTuple):
    candidate: Candidate
    learned: TrainingSet
    rows: Matrix
    july: Quality
    weeks: list[WindowStatistics]


def rows_of(events: pl.DataFrame, window: Window) -> TrainingSet:
    def read(view: FeatureView, queries: pl.DataFrame) -> pl.DataFrame:
        return values_at(events, view, queries.with_columns(served_watermark_us=pl.col(AS_OF)), mode="as_served")

    return training_set(
        PRODUCT,
        events=events,
        reference=load_reference(),
        values_at=read,
        window=window,
        known_at_us=window.until_us + 2 * DAY_US,
        views_shift_us=0,
    )


@pytest.fixture(scope="module")
def world() -> World:
    events = events_between(*YEAR_US, transform=PLANTED)
    learner, learned = LightGbm(), rows_of(events, LEARNED)
    candidate = make_candidate(PRODUCT, learned, spec=PRODUCT.model, learner=learner, tables={})
    predictor = open_predictor(candidate.model, candidate.manifest, load=learner.load)
    rows = assemble(PRODUCT, rows_of(events, JUDGED), assembler=predictor.assembler)
    july = rows.between(JULY)
    weeks = []
    for week in weekly_windows(PRODUCT.drift.zone, from_us=JUDGED.from_us, until_us=JUDGED.until_us):
        part = rows.between(week)
        weeks.append(week_statistics(part, predictor.score(part.x), week=week, product=PRODUCT))
    return World(candidate, learned, rows, quality(july.labels, predictor.score(july.x)), weeks)


def test_july_is_predicted_as_the_model_card_says(world: World) -> None:
    assert world.july.rows == 28_293
    assert world.july.average_precision is not None
    assert world.july.average_precision > 0.64
    assert world.july.roc_auc is not None
    assert world.july.roc_auc > 0.77
    assert abs(world.july.calibration_gap) < 0.05


def test_the_spec_holds_the_floor_out_of_fold(world: World) -> None:
    average_precision = world.candidate.rolling.quality.average_precision

    assert average_precision is not None
    assert average_precision > PRODUCT.gate.floor_average_precision


def test_no_natural_week_of_july_and_august_calls_for_training(world: World) -> None:
    assert decisions(world)[:9] == [Hold] * 9


def test_the_planted_change_is_found_in_its_second_week(world: World) -> None:
    limits = world.candidate.manifest.limits
    assert limits is not None

    assert warnings(world.weeks[9], limits) == ["divergence"]
    assert decisions(world)[9:] == [Hold, Retrain]
    assert world.weeks[10].worst_slice in PLANTED.carriers


def test_half_a_year_is_refitted_to_the_same_bytes(world: World) -> None:
    """From the rows, not from the matrix: assembling and encoding are part of the promise."""
    again = assemble(PRODUCT, world.learned, assembler=world.rows.assembler)

    assert LightGbm().fit(again, PRODUCT.model) == world.candidate.model


def decisions(world: World) -> list[type[Hold | Retrain]]:
    limits = world.candidate.manifest.limits
    assert limits is not None
    history = History(trained_until_us=LEARNED.until_us)
    return [
        type(decide_retrain(world.weeks[:end], limits=limits, policy=PRODUCT.drift, history=history))
        for end in range(1, len(world.weeks) + 1)
    ]
