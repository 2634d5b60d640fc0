"""Forgetting an entity: what computes it, what is served of it and what the lake holds of it are gone; the rest stays."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from prometheus_client import CollectorRegistry

from domains.flights.dimensions import PLANES
from domains.flights.statics import AIRCRAFT
from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryPublisher
from headway.adapters.memory_online import MemoryOnlineStore
from headway.adapters.redis_online import OnlineAnswer, OnlineRequest
from headway.clock import SystemClock
from headway.errors import InputRejected, TransientFailure
from headway.features.changelog import changelog_table, streamed_changelog, truth_table
from headway.features.state import TileKey, parse_key
from headway.features.wire import decode_row
from headway.ports import TopicPartition
from headway.ticks import is_watermark
from headway.topics import PARTITIONS, features_topic, state_topic
from streaming.forgetting import (
    FORGOTTEN,
    Stores,
    also_named_by,
    entity_digest,
    forget_entity,
    parse_entity,
    remaining,
    views_of,
)
from streaming.freshness import ViewFreshness
from streaming.refreshing import refresh_static
from streaming.sinks.online import OnlineSink
from tests.streaming_world import DELAY, DOMAIN, World, departed, instant

CHANGELOG, TABLE = features_topic(DELAY.qualified), changelog_table(DELAY)
EWR, JFK = {"origin": "EWR"}, {"origin": "JFK"}
BOTH = replace(DELAY, name="both", keys=("origin", "region"))


class Plane:
    """Two airports whose rows were streamed, applied online and loaded into the lake."""

    def __init__(self, root: Path) -> None:
        self.world, self.online, self.lake = World(), MemoryOnlineStore(), Lake(root)
        self.lake.create(TABLE)
        self.world.send(departed("a", at="10:02", origin="EWR"))
        self.world.send(departed("b", at="10:03", origin="JFK"))
        self.world.tick("10:05")
        self.world.run()
        self.done: dict[TopicPartition, int] = {}
        self.apply()

    def apply(self) -> None:
        """Run both writers to the end of the changelog."""
        messages = [
            message
            for message in self.world.reader.read(CHANGELOG)
            if message.offset >= self.done.get(TopicPartition(CHANGELOG, message.partition), 0)
        ]
        freshness = ViewFreshness(DOMAIN, registry=CollectorRegistry(), clock=SystemClock())
        sink = OnlineSink(DOMAIN, self.online, freshness)
        sink.offer(messages)
        sink.flush()
        self.lake.append(TABLE.name, streamed_changelog(DELAY, messages))
        for message in messages:
            self.done[TopicPartition(CHANGELOG, message.partition)] = message.offset + 1

    @property
    def stores(self) -> Stores:
        return Stores(
            log=self.world.reader,
            applied=lambda _: self.done,
            publisher=MemoryPublisher(self.world.broker),
            online=self.online,
            lake=self.lake,
        )

    def forget(self, keys: Mapping[str, str] = EWR) -> tuple[int, int, int]:
        [done] = forget_entity([DELAY], keys, self.stores, reason="asked to", by="tests", at_us=instant("11:00"))
        return done.state_records, done.online_fields, done.lake_rows

    def read(self, keys: Mapping[str, str]) -> OnlineAnswer:
        request = OnlineRequest(view=DELAY.online_name, keys=keys, features=("count_1h",))
        return asyncio.run(self.online.read([request]))[0]

    def states(self) -> set[str]:
        """Airports that state records name."""
        records = [r for p in range(PARTITIONS) for r in self.world.reader.read_compacted(state_topic("delay.v1"), p)]
        parsed = [parse_key(record.key or b"") for record in records]
        return {each.key[0] for each in parsed if isinstance(each, TileKey)}

    def lake_rows(self, origin: str) -> int:
        return self.lake.read(TABLE.name, predicate=pl.col("origin") == origin).height


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path / "lake")


def test_what_was_backfilled_for_analysis_of_an_entity_goes_too(plane: Plane) -> None:
    truth = truth_table(DELAY)
    plane.lake.create(truth)
    plane.lake.append(truth.name, plane.lake.read(TABLE.name))

    assert plane.forget() == (1, 4, 2)
    assert plane.lake.read(truth.name)["origin"].to_list() == ["JFK"]


def test_an_entity_is_gone_from_state_store_and_lake_and_others_stay(plane: Plane) -> None:
    assert plane.forget() == (1, 4, 1)

    assert plane.states() == {"JFK"}
    assert plane.read(EWR).event_timestamp_us is None
    assert plane.read(JFK).values == (1,)
    assert (plane.lake_rows("EWR"), plane.lake_rows("JFK")) == (0, 1)


def test_a_forgotten_entity_does_not_come_back_with_time(plane: Plane) -> None:
    """Its windows would expire a while later, each with a row; a job that starts again must not know them."""
    plane.forget()
    plane.world.tick("11:10")
    plane.world.run()
    plane.apply()

    expired = [decode_row(m.value or b"").key for m in plane.world.messages(CHANGELOG) if not is_watermark(m)]
    assert expired.count(("JFK",)) == 2
    assert expired.count(("EWR",)) == 1
    assert plane.read(EWR).event_timestamp_us is None
    assert plane.lake_rows("EWR") == 0


def test_without_the_state_being_forgotten_it_would_come_back(plane: Plane) -> None:
    """The planted bug: online and lake alone."""
    plane.online.forget(DELAY.online_name, EWR, tuple(DELAY.columns))
    plane.lake.delete(TABLE.name, "origin = 'EWR'")
    plane.world.tick("11:10")
    plane.world.run()
    plane.apply()

    assert plane.read(EWR).event_timestamp_us == instant("11:05")
    assert plane.lake_rows("EWR") == 1


def test_a_new_event_is_counted_from_nothing(plane: Plane) -> None:
    plane.forget()
    plane.world.send(departed("c", at="10:07", origin="EWR"))
    plane.world.run()
    plane.apply()

    assert plane.read(EWR).values == (1,)


def test_rows_that_wait_to_be_applied_are_a_reason_to_wait(plane: Plane) -> None:
    plane.world.send(departed("c", at="10:07", origin="EWR"))
    plane.world.run()

    with pytest.raises(TransientFailure, match=r"1 rows of this entity wait in features\.delay\.v1"):
        plane.forget()
    assert plane.read(EWR).values == (1,)
    plane.forget(JFK)

    plane.apply()
    assert plane.forget() == (2, 4, 2)


def test_what_was_done_is_recorded_and_does_not_name_the_entity(plane: Plane) -> None:
    plane.forget()
    plane.forget()

    first, again = plane.lake.read(FORGOTTEN.name).sort("online_fields", descending=True).to_dicts()
    assert (first["view"], first["reason"], first["by"]) == ("delay.v1", "asked to", "tests")
    assert (first["state_records"], first["online_fields"], first["lake_rows"]) == (1, 4, 1)
    assert (again["state_records"], again["online_fields"], again["lake_rows"]) == (0, 0, 0)
    assert first["entity"] == again["entity"] == entity_digest(DELAY, EWR)
    assert "EWR" not in str(first)


def test_older_versions_of_the_table_still_hold_it(plane: Plane) -> None:
    """Said where the command is described, and by the command."""
    [done] = forget_entity([DELAY], EWR, plane.stores, reason="asked to", by="tests", at_us=instant("11:00"))

    assert done.lake_version is not None
    before = plane.lake.read(TABLE.name, version=done.lake_version - 1)
    assert before.filter(pl.col("origin") == "EWR").height == 1
    assert any("lake compact" in line for line in remaining([DELAY]))


def test_a_quote_in_a_name_ends_no_predicate(plane: Plane) -> None:
    plane.forget({"origin": "X' OR 'a' = 'a"})

    assert (plane.lake_rows("EWR"), plane.lake_rows("JFK")) == (1, 1)


def test_no_reason_is_refused(plane: Plane) -> None:
    with pytest.raises(InputRejected, match="reason: got none"):
        forget_entity([DELAY], EWR, plane.stores, reason=" ", by="tests", at_us=0)
    assert plane.read(EWR).values == (1,)


@pytest.mark.parametrize("given", [["EWR"], ["origin="], ["=EWR"], ["origin=EWR", "origin=JFK"]])
def test_an_entity_that_is_not_named_is_refused(given: list[str]) -> None:
    with pytest.raises(InputRejected, match="wanted NAME=VALUE"):
        parse_entity(given)


def test_all_means_the_views_whose_entity_it_is() -> None:
    views = [DELAY, replace(DELAY, version=2), BOTH]

    assert [view.qualified for view in views_of(views, "all", EWR)] == ["delay.v1", "delay.v2"]
    assert [view.qualified for view in views_of(views, "delay.v2", EWR)] == ["delay.v2"]
    assert also_named_by(views, EWR) == ["both.v1"]
    with pytest.raises(
        InputRejected, match=r"no view 'both\.v1' of entity \['origin'\]; there are: delay\.v1 \(origin\)"
    ):
        views_of(views, "both.v1", EWR)


def test_what_remains_is_told_with_how_long() -> None:
    told = remaining([DELAY])

    assert any("events.* for 7 days, features.input for 3 days" in line for line in told)
    assert "its changelog rows: topic features.delay.v1 for 7 days" in told
    assert told[-1].startswith("an event, bootstrap or backfill that names it computes it anew")


def test_a_static_view_is_forgotten_too_until_its_next_load(plane: Plane) -> None:
    rows = pl.DataFrame({"tail": ["A", "B"], "built_year": [1999, 2001], "seats": [149, 20]})
    planes = replace(PLANES, columns={n: PLANES.columns[n] for n in ("built_year", "seats")}, load=lambda: rows)
    view = AIRCRAFT
    refresh_static(view, planes, lake=plane.lake, online=plane.online, marks=plane.online, at_us=instant("10:00"))

    [done] = forget_entity([view], {"tail": "A"}, plane.stores, reason="asked to", by="tests", at_us=instant("11:00"))

    assert (done.state_records, done.online_fields, done.lake_rows) == (0, 4, 1)
    assert plane.lake.read(changelog_table(view).name)["tail"].to_list() == ["B"]
    assert "its row in the warehouse: the next load of aircraft.v1 brings it back" in remaining([view])
