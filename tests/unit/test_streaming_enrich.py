from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import pytest

from headway.adapters.memory import MemoryBroker, SimulatedCrash
from headway.enrichment import ReferenceEnrichment
from headway.errors import DependencyDown
from headway.events import encode_event, parse_event
from headway.letters import letter_of
from headway.ports import EnrichmentAnswer, EnrichmentItem, Message
from headway.ticks import tick_before_us, tick_record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW
from streaming.handlers.enrich import EnrichHandler
from tests.streaming_world import DOMAIN, World, departed, instant


def enriched_ids(world: World) -> list[str]:
    return [parse_event(message.value or b"").id for message in world.messages(EVENTS_ENRICHED)]


def test_a_valid_event_is_enriched_and_names_the_reference_version() -> None:
    world = World()
    world.send(departed("a", at="10:00"))

    world.run()

    [message] = world.messages(EVENTS_ENRICHED)
    event = parse_event(message.value or b"")
    assert event.data == {"origin": "EWR", "dep_delay_min": 10, "region": "NY"}
    assert event.enrichmentversion == "three-airports"


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (b"\xff not json", "unparseable", "not JSON"),
        (
            encode_event(departed("a", at="10:00")).replace(b"departed", b"vanished"),
            "unknown-type",
            "flight.vanished.v1",
        ),
        (encode_event(departed("a", at="10:00", delay_min="ten")), "schema-violation", "$.dep_delay_min"),
        (encode_event(departed("a", at="10:00", origin="XXX")), "enrichment-refused", "got 'XXX'"),
    ],
)
def test_a_bad_event_becomes_one_letter_with_its_bytes_its_place_and_the_reason(
    raw: bytes, reason: str, words: str
) -> None:
    world = World()
    world.send_bytes(raw, key="EWR")

    world.run()

    [message] = world.messages(EVENTS_ENRICHED_LETTERS)
    letter = letter_of(message)
    assert (letter.reason, letter.original, letter.offset) == (reason, raw, 0)
    assert words in letter.detail
    assert enriched_ids(world) == []


def test_a_client_retry_is_dropped_and_other_content_under_the_same_id_is_a_letter() -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.send(departed("a", at="10:00"))
    world.send(departed("a", at="10:00", delay_min=99))

    world.run()

    assert enriched_ids(world) == ["a"]
    assert [letter_of(m).reason for m in world.messages(EVENTS_ENRICHED_LETTERS)] == ["id-conflict"]


def test_a_retry_is_still_recognised_after_a_restart() -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.run()
    world.send(departed("a", at="10:00"))

    world.run()

    assert enriched_ids(world) == ["a"]


def test_after_48_hours_of_event_time_an_identity_is_forgotten() -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.run()
    world.tick("10:00")
    for partition in range(4):
        later = instant("10:05") + 48 * 3_600_000_000
        world.broker.append(tick_record(EVENTS_RAW, later, partition=partition))
    world.run()
    world.send(departed("a", at="10:00"))

    world.run()

    assert enriched_ids(world) == ["a", "a"]


def test_every_event_carries_the_tick_before_it_in_its_partition_across_restarts() -> None:
    world = World()
    world.send(departed("before", at="10:00"))
    world.tick("10:05")
    world.run()
    world.send(departed("late", at="10:01"))

    world.run()

    ticks = {parse_event(m.value or b"").id: tick_before_us(m) for m in world.messages(EVENTS_ENRICHED)}
    assert ticks == {"before": None, "late": instant("10:05")}


def test_a_crash_between_writing_and_committing_leaves_each_event_once() -> None:
    world = World(broker=MemoryBroker())
    for number in range(20):
        world.send(departed(f"e{number}", at="10:00"))
    world.broker.crash_before_commit = True

    with pytest.raises(SimulatedCrash):
        world.run()
    world.run()

    assert sorted(enriched_ids(world)) == sorted(f"e{number}" for number in range(20))


def test_a_refused_transaction_restores_the_handler_instead_of_calling_the_events_duplicates() -> None:
    """State that ran ahead of the log would drop every event of the batch as a repeat of itself."""
    world = World()
    world.send(departed("a", at="10:00"))
    world.broker.refuse_commits = 1

    world.run()

    assert enriched_ids(world) == ["a"]
    assert orjson.loads(world.messages(EVENTS_ENRICHED)[0].value or b"")["id"] == "a"


@dataclass
class TwoByTwo:
    """An API that is asked for two items at once, and goes down after so many calls."""

    calls_left: int
    items_at_once: int = 2

    def enrich(self, items: Sequence[EnrichmentItem]) -> list[EnrichmentAnswer]:
        assert len(items) <= self.items_at_once
        if not self.calls_left:
            raise DependencyDown("the Enrichment API", "planted")
        self.calls_left -= 1
        return ReferenceEnrichment(DOMAIN.load_reference()).enrich(items)

    def close(self) -> None:
        pass


def test_an_api_that_goes_down_in_the_middle_of_a_batch_leaves_nothing_remembered() -> None:
    """Else the events before the gap would be taken for repeats of themselves when the batch comes again."""
    api = TwoByTwo(calls_left=1)
    handler = EnrichHandler(DOMAIN, api, lambda _topic, _partition: [])
    handler.assigned([0])
    values = [encode_event(departed(name, at="10:00")) for name in "abcde"]
    batch = [Message(EVENTS_RAW, 0, offset, b"EWR", value, (), 0) for offset, value in enumerate(values)]

    with pytest.raises(DependencyDown):
        handler.handle(batch)
    api.calls_left = 3
    again = [record for record in handler.handle(batch) if record.topic == EVENTS_ENRICHED]

    assert [parse_event(record.value or b"").id for record in again] == list("abcde")
    assert handler.duplicates == 0
