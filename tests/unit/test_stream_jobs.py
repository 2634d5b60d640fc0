"""The job table and what else knows of its jobs."""

from pathlib import Path

import pytest

from headway.adapters.kafka_backlog import GroupBacklog
from headway.errors import PermanentFailure
from headway.local.instances import Instances
from headway.local.stack import PARTS, STREAM_JOBS
from headway.scaling import ALONE
from headway.settings import Settings
from headway.topics import PARTITIONS
from streaming import main
from streaming.jobs import JOBS, find_job
from streaming.scaler import for_instances


def test_the_stack_starts_every_job_of_the_table_in_its_order() -> None:
    """A job's port is its place in the table; the core may not import the table, so the names stand twice."""
    assert [job.name for job in JOBS] == list(STREAM_JOBS)


def test_every_job_may_have_an_instance_per_partition_but_those_that_say_why_not(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    scalables = [each for part in PARTS for each in part.scalable(settings)]
    instances = Instances(scalables, file=tmp_path / "instances.json")

    assert {each.name: each.most for each in scalables} == {
        job.name: PARTITIONS if job.alone is None else 1 for job in JOBS
    }
    assert {job.name: job.alone for job in JOBS if job.alone} == ALONE
    with pytest.raises(PermanentFailure, match="letters-watch: got 2 instances, wanted 1: it compares all letters"):
        instances.want("letters-watch", 2, held=True)


def test_a_second_instance_of_a_job_that_runs_alone_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["streaming.main", "letters-watch", "--instance", "1"])

    with pytest.raises(SystemExit, match="2"):
        main.main()

    assert "letters-watch --instance: got 1, wanted 0, as it runs alone: it compares" in capsys.readouterr().err


def test_the_scaler_knows_one_share_of_a_job_that_runs_alone() -> None:
    backlog = GroupBacklog(written=9, done=0, places=8, partitions=4)

    assert for_instances(backlog, find_job("letters-watch")).partitions == 1
    assert for_instances(backlog, find_job("enricher")) == backlog
