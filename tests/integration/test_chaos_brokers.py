"""R2, R3 and the drill on a real cluster of three brokers; the short one belongs to every run of the tests.

That a planted bug turns R2 and R3 red is in test_chaos.py, with those of all other tests.
"""

import pytest

from orchestration.chaos.drill import run_drill
from orchestration.chaos.r2 import run as run_r2
from orchestration.chaos.r3 import run as run_r3
from orchestration.chaos.report import Report, Trial

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1_200)]


def trial(test: str, *, short: bool) -> Trial:
    return Trial(test=test, short=short, seed=20_131, mutant=None, say=print)


def told(report: Report) -> str:
    return "\n".join(report.lines())


def test_a_leader_killed_ahead_of_its_followers_loses_nothing_acknowledged() -> None:
    report = run_r2(trial("R2", short=True))

    assert report.violations == {}, told(report)
    assert all(fault.proof for fault in report.faults), told(report)
    assert report.figures["acked"] >= 5_000, told(report)


@pytest.mark.long
def test_r2_holds() -> None:
    report = run_r2(trial("R2", short=False))

    assert report.held, told(report)


@pytest.mark.long
def test_r3_holds() -> None:
    report = run_r3(trial("R3", short=False))

    assert report.held, told(report)


@pytest.mark.long
def test_the_drill_holds() -> None:
    outcome = run_drill(short=False, here=False, seed=20_131, mutant=None, say=print)

    assert outcome.holds, "\n".join(outcome.lines)
