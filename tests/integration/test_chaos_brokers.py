"""R2, R3 and the drill on a real cluster of three brokers; the short one belongs to every run of the tests."""

import pytest

from orchestration.chaos.drill import run_drill
from orchestration.chaos.r2 import run as run_r2
from orchestration.chaos.r3 import run as run_r3
from orchestration.chaos.report import Report, Trial

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1_200)]


def trial(test: str, *, short: bool, mutant: str | None = None) -> Trial:
    return Trial(test=test, short=short, seed=20_131, mutant=mutant, say=print)


def told(report: Report) -> str:
    return "\n".join(report.lines())


def test_a_leader_killed_ahead_of_its_followers_loses_nothing_acknowledged() -> None:
    report = run_r2(trial("R2", short=True))

    assert report.violations == {}, told(report)
    assert all(fault.proof for fault in report.faults), told(report)
    assert report.figures["acked"] >= 5_000, told(report)


@pytest.mark.long
def test_an_acknowledgement_by_the_leader_alone_is_found_out() -> None:
    """The planted bug: acks=1. Without it red, the test above would prove nothing."""
    report = run_r2(trial("R2", short=True, mutant="acks-1"))

    assert "lost" in report.violations, told(report)


@pytest.mark.long
def test_r2_holds() -> None:
    report = run_r2(trial("R2", short=False))

    assert report.held, told(report)


@pytest.mark.long
def test_r3_holds() -> None:
    report = run_r3(trial("R3", short=False))

    assert report.held, told(report)


@pytest.mark.long
def test_a_collector_that_answers_too_early_is_found_out_by_r3() -> None:
    report = run_r3(trial("R3", short=True, mutant="ack-before-delivery"))

    assert "false acknowledgements" in report.violations, told(report)


@pytest.mark.long
def test_the_drill_holds() -> None:
    outcome = run_drill(short=False, here=False, seed=20_131, mutant=None, say=print)

    assert outcome.holds, "\n".join(outcome.lines)
