"""A batch answers as replicas do: in bulk and one by one the same bits, whatever is in the rows."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest

from domains.flights.reference import load_reference
from domains.flights.source import events_between
from headway.batch import SUBJECT, Questions, answer, asked_in, question, request_fields
from headway.clock import DAY_US, to_us
from headway.drift import Window
from headway.errors import ContractViolation, PermanentFailure
from headway.features.offline import REVISION, ROW_TIME
from headway.product import InBulk, Product
from headway.training import AS_OF
from tests.batch_world import model_of
from tests.serving_world import product

FROM = to_us(datetime(2013, 3, 9, 5, tzinfo=UTC))  # the clocks of New York change on the 10th
WINDOW = Window(from_us=FROM, until_us=FROM + 2 * DAY_US)
PRODUCT = product()
ONE_BY_ONE = replace(PRODUCT, in_bulk=None)


@cache
def events() -> pl.DataFrame:
    return events_between(FROM - 2 * DAY_US, FROM + 4 * DAY_US)


@cache
def asked() -> pl.DataFrame:
    return asked_in(PRODUCT, events(), WINDOW)


def bulk() -> InBulk:
    assert PRODUCT.in_bulk is not None
    return PRODUCT.in_bulk


def poisoned(**changed: object) -> pl.DataFrame:
    """Three rows, the middle one with other values."""
    first, middle, last = (asked().slice(place, 1) for place in range(3))
    changes = [pl.lit(value).cast(asked().schema[name]).alias(name) for name, value in changed.items()]
    return pl.concat([first, middle.with_columns(changes), last])


def with_empty_views(questions: Questions, chosen: Product) -> Questions:
    views = {}
    for use in chosen.views:
        columns = (*use.features, ROW_TIME, REVISION)
        nothing = dict.fromkeys(columns, [None] * questions.rows.height)
        views[use.view] = pl.DataFrame(nothing, schema=dict.fromkeys(columns, pl.Int64))
    return replace(questions, views=views)


def test_in_bulk_the_questions_and_features_are_those_of_one_row_after_another() -> None:
    assert asked().height > 1200
    assert asked_in(ONE_BY_ONE, events(), WINDOW).equals(asked())

    found, wanted = (question(each, asked(), load_reference()) for each in (PRODUCT, ONE_BY_ONE))

    assert found.features.schema == wanted.features.schema
    for name in found.features.columns:
        assert found.features[name].equals(wanted.features[name], null_equal=True), name
    assert found.rows.equals(wanted.rows)
    assert (list(found.refused), list(wanted.refused)) == ([], [])


def test_only_the_events_a_question_is_made_of_are_needed() -> None:
    scheduled = events().filter(pl.col("type").is_in(bulk().events))

    assert scheduled.height < events().height
    assert asked_in(PRODUCT, scheduled, WINDOW).equals(asked())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dest": "XXX"}, "dest: got 'XXX'"),
        ({"carrier": "ual"}, "carrier: "),
        ({"tail": "n14228"}, "tail: "),
        ({"origin": None}, "origin: "),
        ({"flight": 0}, "flight: "),
        ({"distance_mi": 99_999}, "distance_mi: "),
        ({"sched_arr": datetime(2013, 1, 1, tzinfo=UTC)}, "sched_arr: got 2013-01-01"),
    ],
)
def test_a_poisoned_row_is_refused_alone_with_the_reason_a_request_gets(
    changed: dict[str, object], reason: str
) -> None:
    rows = poisoned(**changed)

    for chosen in (PRODUCT, ONE_BY_ONE):
        found = question(chosen, rows, load_reference())

        assert found.rows.equals(rows[[0, 2]])
        [refused] = found.refused
        assert (refused.subject, refused.as_of_us) == (rows[SUBJECT][1], rows[AS_OF][1])
        assert reason in refused.reason


def test_a_row_that_breaks_the_products_function_is_refused_alone() -> None:
    def broken(request: object, _reference: object, _as_of_us: int) -> dict[str, float | str | None]:
        raise ZeroDivisionError(f"by the speed of {request.tail}")  # type: ignore[attr-defined]

    unsure = replace(bulk(), sure=lambda _: pl.col(SUBJECT) != asked()[SUBJECT][1])
    rows = asked()[:3]

    found = question(replace(PRODUCT, request_features=broken, in_bulk=unsure), rows, load_reference())

    assert found.rows.height == 2
    assert [each.reason for each in found.refused] == [f"ZeroDivisionError: by the speed of {rows['tail'][1]}"]


def test_a_question_without_an_instant_is_reported_where_its_thing_is() -> None:
    """Nobody can say when it would have been asked, and it must not vanish for that."""
    flight = asked()[SUBJECT][0]
    lost = pl.when(pl.col(SUBJECT) == flight).then(None).otherwise(pl.col("sched_dep")).alias("sched_dep")

    for chosen in (PRODUCT, ONE_BY_ONE):
        rows = asked_in(chosen, events().with_columns(lost), WINDOW)
        found = question(chosen, rows, load_reference())

        assert [(each.subject, each.as_of_us) for each in found.refused] == [(flight, WINDOW.from_us)]
        assert rows.height == asked().height


def test_when_nearly_every_row_is_refused_the_fault_is_ours_and_the_batch_stops() -> None:
    nowhere = asked().with_columns(dest=pl.lit("XXX"))

    with pytest.raises(PermanentFailure, match=r"of 1,\d+ rows are refused, first .*: dest: got 'XXX'"):
        question(PRODUCT, nowhere, load_reference())


def test_a_score_in_bulk_is_that_of_the_request() -> None:
    questions = with_empty_views(question(PRODUCT, asked()[:200], load_reference()), PRODUCT)
    predictor, reference = model_of(7).predictor(), load_reference()

    found = answer(PRODUCT, questions, predictor=predictor, reference=reference)

    fields = questions.rows.select(request_fields(PRODUCT)).iter_rows(named=True)
    wanted = [
        predictor.predict(
            PRODUCT.compute_request_features(PRODUCT.request_from(each), reference, as_of_us),
            PRODUCT.empty_rows,
            as_of_us,
        ).score
        for each, as_of_us in zip(fields, questions.rows[AS_OF], strict=True)
    ]
    assert found.tobytes() == np.array(wanted).tobytes()
    assert len(set(wanted)) > 2


def test_a_feature_that_says_something_else_in_bulk_stops_the_batch() -> None:
    def off(rows: pl.DataFrame, reference: object) -> pl.DataFrame:
        return bulk().request_features(rows, reference).with_columns(pl.col("local_hour") + 2.0**-40)

    wrong = replace(PRODUCT, in_bulk=replace(bulk(), request_features=off))
    questions = with_empty_views(question(wrong, asked()[:50], load_reference()), wrong)

    with pytest.raises(ContractViolation, match=r"scores .* in bulk .* over \['local_hour "):
        answer(wrong, questions, predictor=model_of(7).predictor(), reference=load_reference())
