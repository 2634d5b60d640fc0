from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.adapters.memory import MemoryLog, MemoryReader
from headway.adapters.memory_search import MemorySearch
from headway.clock import duration_us, parse_instant_us
from headway.errors import DependencyDown, TransientFailure
from headway.events import Event, encode_event
from headway.letters import letter_of
from headway.ports import Message, Record
from headway.search import (
    EVENTS_PATTERN,
    LETTERS_PATTERN,
    event_id,
    event_template,
    letter_template,
    scan_events,
)
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW_LETTERS
from streaming.runtime import SinkWorker
from streaming.sinks.search import SearchSink
from tests.streaming_world import DOMAIN, World, departed

TODAY = "2026-11-22"
DAY_US = duration_us(timedelta(days=1))
TOPICS = [EVENTS_ENRICHED, EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS]


def received(event: Event, *, at: str = f"{TODAY}T10:00:00Z") -> Event:
    return msgspec.structs.replace(event, receivedat_us=parse_instant_us(at, field="receivedat"))


def append_enriched(world: World, event: Event, *, raw_offset: int = 0, **data: object) -> None:
    """Write to events.enriched what no Enricher would: it is a topic like any other."""
    changed = msgspec.structs.replace(event, data={**event.data, **data})
    headers = (("ce_type", event.type.encode()), ("raw_offset", b"%d" % raw_offset))
    world.broker.append(
        Record(topic=EVENTS_ENRICHED, key=event.subject.encode(), value=encode_event(changed), headers=headers)
    )


def load(world: World, index: MemorySearch, *, polls: int = 3) -> None:
    """Run a loader as a process would, for some polls, the last of which find nothing new but its own letters."""
    for _ in range(polls):
        worker = SinkWorker(SearchSink(index, DOMAIN))
        log = MemoryLog(
            world.broker,
            group="search",
            topics=TOPICS,
            on_assign=lambda owned: worker.assigned([each.partition for each in owned]),  # noqa: B023
            on_revoke=lambda owned: worker.revoked([each.partition for each in owned]),  # noqa: B023
        )
        left = iter([False, False, True])
        worker.run(log, stopped=lambda: next(left))  # noqa: B023
        log.close()


def sink_letters(world: World) -> list[Message]:
    return [m for m in MemoryReader(world.broker).read(EVENTS_ENRICHED_LETTERS) if letter_of(m).kind == "sink"]


def offer(index: MemorySearch, messages: Sequence[Message]) -> None:
    sink = SearchSink(index, DOMAIN)
    sink.offer(messages)
    sink.flush()


def test_an_enriched_event_is_a_document_of_its_day_with_its_places() -> None:
    world, index = World(), MemorySearch()
    world.send(received(departed("a", at="10:00")))
    world.tick("10:05")
    world.run()

    load(world, index)

    (found,) = index.scan(
        EVENTS_PATTERN, fields=["id", "region", "dep_delay_min", "raw_offset", "topic", "tick_before"]
    )
    assert (found.index, found.id) == ("events-2026.11.22", "a@/small")
    assert found.fields == {"id": "a", "region": "NY", "dep_delay_min": 10, "raw_offset": 0, "topic": EVENTS_ENRICHED}


def test_letters_of_both_topics_are_documents_under_their_places() -> None:
    world, index = World(), MemorySearch()
    world.send(departed("a", at="10:00", origin="XXX"))
    world.run()
    world.broker.append(
        Record(topic=EVENTS_RAW_LETTERS, key=None, value=b"\xff", headers=(("letter_reason", b"invalid-envelope"),))
    )

    load(world, index)

    found = {
        each.fields["reason"]: each
        for each in index.scan(LETTERS_PATTERN, fields=["reason", "original", "original_base64", "raw_offset", "kind"])
    }
    assert found["enrichment-refused"].id.startswith(f"{EVENTS_ENRICHED_LETTERS}-")
    assert found["enrichment-refused"].fields["raw_offset"] == 0
    assert '"XXX"' in found["enrichment-refused"].fields["original"]
    assert found["invalid-envelope"].fields["original_base64"] == "/w=="


def test_a_record_that_comes_again_makes_no_second_document() -> None:
    world, index = World(), MemorySearch()
    for number in range(10):
        world.send(received(departed(f"e{number}", at="10:00")))
    world.run()
    messages = list(MemoryReader(world.broker).read(EVENTS_ENRICHED))
    offer(index, messages[:4])

    offer(index, messages)

    assert index.count(EVENTS_PATTERN) == 10


def test_an_event_repeated_on_another_day_stays_one_document() -> None:
    """The Enricher forgets an id after 48 hours of event time, and the next day is another index."""
    world, index = World(), MemorySearch()
    append_enriched(world, received(departed("a", at="10:00")), raw_offset=0)
    load(world, index)

    append_enriched(world, received(departed("a", at="10:00"), at="2026-11-25T10:00:00Z"), raw_offset=7)
    append_enriched(world, received(departed("b", at="10:00"), at="2026-11-25T10:00:00Z"), raw_offset=8)
    load(world, index)

    assert {("a", 0), ("b", 8)} == {(event.id, event.raw_offset) for event in scan_events(index)}


def test_a_value_the_index_cannot_hold_is_a_sink_letter_and_its_neighbours_are_documents() -> None:
    world, index = World(), MemorySearch()
    append_enriched(world, received(departed("a", at="10:00")))
    append_enriched(world, received(departed("bad", at="10:00")), raw_offset=4, dep_delay_min="ten")
    append_enriched(world, received(departed("c", at="10:00")), raw_offset=5)

    load(world, index)

    assert {"a", "c"} == {event.id for event in scan_events(index)}
    (message,) = sink_letters(world)
    letter = letter_of(message)
    assert (letter.reason, letter.stage, letter.topic, letter.offset) == (
        "mapping",
        "search-loader",
        EVENTS_ENRICHED,
        1,
    )
    assert "dep_delay_min" in letter.detail
    assert letter.raw_place == (message.partition, 4)
    assert [each.fields["reason"] for each in index.scan(LETTERS_PATTERN, fields=["reason"])] == ["mapping"]


VANISHED = encode_event(msgspec.structs.replace(departed("x", at="10:00"), type="flight.vanished.v1"))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (b"no json", "event"),
        (VANISHED, "type"),
        (encode_event(departed("x", at="10:00")), "raw_offset"),
        (None, "event"),
    ],
)
def test_a_strangers_record_among_the_enriched_is_a_sink_letter(value: bytes | None, names: str) -> None:
    world, index = World(), MemorySearch()
    world.broker.append(Record(topic=EVENTS_ENRICHED, key=b"EWR", value=value))

    load(world, index)

    (message,) = sink_letters(world)
    assert letter_of(message).detail.startswith(names)
    assert index.count(EVENTS_PATTERN) == 0


def test_a_strangers_record_among_the_letters_is_shown() -> None:
    world, index = World(), MemorySearch()
    world.broker.append(Record(topic=EVENTS_RAW_LETTERS, key=None, value=b"hello"))

    load(world, index)

    (found,) = index.scan(LETTERS_PATTERN, fields=["reason", "original"])
    assert found.fields == {"reason": "unparseable", "original": "hello"}


def test_while_the_index_is_away_nothing_is_committed_and_afterwards_nothing_is_missing() -> None:
    world, index = World(), MemorySearch()
    for number in range(10):
        append_enriched(world, received(departed(f"e{number}", at="10:00")), raw_offset=number)
    index.away = True
    sink = SearchSink(index, DOMAIN)
    sink.offer(list(MemoryReader(world.broker).read(EVENTS_ENRICHED)))

    with pytest.raises(TransientFailure):
        sink.flush()
    sink.drop()
    index.away = False
    load(world, index)

    assert index.count(EVENTS_PATTERN) == 10


def test_an_index_that_refuses_everything_is_our_fault_and_makes_no_letters() -> None:
    """Somebody put a template by hand in which minutes are a date: 600 letters would blame the producers."""
    world, index = World(), MemorySearch()
    for number in range(600):
        append_enriched(world, received(departed(f"e{number}", at="10:00")), raw_offset=number)
    sink = SearchSink(index, DOMAIN)
    sink._declare()
    index._templates["headway-events"] = replace(
        event_template(DOMAIN), fields={**event_template(DOMAIN).fields, "dep_delay_min": "date"}
    )
    sink.offer(list(MemoryReader(world.broker).read(EVENTS_ENRICHED)))

    with pytest.raises(DependencyDown, match="600 of 600"):
        sink.flush()


def test_hours_are_scanned_by_the_time_of_receipt() -> None:
    world, index = World(), MemorySearch()
    for hour in (9, 10, 11):
        append_enriched(
            world, received(departed(f"at{hour}", at="01:00"), at=f"{TODAY}T{hour:02}:30:00Z"), raw_offset=hour
        )
    load(world, index)
    ten_us = parse_instant_us(f"{TODAY}T10:00:00Z", field="ten")

    (event,) = scan_events(index, start_us=ten_us, end_us=ten_us + DAY_US // 24)

    assert ("at10", 10, ten_us + DAY_US // 48) == (event.id, event.raw_offset, event.received_us)


@given(first=st.tuples(st.text(), st.text()), second=st.tuples(st.text(), st.text()))
def test_two_events_never_share_a_name(first: tuple[str, str], second: tuple[str, str]) -> None:
    assert (event_id(*first) == event_id(*second)) == (first == second)


def test_a_name_is_readable_and_never_longer_than_a_store_takes() -> None:
    assert event_id("/flights", "2013-07-01/EWR-UA-1") == "2013-07-01%2FEWR-UA-1@/flights"
    assert len(event_id("/flights", "x" * 1024)) <= 512
    assert len(event_id("/" * 300, "é" * 1024)) <= 512


def test_every_column_of_the_lake_is_a_field_with_its_type() -> None:
    fields = event_template(DOMAIN).fields

    assert (fields["dep_delay_min"], fields["receivedat"], fields["region"]) == ("long", "date", "keyword")
    assert letter_template().fields["original"] == "stored"
