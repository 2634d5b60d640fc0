"""The page of all benchmarks: losses, gaps and failures stand in it like the rest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import sequence
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.limits import timed
from benchmarks.release_time import stages
from benchmarks.report import outcome
from benchmarks.table import page
from headway import bench_command

PLAN = Plan(windows=3, window_s=1, warmup_s=0)
PURPOSES = {"P1": "The whole path.", "P2": "Features in the request.", "P3": "gRPC."}


def contestant(name: str, value: float, *, errors: int = 0) -> Contestant:
    return Contestant(name=name, measure=lambda _: Sample(value=value, errors=errors))


def facts(name: str, *, ours: float, errors: int = 0) -> dict[str, Any]:
    found = compare(
        "Requests | one row",
        unit="rps",
        ours=contestant("headway", ours, errors=errors),
        peers=[contestant("FastAPI", 100.0), contestant("MLServer", 50.0)],
        targets=[Target(peer="FastAPI", at_least=1.3, goal=2.0)],
        plan=PLAN,
        say=lambda _: None,
        watch=lambda work: (work(), 0.0),
    )
    return dict(outcome(name, [found]).facts)


def rows(lines: list[str]) -> list[list[str]]:
    cells = [line.replace("\\|", "/").strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in each] for each in cells[1:]]


def test_every_ratio_stands_beside_its_target_and_a_loss_says_so() -> None:
    lines = page({"P1": facts("P1", ours=150.0), "P2": facts("P2", ours=100.0)}, PURPOSES)

    won, context, lost, *_ = rows(lines)
    assert won[:8] == [
        "P1",
        "Requests / one row",
        "FastAPI",
        "1.50 [1.50 to 1.50]",
        "1.3 (2.0)",
        "met",
        "150 [150 to 150] rps",
        "3",
    ]
    assert context[2:6] == ["MLServer", "3.00 [3.00 to 3.00]", "", "context"]
    assert lost[5] == "**missed**"
    assert "1 of 2 targets met." in lines


def test_a_benchmark_that_was_not_run_is_named() -> None:
    assert [each[0] for each in rows(page({}, PURPOSES)) if each[-1] == "not run"] == ["P1", "P2", "P3"]


def test_one_that_broke_off_says_why() -> None:
    broken = {"benchmark": "P3", "error": "broker:\nno answer", "run": facts("P1", ours=1.0)["run"]}

    [told] = [line for line in page({"P3": broken}, PURPOSES) if line.startswith("| P3")]

    assert "broke off: broker: no answer" in told


def test_errors_of_ours_are_shown_with_the_figure() -> None:
    assert any("3 errors" in line for line in page({"P1": facts("P1", ours=150.0, errors=1)}, PURPOSES))


def test_machine_and_commit_are_said() -> None:
    found = facts("P1", ours=1.0)

    lines = page({"P1": found}, PURPOSES)

    assert found["run"]["commit"] in "\n".join(lines)
    assert lines[-1].startswith("Machine of P1: ")


def test_a_limit_is_a_ratio_too() -> None:
    slow = timed("slow", lambda: None, limit_s=1e-12, times=2, say=lambda _: None)
    quick = timed("nothing", lambda: None, limit_s=60.0, times=2, say=lambda _: None)

    found = outcome("P1", [quick, slow])

    assert (quick.met, slow.met, found.holds) == (True, False, False)
    told = rows(page({"P1": dict(found.facts)}, PURPOSES))
    assert [each[5] for each in told[:2]] == ["met", "**missed**"]
    assert "at most 60.0 s): met" in found.lines[0]


def test_all_are_run_one_by_one_and_one_that_breaks_off_stops_no_other(tmp_path: Path) -> None:
    def execute(argv: Sequence[str]) -> tuple[int, str]:
        name, file, options = argv[4], Path(argv[6]), argv[7:]
        assert list(options) == ["--windows", "1"]
        if name == "P2":
            return 1, "Traceback\nMemoryError: no more\n"
        file.write_text(json.dumps(facts(name, ours=150.0)))
        return 0, ""

    met = sequence.run_all(
        ["P1", "P2", "P3"], into=tmp_path / "r", options=["--windows", "1"], say=lambda _: None, execute=execute
    )

    assert met == {"P1": True, "P2": False, "P3": True}
    results = sequence.read_results(tmp_path / "r")
    assert list(results) == ["P1", "P2", "P3"]
    assert results["P2"]["error"] == "MemoryError: no more"
    assert page(results, PURPOSES)


def test_the_command_writes_the_page_of_a_folder(tmp_path: Path) -> None:
    from argparse import ArgumentParser

    (tmp_path / "p5.json").write_text(json.dumps(facts("P5", ours=150.0)))
    parser = ArgumentParser()
    run = bench_command.bench_command(parser)

    to = tmp_path / "page.md"
    found = run(parser.parse_args(["table", "--results", str(tmp_path), "--page", str(to)]), lambda _: None)

    assert found.holds
    assert to.read_text().startswith("# Benchmarks\n")


def test_a_release_is_split_where_it_reached_its_states() -> None:
    reached = {
        "starting": 2_000_000,
        "proving": 5_000_000,
        "registered": 5_500_000,
        "switched": 9_000_000,
        "done": 10_000_000,
    }

    found = stages(1_000_000, reached)

    assert found == {"to starting": 1.0, "to proving": 3.0, "to registered": 0.5, "to switched": 3.5}


def test_one_that_was_taken_again_and_broke_off_stands_in_the_page(tmp_path: Path) -> None:
    """`headway bench P2 --json FILE` leaves its error alone, without the name of the benchmark."""
    (tmp_path / "p10.json").write_text(json.dumps(facts("P10", ours=150.0)))
    (tmp_path / "p2.json").write_text(json.dumps({"holds": False, "error": "no broker", "kind": "PermanentFailure"}))

    results = sequence.read_results(tmp_path)

    assert list(results) == ["P2", "P10"]
    assert any("broke off: no broker" in line for line in page(results, PURPOSES))
