"""The chaos tests as commands: held on the plane as it is, and red, for the right reason, with a bug planted."""

import json
from pathlib import Path
from typing import Any

import pytest

from headway.cli import main
from orchestration.chaos.tests_table import TESTS

# A stack to start, a minute and more of load, and patience on a busy machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
FULL = pytest.mark.timeout(2400)


def chaos(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    report = tmp_path / "report.json"
    code = main(["chaos", *arguments, "--json", str(report)])
    return code, json.loads(report.read_text())


def held(code: int, report: dict[str, Any]) -> None:
    said = {name: report.get(name) for name in ("violations", "wants", "unproven", "error")}
    assert code == 0, said
    assert report["held"], said
    assert report["faults"]
    assert all(fault["proof"] for fault in report["faults"])


def test_random_kills_over_the_event_plane_lose_double_invent_and_reorder_nothing(tmp_path: Path) -> None:
    code, report = chaos(tmp_path, "R1", "--short")

    held(code, report)
    assert report["n"] >= 25_000
    assert sum(fault["what"] == "kill" for fault in report["faults"]) >= 8
    assert report["figures"]["feature_values_wrong"] == 0 < report["figures"]["feature_values_checked"]


@pytest.mark.long
@pytest.mark.parametrize("test", ["R5", "R6", "R7", "R11", "REPLAY", "R13", "R13-STREAM"])
def test_the_short_form_of_each_other_test_holds(tmp_path: Path, test: str) -> None:
    held(*chaos(tmp_path, test, "--short"))


@pytest.mark.long
@FULL
@pytest.mark.parametrize("test", ["R1", "R5", "R7", "R11", "R13", "R13-STREAM"])
def test_the_whole_of_each_test_holds(tmp_path: Path, test: str) -> None:
    held(*chaos(tmp_path, test))


@pytest.mark.long
def test_ten_thousand_letters_replayed_three_times_and_killed_in_the_middle_are_in_every_sink_once(
    tmp_path: Path,
) -> None:
    code, report = chaos(tmp_path, "LETTERS")

    held(code, report)
    figures, [fault] = report["figures"], report["faults"]
    assert report["n"] == figures["raw_events"] == 10_000
    assert figures["enriched_events"] == figures["lake_events"] == figures["search_events"] > 10_000
    assert 0 < figures["put_back_by_the_kill"] < 10_000
    assert figures["online_values_wrong"] == 0 < figures["online_values_checked"]
    assert "ended with -9 (SIGKILL)" in fault["proof"]


@pytest.mark.long
def test_what_was_accepted_is_readable_online(tmp_path: Path) -> None:
    code, report = chaos(tmp_path, "FRESH", "--short")

    assert code == 0, report
    assert report["held"]
    assert report["figures"]["acked"] > report["n"] == report["figures"]["probes"] > 0
    assert report["figures"]["capacity_per_s"] > report["figures"]["offered_per_s"] > 0


# What each planted bug breaks: how the violation's name ends, and a word of what it says.
BREAKS: dict[tuple[str, str], tuple[str | tuple[str, ...], str]] = {
    ("R1", "ack-before-delivery"): ("I1", "acknowledged and lost"),
    ("R1", "letter-swallowed"): ("I1", "4xx without its letter"),
    ("R1", "commit-before-write"): ("I2", "not-in-lake"),
    ("R2", "acks-1"): ("lost", ""),
    ("R3", "acks-1"): ("false acknowledgements", ""),
    ("R3", "ack-before-delivery"): ("false acknowledgements", ""),
    ("R5", "lake-appends-blindly"): ("I2", "twice"),
    ("R6", "letters-cut"): ("letter with other bytes", ""),
    ("R6", "never-condemned"): ("poison without a letter", "hostile-hang"),
    ("R6", "poison-skipped"): ("poison without a letter", ""),
    ("R7", "offsets-before-outputs"): ("I1", "acknowledged and lost"),
    ("R11", "guard-off"): ("online", "events say"),
    ("R11", "guard-of-feast"): ("online", "events say"),
    ("R11", "ties-by-arrival"): ("changelog", "last_"),
    ("REPLAY", "expiries-lost"): ("changelog", "count_"),
    ("REPLAY", "state-forgotten"): ("changelog", "events say"),
    ("FRESH", "rows-left-out"): ("not readable", "accepted"),
    ("R13", "retries-nothing"): ("not answered", "request "),
    # Lost with its scores is either the question, or that it had fallen due.
    ("R13-STREAM", "scores-in-two-steps"): (("question lost", "answered late or early"), ""),
    ("R13-STREAM", "plan-forgotten"): ("version other than recorded", ""),
    ("LETTERS", "replay-forgets"): ("lake", "2 times: "),
}


def test_every_planted_bug_of_the_table_is_tried() -> None:
    assert set(BREAKS) == {(entry.name, mutant) for entry in TESTS for mutant in entry.mutants}


@pytest.mark.long
@pytest.mark.parametrize(("test", "mutant"), BREAKS)
def test_a_planted_bug_turns_its_test_red_for_its_own_reason(tmp_path: Path, test: str, mutant: str) -> None:
    invariant, word = BREAKS[test, mutant]

    code, report = chaos(tmp_path, test, "--short", "--mutant", mutant)

    assert code == 1
    assert report["mutant"] == mutant
    named = [line for name, lines in report["violations"].items() if name.endswith(invariant) for line in lines]
    assert any(word in line for line in named), report["violations"]
