"""R6's kinds through the real Enricher on the in-memory log; chaos drives the same kinds through the real plane."""

from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryBroker
from headway.clock import parse_instant_us
from headway.enrichment import CachedEnrichment, ReferenceEnrichment
from headway.events import Event, encode_event, parse_event
from headway.letters import letter_of
from headway.ports import Record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW
from orchestration.chaos.hostile import plant, react
from orchestration.chaos.poison import Kind, Poison, hostile_kinds, kinds
from orchestration.chaos.poison_verdict import judge_letters, read_poison_letters
from orchestration.chaos.poisoner import WRITTEN_SCHEMA
from streaming.accounts import Stores, digest_of, read_books
from streaming.handlers.enrich import EnrichHandler
from tests.streaming_world import World

KINDS = kinds()
REFERENCE = DOMAIN.load_reference()


def departed(number: int) -> Event:
    return Event(
        id=f"good-{number}",
        source=DOMAIN.source,
        type="flight.departed.v1",
        subject="UA1545",
        time_us=parse_instant_us("2013-01-01T10:17:00Z", field="time") + number,
        data={**(DOMAIN.contract("flight.departed.v1").example or {}), "flight": 1 + number % 9999},
    )


def sent(order: list[Kind]) -> tuple[World, list[tuple[Kind, Poison, int]], list[str]]:
    """A world with good events around every poison, in one partition; poison with its place, and the good ids."""
    world = World(domain=DOMAIN, broker=MemoryBroker())
    poisons, good = [], []
    for number, kind in enumerate(order):
        event = departed(number)
        if kind.after_good:
            world.broker.append(poison_free(event))
            good.append(event.id)
        poison = kind.make(event)
        position = world.broker.append(poison.record(partition=0))
        poisons.append((kind, poison, position.offset))
        after = msgspec.structs.replace(departed(number), id=f"after-{number}")
        world.broker.append(poison_free(after))
        good.append(after.id)
    return world, poisons, good


def poison_free(event: Event) -> Record:
    return Poison(encode_event(event), key=event.subject.encode()).record(partition=0)


def enricher(world: World) -> EnrichHandler:
    enrichment = CachedEnrichment(ReferenceEnrichment(REFERENCE), DOMAIN)
    return EnrichHandler(DOMAIN, enrichment, world.reader.read_compacted)


def check(world: World, poisons: list[tuple[Kind, Poison, int]], good: list[str]) -> None:
    letters = {letter.offset: letter for letter in map(letter_of, world.reader.read(EVENTS_ENRICHED_LETTERS))}
    assert len(list(world.reader.read(EVENTS_ENRICHED_LETTERS))) == len(poisons)
    for kind, poison, offset in poisons:
        letter = letters[offset]
        found = (letter.reason, letter.path, letter.original, letter.attempts, letter.topic)
        assert found == (kind.reason, kind.path, poison.original, 1, EVENTS_RAW), f"{kind.name}: {letter.detail}"
    assert [parse_event(m.value or b"").id for m in world.reader.read(EVENTS_ENRICHED)] == good


def test_the_verdict_on_all_of_it_is_that_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what raises among it; the same verdict is passed on the real plane."""
    monkeypatch.setattr(CachedEnrichment, "enrich", CachedEnrichment.enrich)  # put back after the test
    plant()
    raising = [kind for kind in hostile_kinds() if kind.reason == "handler-failed"]
    world, poisons, good = sent([*KINDS, *raising])

    world.run_job(enricher(world), "enricher", EVENTS_RAW)

    rows = [(0, at, kind.name, kind.reason, kind.path, digest_of(poison.original)) for kind, poison, at in poisons]
    books = read_books(Stores(world.reader, Lake(tmp_path), None))
    assert books.enriched.height == len(good)
    written = pl.DataFrame(rows, schema=WRITTEN_SCHEMA, orient="row")
    letters = read_poison_letters(world.reader).with_columns(stage=pl.lit("enricher"))  # the job has no name in memory
    assert judge_letters(written, letters, books) == {}


def test_there_are_as_many_kinds_as_promised_each_once() -> None:
    names = [kind.name for kind in (*KINDS, *hostile_kinds())]

    assert len(names) >= 35
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("origin", ["EWR", "JFK", "LGA"])
def test_every_kind_spoils_an_event_wherever_it_departs(origin: str) -> None:
    good = msgspec.structs.replace(departed(1), data={**departed(1).data, "origin": origin})

    assert [kind.name for kind in (*KINDS, *hostile_kinds()) if kind.make(good).original == encode_event(good)] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_poison_becomes_one_letter_with_its_bytes_and_the_good_around_it_passes(kind: Kind) -> None:
    world, poisons, good = sent([kind, kind])

    world.run_job(enricher(world), "enricher", EVENTS_RAW)

    check(world, poisons, good)


@settings(max_examples=10, deadline=None)
@given(st.permutations(KINDS))
def test_no_order_of_poison_changes_what_becomes_of_it(order: list[Kind]) -> None:
    world, poisons, good = sent(list(order))

    world.run_job(enricher(world), "enricher", EVENTS_RAW)

    check(world, poisons, good)


def test_a_hostile_event_is_a_good_one_until_the_reference_reacts() -> None:
    for kind in hostile_kinds():
        event = parse_event(kind.make(departed(1)).original)
        body = msgspec.convert(event.data, DOMAIN.contract(event.type).body)
        assert REFERENCE.enrich(body)["plane_year"] is None

    raising = parse_event(hostile_kinds()[0].make(departed(1)).original)
    with pytest.raises(ZeroDivisionError):
        react(msgspec.convert(raising.data, DOMAIN.contract(raising.type).body))
