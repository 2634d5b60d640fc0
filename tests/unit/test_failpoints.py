"""Fail-points: off they do nothing, on they do what the plan says and say so first."""

import json
import os
import subprocess
import sys

import pytest

from headway import failpoints
from headway.errors import ContractViolation
from headway.failpoints import FailPoint, FailPoints, parse_plan


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def strikes(plan: str, *, seed: str, hits: int) -> list[tuple[str, int]]:
    struck: list[tuple[str, int]] = []
    points = FailPoints(parse_plan(plan), seed=seed, act=lambda point, hit: struck.append((point.name, hit)))
    for _ in range(hits):
        points.hit("a")
        points.hit("b")
    return struck


def test_a_plan_names_points_with_a_count_or_a_probability() -> None:
    assert parse_plan("a.x=3:kill, b.y=0.5:raise,c=1.0:hang") == {
        "a.x": FailPoint(name="a.x", action="kill", nth=3),
        "b.y": FailPoint(name="b.y", action="raise", probability=0.5),
        "c": FailPoint(name="c", action="hang", probability=1.0),
    }
    assert parse_plan("") == {}


@pytest.mark.parametrize("text", ["a", "a=1", "a=1:stop", "a=x:kill", "a=0:kill", "a=-1:kill", "a=1.5:kill", "=1:kill"])
def test_what_is_no_plan_is_refused_and_named(text: str) -> None:
    with pytest.raises(ContractViolation, match="NAME=WHEN:ACTION") as refusal:
        parse_plan(f"ok=1:kill,{text}")

    assert repr(text) in str(refusal.value)


def test_a_count_strikes_at_that_hit_and_never_again() -> None:
    assert strikes("a=3:kill", seed="", hits=10) == [("a", 3)]


def test_a_probability_strikes_about_that_often_and_the_same_with_the_same_seed() -> None:
    struck = strikes("a=0.1:kill,b=0.1:kill", seed="7", hits=2000)

    assert struck == strikes("a=0.1:kill,b=0.1:kill", seed="7", hits=2000)
    assert struck != strikes("a=0.1:kill,b=0.1:kill", seed="8", hits=2000)
    assert 300 < len(struck) < 500
    assert [hit for name, hit in struck if name == "a"] != [hit for name, hit in struck if name == "b"]


def test_without_a_plan_a_hit_passes() -> None:
    done = run("from headway.failpoints import hit; hit('a'); print('alive')")

    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_kill_says_so_and_ends_the_process_at_once() -> None:
    code = (
        "import atexit; atexit.register(print, 'unwound')\nfrom headway.failpoints import hit\nfor _ in 'abc': hit('a')"
    )

    done = run(code, HEADWAY_FAILPOINTS="a=2:kill", HEADWAY_FAILPOINT_SEED="5")

    said = json.loads(done.stderr)
    assert (done.returncode, done.stdout) == (137, "")
    assert (said["event"], said["name"], said["action"], said["hit"], said["seed"]) == (
        "failpoint",
        "a",
        "kill",
        2,
        "5",
    )


def test_raise_raises_and_the_next_hit_passes() -> None:
    code = (
        "from headway.failpoints import FailPointRaised, hit\n"
        "try: hit('a')\nexcept FailPointRaised as error: print(error)\nhit('a'); print('alive')"
    )

    done = run(code, HEADWAY_FAILPOINTS="a=1:raise")

    assert (done.returncode, done.stdout) == (0, "a: raised as planned, at hit 1\nalive\n")


def test_hang_says_so_and_does_not_return() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from headway.failpoints import hit; hit('a')"],
        env=os.environ | {"HEADWAY_FAILPOINTS": "a=1:hang"},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None

    said = json.loads(process.stderr.readline())

    assert (said["event"], said["action"], process.poll()) == ("failpoint", "hang", None)
    process.kill()
    process.communicate()


def test_off_means_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not timed against a clock: off, a hit never reaches the function that knows of plans."""
    monkeypatch.setattr(failpoints, "_armed", None)
    failpoints.hit("first")
    monkeypatch.setattr(failpoints, "_hit", pytest.fail)

    failpoints.hit("enricher.before_commit")

    assert failpoints._armed is False
