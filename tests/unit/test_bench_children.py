"""Processes of a benchmark end with the block that started them."""

from pathlib import Path

from benchmarks.children import child
from headway.local.processes import identify, is_alive

# Starts a process of its own, which does not care that this one ends.
SERVER = "sleep 300 & echo $! > grandchild.new; mv grandchild.new grandchild; trap 'exit 0' TERM; wait"


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "grandchild"

    with child("server", ["sh", "-c", SERVER], folder=tmp_path, ready=told.exists):
        grandchild = identify(int(told.read_text()))
        assert grandchild is not None
        assert is_alive(grandchild)

    assert not is_alive(grandchild)
