"""Sink letters: the record is offered to the store that refused it, to no other, and is there once whatever happens."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryExclusiveWriter, SimulatedCrash
from headway.adapters.memory_search import MemorySearch
from headway.clock import parse_instant_us
from headway.errors import TransientFailure
from headway.events import encode_event
from headway.letter_desk import OFFER_LETTERS, Done, LetterDesk, Selection
from headway.letter_fates import read_fates
from headway.letter_offers import Offer
from headway.letter_replay import Filed, Signature
from headway.letters import Letter, letter_about
from headway.ports import Document, Message, Record
from headway.search import scan_events
from headway.topics import (
    EVENTS_ENRICHED,
    EVENTS_ENRICHED_LETTERS,
    EVENTS_RAW,
    EVENTS_RAW_LETTERS,
    FEATURES_INPUT,
    LETTERS_FATE,
)
from streaming.sinks.lake import build_lake_sink
from streaming.sinks.offers import LAKE_STAGE, lake_offer, search_offer
from streaming.sinks.search import STAGE, Misfit, SearchSink
from tests.streaming_world import DOMAIN, World, departed

ANN = Signature(by="ann", at_us=parse_instant_us("2013-07-02T00:00:00Z", field="now"), note="mapping mended")
EVERYTHING = Selection()


class Picky(MemorySearch):
    """An index whose mapping does not take some events until somebody mends it."""

    def __init__(self, *misfits: str) -> None:
        super().__init__()
        self.misfits = set(misfits)

    def _refusal(self, document: Document) -> str | None:
        if document.fields.get("id") in self.misfits:
            return "failed to parse field [origin] of type [keyword]"
        return super()._refusal(document)


def streamed(*ids: str) -> tuple[World, list[Message]]:
    """A plane with these events enriched, and their records."""
    world = World()
    for each in ids:
        world.send(departed(each, at="10:00"))
    world.run()
    return world, world.messages(EVENTS_ENRICHED)


def load(world: World, index: MemorySearch, messages: Sequence[Message]) -> None:
    """What the loader does with them: write, and commit its letters."""
    sink = SearchSink(index, DOMAIN)
    sink.offer(messages)
    for letter in sink.flush().letters:
        world.broker.append(letter)


def desk_of(world: World, **offers: Offer) -> LetterDesk:
    named = {stage.replace("_", "-"): offer for stage, offer in offers.items()}
    return LetterDesk(world.reader, MemoryExclusiveWriter(world.broker, name="letters"), [DOMAIN], named)


def search_desk(world: World, index: MemorySearch) -> LetterDesk:
    return desk_of(world, search_loader=search_offer(SearchSink(index, DOMAIN)))


def lake_desk(world: World, root: Path) -> LetterDesk:
    return desk_of(world, lake_loader=lake_offer(Lake(root), build_lake_sink(DOMAIN, [], str(root)).loads))


def replay(desk: LetterDesk, selection: Selection = EVERYTHING) -> Done:
    return desk.replay(selection, ANN, watermark_us=None, progress=lambda _: None)


def refused_by_lake(world: World, message: Message) -> None:
    letter = letter_about(message, reason="handler-failed", detail="ValueError: x", stage=LAKE_STAGE)
    world.broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))


def indexed(index: MemorySearch) -> list[str]:
    return sorted(event.id for event in scan_events(index))


def test_a_mended_index_takes_what_it_refused_and_nothing_goes_back_into_the_log() -> None:
    world, messages = streamed("a", "misfit", "z")
    index = Picky("misfit")
    load(world, index, messages)
    before = indexed(index)
    index.misfits.clear()

    done = replay(search_desk(world, index))
    again = replay(search_desk(world, index))

    assert (before, indexed(index)) == (["a", "z"], ["a", "misfit", "z"])
    assert (done.verdicts, again.verdicts) == ({"offer": 1}, {"replayed-before": 1})
    assert len(world.messages(EVENTS_RAW)) == 3
    [fate] = read_fates(world.reader).values()
    assert [(step.state, step.by, step.event) for step in fate.steps] == [("replayed", "ann", ("/small", "misfit"))]
    found = {each.id: (each.raw_partition, each.raw_offset) for each in scan_events(index)}
    [refused] = [m for m in messages if b'"misfit"' in (m.value or b"")]
    assert found["misfit"] == (refused.partition, int(dict(refused.headers)["raw_offset"]))


def test_what_is_still_refused_stays_an_open_letter_with_the_reason() -> None:
    world, messages = streamed("misfit", "other", "z")
    index = Picky("misfit", "other")
    load(world, index, messages)
    index.misfits.remove("other")

    done = replay(search_desk(world, index))

    assert done.verdicts == {"offer": 1, "refused-again": 1}
    assert list(done.why.values()) == ["failed to parse field [origin] of type [keyword]"]
    assert len(list(search_desk(world, index).letters(Selection(state="open")))) == 1
    assert indexed(index) == ["other", "z"]


def test_an_offer_cut_short_before_its_note_is_made_again_and_changes_nothing() -> None:
    count = OFFER_LETTERS + 5
    world, messages = streamed(*(f"e{number}" for number in range(count)), "good")
    index = Picky(*(f"e{number}" for number in range(count)))
    for start in range(0, len(messages), 100):
        load(world, index, messages[start : start + 100])
    index.misfits.clear()
    world.broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        replay(search_desk(world, index))
    cut_short = (len(indexed(index)), len(world.messages(LETTERS_FATE)))

    done = replay(search_desk(world, index))

    assert cut_short == (count + 1, 0)
    assert done.verdicts == {"offer": count}
    assert len(indexed(index)) == count + 1


def test_an_index_that_is_away_leaves_its_letters_as_they_are() -> None:
    world, messages = streamed("misfit", "z")
    index = Picky("misfit")
    load(world, index, messages)
    index.away = True

    with pytest.raises(TransientFailure):
        replay(search_desk(world, index))

    assert read_fates(world.reader) == {}


def test_a_dry_run_offers_nothing() -> None:
    world, messages = streamed("misfit", "z")
    index = Picky("misfit")
    load(world, index, messages)
    index.misfits.clear()

    planned = search_desk(world, index).plan(EVERYTHING, ANN, watermark_us=None)

    assert (planned.verdicts, indexed(index)) == ({"offer": 1}, ["z"])


def test_a_record_that_breaks_the_loader_is_found_among_the_others() -> None:
    world, messages = streamed("breaks", "fine")
    index = Picky("breaks", "fine")
    load(world, index, messages)
    index.misfits.clear()

    class Broken(SearchSink):
        def write_events(self, messages: Sequence[Message]) -> list[Misfit]:
            if any(b'"breaks"' in (message.value or b"") for message in messages):
                raise ValueError("a bug")
            return super().write_events(messages)

    done = replay(desk_of(world, search_loader=search_offer(Broken(index, DOMAIN))))

    assert done.verdicts == {"offer": 1, "refused-again": 1}
    assert (list(done.why.values()), indexed(index)) == (["ValueError: a bug"], ["fine"])


def test_the_lake_takes_a_record_it_refused_at_its_own_place_once(tmp_path: Path) -> None:
    world, messages = streamed("a", "z")
    sink = build_lake_sink(DOMAIN, [], str(tmp_path))
    sink.offer(messages[1:])  # the loader has gone on past the first
    sink.flush()
    refused_by_lake(world, messages[0])
    world.broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        replay(lake_desk(world, tmp_path))

    done = replay(lake_desk(world, tmp_path))

    rows = Lake(tmp_path).read("events").sort("offset")
    assert done.verdicts == {"offer": 1}
    assert sorted(rows["id"]) == ["a", "z"]
    assert rows["offset"].to_list() == [m.offset for m in messages]


def test_a_record_that_killed_the_loader_after_it_was_written_is_not_written_twice(tmp_path: Path) -> None:
    world, messages = streamed("a")
    sink = build_lake_sink(DOMAIN, [], str(tmp_path))
    sink.offer(messages)
    sink.flush()
    refused_by_lake(world, messages[0])

    done = replay(lake_desk(world, tmp_path))

    assert (done.verdicts, Lake(tmp_path).read("events").height) == ({"offer": 1}, 1)


def test_a_record_that_the_lake_cannot_read_stays_a_letter_and_says_why(tmp_path: Path) -> None:
    world = World()
    stranger = Record(topic=EVENTS_ENRICHED, key=b"k", value=b"{}")
    world.broker.append(stranger)
    [message] = world.messages(EVENTS_ENRICHED)
    refused_by_lake(world, message)

    done = replay(lake_desk(world, tmp_path))

    assert done.verdicts == {"refused-again": 1}
    assert Lake(tmp_path).read("events").is_empty()


@pytest.mark.parametrize(
    ("stage", "topic", "verdict"),
    [("features-aggregate", FEATURES_INPUT, "no-offer"), (STAGE, EVENTS_RAW_LETTERS, "refused-again")],
)
def test_what_no_store_can_be_offered_is_refused_with_the_way_out(stage: str, topic: str, verdict: str) -> None:
    world = World()
    letter = Letter(reason="crashed", detail="d", stage=stage, original=b"{}", topic=topic, partition=0, offset=1)
    world.broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))

    done = replay(search_desk(world, MemorySearch()))

    assert done.verdicts == {verdict: 1}
    assert "`discard`" in next(iter(done.why.values()))


def test_a_sink_letter_is_not_repaired_as_its_event_is_accepted() -> None:
    world, messages = streamed("misfit", "z")
    index = Picky("misfit")
    load(world, index, messages)

    def another(filed: Filed) -> bytes:
        return encode_event(departed("misfit", at="10:00", delay_min=3))

    done = search_desk(world, index).fix(EVERYTHING, another, ANN, progress=lambda _: None)

    assert done.verdicts == {"needs-fix": 1}
    assert "Mend the store's schema" in next(iter(done.why.values()))
