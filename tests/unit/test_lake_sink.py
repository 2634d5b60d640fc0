from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import polars as pl
import pytest

from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryReader
from headway.errors import TransientFailure
from headway.ports import Message
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS
from streaming.sinks.lake import FLUSH_BYTES, LakeSink, build_lake_sink
from tests.streaming_world import DOMAIN, World, departed


class Forgetful(Lake):
    """The planted bug: a lake that does not know what it already holds, nor asks when it writes."""

    def committed(self, table: str, app_id: str) -> int | None:
        del table, app_id
        return None

    def append_each_once(
        self,
        table: str,
        batches: Mapping[str, tuple[int, pl.DataFrame]],
        *,
        after: Mapping[str, int | None] | None = None,
    ) -> frozenset[str]:
        del after
        return super().append_each_once(table, batches)


class Overtaken(Lake):
    """A lake that another loader writes to, the moment this one has read what it holds."""

    def __init__(self, root: Path, other: Callable[[], object]) -> None:
        super().__init__(root)
        self._other: Callable[[], object] | None = other

    def committed(self, table: str, app_id: str) -> int | None:
        held = super().committed(table, app_id)
        if self._other is not None:
            other, self._other = self._other, None
            other()
        return held


def sink(root: Path) -> LakeSink:
    return build_lake_sink(DOMAIN, [], str(root))


def enriched(world: World) -> list[Message]:
    world.run()
    return list(MemoryReader(world.broker).read(EVENTS_ENRICHED))


def load(loader: LakeSink, messages: list[Message]) -> None:
    loader.offer(messages)
    loader.flush()


def test_events_become_rows_with_their_place_and_ticks_become_none(tmp_path: Path) -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.tick("10:05")
    world.send(departed("late", at="10:01"))

    load(sink(tmp_path), enriched(world))

    rows = Lake(tmp_path).read("events").sort("time")
    assert rows["id"].to_list() == ["a", "late"]
    assert rows["too_late"].to_list() == [False, False]
    assert rows["tick_before"].is_null().to_list() == [True, False]
    assert rows["raw_offset"].null_count() == 0


def test_letters_are_rows_with_their_reason(tmp_path: Path) -> None:
    world = World()
    world.send(departed("a", at="10:00", origin="XXX"))
    world.run()

    load(sink(tmp_path), list(MemoryReader(world.broker).read(EVENTS_ENRICHED_LETTERS)))

    assert Lake(tmp_path).read("letters")["reason"].to_list() == ["enrichment-refused"]


def test_records_that_come_again_in_other_batches_make_no_second_row(tmp_path: Path) -> None:
    """A crash between the Delta commit and the Kafka commit; the next batch is longer than the one written."""
    world = World()
    for number in range(10):
        world.send(departed(f"e{number}", at="10:00"))
    messages = enriched(world)
    load(sink(tmp_path), messages[:4])

    load(sink(tmp_path), messages)

    assert Lake(tmp_path).read("events")["id"].n_unique() == 10
    assert Lake(tmp_path).read("events").height == 10


def test_a_lake_that_forgets_what_it_holds_is_found_out_by_the_same_claim(tmp_path: Path) -> None:
    world = World()
    for number in range(10):
        world.send(departed(f"e{number}", at="10:00"))
    messages = enriched(world)
    planted = LakeSink(Forgetful(tmp_path), sink(tmp_path).loads)
    load(planted, messages[:4])

    load(planted, messages)

    assert Lake(tmp_path).read("events").select(pl.len()).item() == 14


def test_a_loader_that_lost_its_partition_while_it_worked_writes_nothing(tmp_path: Path) -> None:
    """The new owner has written a shorter batch meanwhile, so the old one's is newer by its last offset, and overlaps."""
    world = World()
    for number in range(10):
        world.send(departed(f"e{number}", at="10:00"))
    messages = enriched(world)
    owner = sink(tmp_path)
    zombie = LakeSink(Overtaken(tmp_path, lambda: load(owner, messages[:4])), owner.loads)

    with pytest.raises(TransientFailure, match="another writer"):
        load(zombie, messages)
    load(owner, messages)

    assert sorted(f"e{number}" for number in range(10)) == sorted(Lake(tmp_path).read("events")["id"])


def test_a_buffer_of_large_events_is_due_by_its_bytes(tmp_path: Path) -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    (message,) = enriched(world)
    loader = sink(tmp_path)

    loader.offer([msgspec.structs.replace(message, value=b"x" * FLUSH_BYTES)])

    assert loader.due(0.0)
