"""What a command's own logs may not do: stand where its result is."""

import os

import pytest
import structlog

from headway.adapters.mlflow import tame_client
from headway.logs import show_warnings_only


def test_a_command_shows_warnings_beside_its_result_and_nothing_less(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings_only()
    try:
        log = structlog.get_logger()
        log.info("version ready")
        log.warning("store is slow")
    finally:
        structlog.reset_defaults()

    told = capsys.readouterr()
    assert told.out == ""
    assert "store is slow" in told.err
    assert "version ready" not in told.err


def test_mlflows_client_is_tamed_unless_its_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"})

    tame_client()

    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert (os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"], os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"]) == (
        "2",
        "false",
    )
