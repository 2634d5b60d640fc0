from pathlib import Path

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryReader
from headway.ports import Message
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS
from streaming.sinks.lake import LakeSink, build_lake_sink
from tests.streaming_world import DOMAIN, World, departed


class Forgetful(Lake):
    """The planted bug: a lake that does not know what it already holds."""

    def committed(self, table: str, app_id: str) -> int | None:
        del table, app_id
        return None


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
