from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest

from domains.flights.contracts import ARRIVED
from domains.flights.reference import load_reference
from domains.flights.source import events_between
from headway.adapters.lightgbm import LightGbm
from headway.clock import DAY_US, to_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.definitions import FeatureView
from headway.features.offline import changelog, values_at
from headway.rolling import rolling_weeks, row_weights
from headway.training import (
    AS_OF,
    Matrix,
    TrainingSet,
    assemble,
    learn_categories,
    training_set,
    values_from_changelog,
    vector_inputs,
)
from headway.vector import Assembler
from products.flight_delay.labels import examples
from products.flight_delay.product import PRODUCT

START_US = to_us(datetime(2013, 1, 2, 5, tzinfo=UTC))
WINDOW = Window(from_us=START_US + 2 * DAY_US, until_us=START_US + 4 * DAY_US)
KNOWN_US = WINDOW.until_us + 2 * DAY_US


@cache
def events() -> pl.DataFrame:
    return events_between(START_US - 2 * DAY_US, START_US + 6 * DAY_US)


def from_events(view: FeatureView, queries: pl.DataFrame) -> pl.DataFrame:
    return values_at(events(), view, queries.with_columns(served_watermark_us=pl.col(AS_OF)), mode="as_served")


def from_changelog(view: FeatureView, queries: pl.DataFrame) -> pl.DataFrame:
    table = changelog(events(), view, start_us=START_US - 3 * DAY_US, until_us=KNOWN_US)
    return values_from_changelog({view.qualified: table})(view, queries)


def make_set(
    *, lake: pl.DataFrame | None = None, known_at_us: int = KNOWN_US, window: Window = WINDOW, shift_us: int = 0
) -> TrainingSet:
    return training_set(
        PRODUCT,
        events=events() if lake is None else lake,
        reference=load_reference(),
        values_at=from_events,
        window=window,
        known_at_us=known_at_us,
        views_shift_us=shift_us,
    )


def make_matrix(rows: TrainingSet) -> Matrix:
    return assemble(PRODUCT, rows, assembler=Assembler(PRODUCT.columns(learn_categories(PRODUCT, rows))))


@cache
def two_days() -> TrainingSet:
    return make_set()


def test_every_flight_of_the_window_is_a_row_or_counted_as_excluded() -> None:
    scheduled = events().filter(pl.col("type") == "flight.scheduled.v1")
    inside = scheduled.filter(
        pl.col("sched_dep").dt.timestamp("us").is_between(WINDOW.from_us, WINDOW.until_us, closed="left")
    )

    assert two_days().frame.height + sum(two_days().excluded.values()) == inside.height
    assert set(two_days().excluded) <= {"cancelled", "diverted"}
    assert two_days().excluded["cancelled"] > 0


def test_late_is_more_than_fifteen_minutes() -> None:
    delays = events().filter(pl.col("type") == ARRIVED).select("subject", "arr_delay_min")
    judged = two_days().frame.join(delays, on="subject")

    assert judged.filter(pl.col("arr_delay_min") == 15)["label"].sum() == 0
    assert judged.filter(pl.col("arr_delay_min") == 16)["label"].all()
    assert judged["label"].sum() == (judged["arr_delay_min"] > 15).sum()


def test_a_window_whose_labels_are_not_mature_is_refused() -> None:
    with pytest.raises(ContractViolation, match="labels mature at"):
        make_set(known_at_us=WINDOW.until_us + DAY_US // 2)


def test_a_label_known_after_the_training_does_not_exist() -> None:
    subject = two_days().frame["subject"][0]
    late_report = events().with_columns(
        time=pl.when((pl.col("subject") == subject) & (pl.col("type") == ARRIVED))
        .then(pl.lit(KNOWN_US + 1).cast(pl.Datetime("us", "UTC")))
        .otherwise("time")
    )

    found = make_set(lake=late_report)

    assert subject not in found.frame["subject"]
    assert found.excluded["arrived"] == 1


def test_the_newest_revision_of_an_arrival_is_the_label() -> None:
    """A corrected report is another event of the same flight, later in the log; its time may even be earlier."""
    arrived = events().filter((pl.col("type") == ARRIVED) & (pl.col("arr_delay_min") > 15)).head(1)
    corrected = arrived.with_columns(
        id=pl.col("id") + "/corrected",
        arr_delay_min=pl.lit(3, dtype=pl.Int64),
        time=pl.col("time").dt.offset_by("-40m"),
        offset=pl.lit(7, dtype=pl.Int64),
    )

    found = examples(pl.concat([events(), corrected])).filter(pl.col("subject") == arrived["subject"][0])

    assert found["label"].to_list() == [False]


def test_views_are_the_same_from_events_and_from_the_changelog() -> None:
    for view in PRODUCT.feature_views.values():
        queries = examples(events()).filter(pl.col("window_us") < WINDOW.until_us).head(3000)
        queries = queries.select(*view.keys, (pl.col("window_us") - DAY_US // 24).alias(AS_OF))

        nulls_as_zero = [pl.col(name).fill_null(0) for name in view.columns if name.startswith("count_")]
        left, right = (
            read(view, queries).select(*view.columns).with_columns(nulls_as_zero)
            for read in (from_events, from_changelog)
        )

        assert left.equals(right), view.qualified


def test_a_matrix_row_is_what_serving_would_assemble() -> None:
    matrix = make_matrix(two_days())

    for place, (request, views, as_of_us) in enumerate(vector_inputs(PRODUCT, two_days())):
        if place % 101 == 0:
            np.testing.assert_array_equal(matrix.x[place], matrix.assembler.assemble(request, views, as_of_us))


def test_a_logged_request_gives_its_row_again() -> None:
    """The request column is the proof that a row can be asked again as a client would ask it."""
    row = two_days().frame.row(10, named=True)
    request = PRODUCT.parse_request(row["request"].encode())

    features = PRODUCT.compute_request_features(request, load_reference(), PRODUCT.asked_at_us(request))

    assert PRODUCT.asked_at_us(request) == row[AS_OF]
    assert features == {name: row[name] for name in features}


def test_the_leak_test_reads_views_a_day_earlier_and_nothing_else() -> None:
    today, yesterday = two_days().frame, make_set(shift_us=DAY_US).frame

    assert (today[AS_OF] - yesterday[AS_OF]).unique().to_list() == [DAY_US]
    assert today.select(PRODUCT.numbers).equals(yesterday.select(PRODUCT.numbers))
    assert not today["origin_delay__mean_dep_delay_min_3h"].equals(yesterday["origin_delay__mean_dep_delay_min_3h"])


def test_rows_are_sorted_and_days_are_local() -> None:
    matrix = make_matrix(two_days())

    assert two_days().frame.select("window_us", "subject").is_sorted("window_us")
    assert len(np.unique(matrix.days)) == 2


def test_a_window_without_flights_says_so() -> None:
    with pytest.raises(ContractViolation, match="no examples"):
        make_set(window=Window(from_us=0, until_us=DAY_US))


def test_the_same_rows_and_spec_give_the_same_bytes_and_another_seed_does_not() -> None:
    matrix, learner = make_matrix(two_days()), LightGbm()
    spec = replace(PRODUCT.model, trees=20, min_rows_in_leaf=20)

    first, again = learner.fit(matrix, spec), learner.fit(make_matrix(make_set()), spec)

    assert first == again
    assert first != learner.fit(matrix, replace(spec, seed=1))


def test_labels_of_one_kind_cannot_be_learned() -> None:
    matrix = make_matrix(two_days())

    with pytest.raises(ContractViolation, match="wanted both kinds"):
        LightGbm().fit(matrix.take(~matrix.labels), PRODUCT.model)


def test_a_half_life_halves_and_none_means_equal() -> None:
    assert row_weights(np.array([0, 10 * DAY_US, 20 * DAY_US]), None) is None
    np.testing.assert_allclose(row_weights(np.array([0, 10 * DAY_US, 20 * DAY_US]), 10.0), [0.25, 0.5, 1.0])  # type: ignore[arg-type]


class Eavesdropper:
    """A learner that remembers up to when each fold's rows reached."""

    def __init__(self) -> None:
        self.until_us: list[int] = []

    def fit(self, rows: Matrix, spec: object) -> bytes:  # noqa: ARG002 - the port names it
        self.until_us.append(int(rows.window_us.max()))
        return b""

    def load(self, model: bytes) -> "Eavesdropper":  # noqa: ARG002 - the port names it
        return self

    def score(self, matrix: np.ndarray) -> np.ndarray:
        return np.full(len(matrix), 0.3)


def ten_weeks() -> Matrix:
    matrix = make_matrix(two_days())
    rows = np.arange(4000) % len(matrix.labels)
    window_us = START_US + np.sort(rows) * (75 * DAY_US // int(rows.max()))
    return Matrix(
        assembler=matrix.assembler,
        x=matrix.x[rows],
        labels=matrix.labels[rows],
        window_us=window_us,
        days=window_us // DAY_US,
        slices={name: values[rows] for name, values in matrix.slices.items()},
    )


def test_rolling_folds_only_look_forward_and_share_the_weeks() -> None:
    spy, rows = Eavesdropper(), ten_weeks()
    window = Window(from_us=START_US, until_us=START_US + 75 * DAY_US)

    found = rolling_weeks(
        rows, product=PRODUCT, spec=PRODUCT.model, learner=spy, window=window, first_fold_weeks=4, folds=3
    )

    assert len(found.weeks) == 6
    assert len(spy.until_us) == 3
    starts = [found.weeks[n].from_us for n in (0, 2, 4)]
    assert all(until < start for until, start in zip(spy.until_us, starts, strict=True))
    assert found.quality.rows == sum(week.rows for week in found.weeks)


def test_a_window_too_short_for_a_fold_is_refused() -> None:
    with pytest.raises(ContractViolation, match="whole weeks, wanted over 8"):
        rolling_weeks(
            ten_weeks(),
            product=PRODUCT,
            spec=PRODUCT.model,
            learner=Eavesdropper(),
            window=Window(from_us=START_US, until_us=START_US + 40 * DAY_US),
            first_fold_weeks=8,
            folds=5,
        )
