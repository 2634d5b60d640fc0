"""What answers to predictions are judged by, each fault of theirs by its name."""

import itertools
import json

import pytest

from headway.openloop import Answered
from orchestration.chaos.answer_verdict import Window, judge_answers
from orchestration.chaos.r13 import FULL, SHORT, Size, plan_faults

AWAY = Window(from_s=10.0, until_s=12.0)


def answered(place: int, *, probability: float = 0.5, degraded: bool = False, status: int = 200) -> Answered:
    body = json.dumps({"probability": probability, "features": {"degraded": degraded}}).encode()
    return Answered(place=place, due_s=float(place), status=status, body=body, lost=None, latency_s=0.01)


def expected(_place: int, degraded: bool) -> float:  # noqa: FBT001 - as the trial's own
    return 0.25 if degraded else 0.5


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (answered(1), set()),
        (answered(11, probability=0.25, degraded=True), set()),
        (answered(1, probability=0.5000001), {"wrong answer"}),
        (answered(11, degraded=True), {"wrong answer"}),
        (answered(1, probability=0.25, degraded=True), {"degraded for no reason"}),
        (answered(1, status=503), {"not answered"}),
    ],
)
def test_each_wrong_thing_has_its_name(answer: Answered, named: set[str]) -> None:
    assert judge_answers([answer], expected=expected, away=[AWAY]).violations.keys() == named


def test_an_outage_lasts_until_the_last_request_that_failed_in_its_window() -> None:
    answers = [answered(place, status=503 if place in (3, 5, 9) else 200) for place in range(12)]
    verdict = judge_answers(answers, expected=expected, away=[])

    assert verdict.failed == 3
    assert verdict.success == 0.75
    assert verdict.outage_s(Window(from_s=2.5, until_s=8.0)) == 2.5
    assert verdict.outage_s(Window(from_s=9.5, until_s=12.0)) == 0.0


@pytest.mark.parametrize("size", [SHORT, FULL])
def test_every_fault_that_is_planned_has_a_time_of_its_own(size: Size) -> None:
    faults = plan_faults(size)
    times_s = [fault.at_s for fault in faults]

    assert [fault.kind for fault in faults].count("replica") == size.replicas
    assert len(faults) == size.replicas + 2 * size.others
    assert min(after - before for before, after in itertools.pairwise(times_s)) >= size.every_s / 2
