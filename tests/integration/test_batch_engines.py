"""A batch on Spark's real session: the rows of a batch in this process, to the bit, in a lake of both."""

from pathlib import Path

import pytest

from tests.batch_world import lake_of, poison
from tests.free_ports import free_block
from tests.spark_world import run_script

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_spark_and_this_process_write_the_same_rows_and_refuse_the_same(tmp_path: Path) -> None:
    poison(lake_of(tmp_path / "lake"), 2)

    found = run_script("on_both_engines", state=tmp_path, port_base=free_block(), module="batch_world")

    assert found["equal"]
    assert (found["rows"] > 1500, found["pieces"] > 1, found["scores"] > 2) == (True, True, True)
    assert found["runs"] == ["run-2"]
    assert [reason[:16] for reason in found["refused"]] == ["dest: got 'XXX',"] * 2
    assert not list((tmp_path / "lake" / ".staging").iterdir())
