import ast
import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from headway import cli
from headway.commands import Outcome, Run, Say
from headway.errors import PermanentFailure


def finding_command(parser: ArgumentParser) -> Run:
    parser.add_argument("--holds", action="store_true")

    def run(arguments: Namespace, say: Say) -> Outcome:
        say("working")
        return Outcome(holds=arguments.holds, facts={"n": 3}, lines=["found 3"])

    return run


def failing_command(_parser: ArgumentParser) -> Run:
    def run(_arguments: Namespace, _say: Say) -> Outcome:
        raise PermanentFailure("disk: full. Free some.")

    return run


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        cli.Entry("find", f"{__name__}:finding_command", "find things"),
        cli.Entry("fail", f"{__name__}:failing_command", "fail"),
        cli.Entry("broken", "no.such.module:at_all", "cannot be imported"),
    )
    monkeypatch.setattr(cli, "COMMANDS", entries)


def test_the_exit_code_is_0_only_when_what_is_checked_holds() -> None:
    assert cli.main(["find", "--holds"]) == 0
    assert cli.main(["find"]) == 1


def test_the_overview_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0

    shown = capsys.readouterr().out
    assert all(entry.name in shown and entry.summary in shown for entry in cli.COMMANDS)


def test_json_takes_the_place_of_text_and_progress_goes_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["find", "--json"])

    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"holds": False, "n": 3}
    assert shown.err == "working\n"


def test_json_in_a_file_leaves_the_text_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["find", "--holds", "--json", str(tmp_path / "found.json")])

    assert json.loads((tmp_path / "found.json").read_text()) == {"holds": True, "n": 3}
    assert capsys.readouterr().out == "working\nfound 3\n"


def test_a_failure_we_explain_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fail", "--json"]) == 1

    shown = capsys.readouterr()
    assert shown.err == "headway fail: disk: full. Free some.\n"
    assert json.loads(shown.out) == {"holds": False, "error": "disk: full. Free some.", "kind": "PermanentFailure"}


def test_a_misspelt_command_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fnid"]) == 2

    assert "did you mean `headway find`?" in capsys.readouterr().err


def test_every_command_of_the_table_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    for entry in cli.COMMANDS:
        assert callable(entry.load()(ArgumentParser()))


def test_help_answers_within_a_third_of_a_second() -> None:
    """Processor time of the whole process, as the wall clock of a busy machine says nothing about us."""
    command = [
        sys.executable,
        "-c",
        "import time; from headway.cli import main; main(['--help']); print(time.process_time())",
    ]

    best = min(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in range(3)
    )

    assert best <= 0.3


def test_the_command_line_imports_nothing_but_the_standard_library_and_itself() -> None:
    for module in (cli.__file__, sys.modules["headway.commands"].__file__):
        tree = ast.parse(Path(str(module)).read_text())
        names = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}

        assert all(name.split(".")[0] in {*sys.stdlib_module_names, "headway"} for name in names if name)
