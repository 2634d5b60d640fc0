"""The five paths beside each other, Spark's real session among them: equal bits, and every receipt computes again."""

from pathlib import Path
from typing import Any

import pytest

from tests.free_ports import free_block
from tests.path_world import REVISION, ROWS, in_this_process
from tests.spark_world import run_script

pytestmark = pytest.mark.integration


def test_every_path_of_this_process_gives_the_same_bits_and_receipts_of_all_of_them_compute_again(
    tmp_path: Path,
) -> None:
    check(in_this_process(tmp_path), ["rest", "grpc", "stream", "batch"], receipts=100)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_five_paths_give_the_same_bits_and_a_thousand_receipts_of_them_compute_again(tmp_path: Path) -> None:
    found = run_script("with_spark", state=tmp_path, port_base=free_block(), module="path_world")

    check(found, ["rest", "grpc", "stream", "batch", "spark"], receipts=1_000)


def check(found: dict[str, Any], paths: list[str], *, receipts: int) -> None:
    assert found["parity"] == {"paths": paths, "rows": ROWS, "held": True, "first": []}
    sources = ["request", *paths[1:]]
    sample = found["sample"]
    assert (sample["holds"], sample["paths"]) == (True, dict.fromkeys(sources, receipts // len(paths))), sample
    assert sample["greatest_difference"] == 0.0
    for told in found["origins"].values():
        assert (told["revision"], told["origin"]["offset"]) == (REVISION, REVISION - 1)
        assert told["event_time"].startswith("2013-01")
