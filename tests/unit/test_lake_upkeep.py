"""The lake's compaction as Dagster runs it: what it merges, what it says, and whom it holds up."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.resources import LakeResource
from headway.adapters.delta import Lake
from headway.errors import TransientFailure
from headway.lake import LakeTable
from orchestration.lake_upkeep import UpkeepConfig, compact, compaction_job

NAMES = ("letters", "numbers")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two tables of four files each."""
    made = Lake(tmp_path)
    for name in NAMES:
        made.create(LakeTable(name=name, columns={"n": pl.Int64()}))
        for n in range(4):
            made.append(name, pl.DataFrame({"n": [n]}))
    return made


def run(root: Path, **config: Any) -> dg.ExecuteInProcessResult:
    return compaction_job().execute_in_process(
        resources={"lake": LakeResource(root=str(root))},
        run_config={"ops": {"compact": {"config": config}}},
        raise_on_error=False,
    )


def test_every_table_has_one_file_afterwards_the_same_rows_and_its_line_in_the_metadata(
    lake: Lake, tmp_path: Path
) -> None:
    pinned = lake.version("numbers")

    result = run(tmp_path)

    assert result.success
    assert [lake.files(name) for name in NAMES] == [1, 1]
    assert sorted(lake.read("numbers")["n"]) == sorted(lake.read("numbers", version=pinned)["n"]) == [0, 1, 2, 3]
    [output] = [event.step_output_data for event in result.all_node_events if event.is_successful_output]
    assert output.metadata["files"].value == 2
    tables = output.metadata["tables"]
    assert isinstance(tables, dg.TableMetadataValue)
    assert [record.data for record in tables.records] == [
        {"table": name, "version": 5, "files_before": 4, "files": 1, "merged": 4, "deleted": 0} for name in NAMES
    ]


def test_a_lake_with_no_table_yet_is_no_failure(tmp_path: Path) -> None:
    assert run(tmp_path / "lake").success


def test_less_than_a_reader_may_need_is_refused_at_once(lake: Lake, tmp_path: Path) -> None:
    result = run(tmp_path, keep_days=6)

    assert not result.success
    [failure] = [event.step_failure_data for event in result.all_node_events if event.is_step_failure]
    assert "wanted at least 7 days" in str(failure.error)
    assert not [event for event in result.all_node_events if event.is_step_up_for_retry]
    assert lake.read("numbers").height == 4


class Busy(Lake):
    """A lake with a backfill at work in one table."""

    def compact(self, table: str) -> int:
        if table == "letters":
            raise TransientFailure("lake table letters: another writer came first; repeat")
        return super().compact(table)


class BusyResource(LakeResource):
    def open(self) -> Lake:
        return Busy(Path(self.root))


def test_a_table_another_writer_changes_is_tried_again_and_holds_up_no_other(lake: Lake, tmp_path: Path) -> None:
    """Raised from the step, so that its retry policy takes it."""
    assert compact.retry_policy is not None
    assert compact.retry_policy.max_retries == 3

    with pytest.raises(TransientFailure, match="lake table letters"):
        compact(dg.build_op_context(), UpkeepConfig(), BusyResource(root=str(tmp_path)))

    assert [lake.files(name) for name in NAMES] == [4, 1]
