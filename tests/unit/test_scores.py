"""The plan of versions, and scores as records."""

import pytest

from headway.errors import ContractViolation
from headway.predictions import ModelId
from headway.scores import KEPT_SWITCHES, Place, Plan, decode_plan, decode_score, encode_plan, score_receipt


def model(version: int) -> ModelId:
    return ModelId(name="flight_delay", version=version, digest=f"d{version}")


def test_each_offset_has_the_version_of_the_last_switch_before_it() -> None:
    plan = Plan().switched(10, model(1)).reached(19).switched(20, model(2))

    assert [plan.model_at(offset) for offset in (9, 10, 19, 20, 99)] == [None, model(1), model(1), model(2), model(2)]


def test_only_what_nobody_has_dealt_with_is_new() -> None:
    plan = Plan().reached(7)

    assert [plan.is_new(offset) for offset in (6, 7, 8)] == [False, False, True]
    assert plan.reached(3) is plan


def test_the_same_version_again_is_no_switch() -> None:
    plan = Plan().switched(10, model(1))

    assert plan.switched(20, model(1)) is plan


def test_a_plan_does_not_grow_for_ever() -> None:
    plan = Plan()
    for version in range(KEPT_SWITCHES + 10):
        plan = plan.switched(version, model(version))

    assert (len(plan.switches), plan.newest) == (KEPT_SWITCHES, model(KEPT_SWITCHES + 9))


def test_a_plan_reads_back_as_it_was_written() -> None:
    plan = Plan().switched(10, model(1)).reached(12)

    assert decode_plan(encode_plan(plan)) == plan


def test_the_same_record_has_the_same_receipt_and_another_has_not() -> None:
    place = Place("events.enriched", 1, 7)

    assert score_receipt("p", place, "a") == score_receipt("p", place, "a")
    assert score_receipt("p", place, "a") != score_receipt("p", Place("events.enriched", 1, 8), "a")


@pytest.mark.parametrize("read", [decode_plan, decode_score])
def test_bytes_of_somebody_else_are_refused_by_name(read: object) -> None:
    assert callable(read)
    with pytest.raises(ContractViolation, match="only Headway writes"):
        read(b"{}x")
