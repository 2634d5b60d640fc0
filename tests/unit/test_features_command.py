"""What `headway features` refuses before it touches anything."""

from pathlib import Path

import pytest

from domains import catalogue
from domains.flights.domain import DOMAIN
from headway import cli
from headway.features.lock import read_lock


@pytest.mark.parametrize(
    ("call", "said"),
    [
        # Without --view it would bootstrap every view of the domain.
        (["bootstrap", "origin_delay.v1"], "features bootstrap: got NAME, which only `features forget` takes"),
        (["status", "--view", "origin_delay.v1"], "features status: got --view, which only `features bootstrap` and"),
        (["bootstrap", "--from", "2013"], "got --from, which only `features backfill` and `features compare` take"),
        (["compare", "--engine", "spark"], "features compare: got --engine, which only `features backfill` takes"),
        (["apply", "--reason", "because"], "features apply: got --reason, which only `features forget` takes"),
        (["lock", "--markdown"], "features lock: got --markdown, which only `features catalogue` takes"),
        (["forget", "all"], "features forget: wanted a view or `all`, then the entity"),
        (["bootstrap", "--until", "yesterday"], "--until"),
        (["bootstrap", "--view", "origin_delay.v9"], "no view 'origin_delay.v9'"),
    ],
)
def test_a_call_that_means_something_else_is_refused(
    call: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["features", *call]) == 1

    assert said in capsys.readouterr().err


def test_the_catalogue_is_told_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["features", "catalogue"]) == 0

    shown = capsys.readouterr().out
    assert "origin_delay.v1" in shown
    assert "aircraft.v1" in shown


def test_what_is_new_is_locked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = read_lock(catalogue.lock_path(DOMAIN))
    path = tmp_path / "views.lock"
    monkeypatch.setattr(catalogue, "lock_path", lambda _: path)

    said = []
    for _ in range(2):
        assert cli.main(["features", "lock"]) == 0
        said.append(capsys.readouterr().out)

    assert "origin_delay.v1: written down" in said[0]
    assert said[1] == "every view version is written down already\n"
    assert read_lock(path) == committed
