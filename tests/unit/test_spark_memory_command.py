"""The command, as far as it needs no Spark."""

import json
from pathlib import Path

import pytest

from headway.cli import main


def test_a_plan_is_printed_with_every_segment_and_its_sums(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["spark-memory", "plan", "--heap", "4g", "--deployment", "kubernetes", "--off-heap", "1g"])

    said = capsys.readouterr().out
    assert code == 0
    for name in (
        "reserved",
        "user",
        "storage",
        "execution",
        "off-heap storage",
        "overhead",
        "2,277.6 MiB",
        "container",
    ):
        assert name in said
    assert all(len(line) <= 132 for line in said.splitlines())


def test_a_plan_as_json_holds_the_properties_that_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["spark-memory", "plan", "--heap", "1g", "--rows", "9000000", "--json"])

    facts = json.loads(capsys.readouterr().out)
    assert (code, facts["unified_bytes"], facts["forecast"]["verdict"]) == (0, 455_501_414, "spills")
    assert facts["properties"]["spark.driver.memory"] == "1024m"


def test_a_refused_plan_says_rule_field_got_wanted_and_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["spark-memory", "plan", "--heap", "449m", "--fraction", "1.5"])

    said = capsys.readouterr().out
    assert code == 1
    assert "heap-minimum: heap is 449 MiB, wanted at least 450 MiB" in said
    assert "memory-fraction: spark.memory.fraction is 1.5, wanted above 0, at most 0.9" in said
    assert "Leave it at 0.6" in said


def test_a_size_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spark-memory", "plan", "--heap", "4096"]) == 1
    assert "wanted a whole number and its unit" in capsys.readouterr().err


@pytest.mark.parametrize("cores", ["0", "-1"])
def test_an_executor_without_cores_is_refused_by_the_rule(cores: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spark-memory", "plan", "--cores", cores]) == 1
    assert f"cores: spark.executor.cores is {cores}, wanted at least 1" in capsys.readouterr().out


def test_a_wrong_setting_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWAY_SPARK_MASTER", "yarn")

    assert main(["spark-memory", "plan"]) == 1
    assert "HEADWAY_SPARK_MASTER: Value error, got 'yarn', wanted local" in capsys.readouterr().err


def test_a_plan_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plan.png"

    assert main(["spark-memory", "plan", "--heap", "2g", "--picture", str(picture)]) == 0

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in capsys.readouterr().out


def test_nothing_answering_at_an_address_is_told_as_that(capsys: pytest.CaptureFixture[str]) -> None:
    """Port 9 of loopback discards what it is sent, where anything listens at all."""
    assert main(["spark-memory", "compare", "--url", "http://127.0.0.1:9"]) == 1
    assert "Spark driver is down" in capsys.readouterr().err


def test_without_a_run_there_is_nothing_to_advise_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path))

    assert main(["spark-memory", "advise"]) == 1
    assert "none in" in capsys.readouterr().err
