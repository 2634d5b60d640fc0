"""The books as read from a log and a lake that hold what strangers, crashes and lost files leave behind."""

from pathlib import Path

import pytest

from headway.adapters.delta import Lake
from headway.adapters.memory_search import MemorySearch
from headway.events import parse_event
from headway.lake import Transport
from headway.ledger import JUDGED_HOURS, Ledger
from headway.letter_fates import Fate
from headway.letter_replay import Signature
from headway.letters import LetterPlace, letter_about
from headway.ports import Document
from headway.search import event_document, event_template
from headway.ticks import header
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW_LETTERS
from orchestration.checks import told_of_ledger
from streaming.accounts import Stores, read_ledger
from streaming.audit import ledger_lines
from streaming.sinks.lake import build_lake_sink
from tests.streaming_world import DOMAIN, World, departed

ANN = Signature(by="ann", at_us=0)
TOPICS = (EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW_LETTERS)


@pytest.fixture
def world() -> World:
    return World()


def loaded(world: World, folder: Path, *, files: int = 1) -> Ledger:
    """Run the plane, load the lake in so many commits, and settle."""
    world.run()
    sink = build_lake_sink(DOMAIN, [], str(folder))
    messages = [message for topic in TOPICS for message in world.messages(topic)]
    size = -(-len(messages) // files)
    for start in range(0, len(messages), size):
        sink.offer(messages[start : start + size])
        sink.flush()
    return read_ledger(Stores(world.reader, Lake(folder), None), hours=JUDGED_HOURS)


def test_letters_duplicates_and_bytes_of_strangers_balance(world: World, tmp_path: Path) -> None:
    world.send(departed("a", at="10:00"))
    world.send(departed("a", at="10:00"))
    world.send(departed("b", at="10:01", origin="XXX"))
    world.tick("10:15")
    world.send_bytes(b"\xff not an event", key="stranger")
    world.send_bytes(b'{"id": 3}', key="stranger")
    world.send_bytes(b'{"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", key="stranger")

    ledger = loaded(world, tmp_path)

    assert (ledger.raw, ledger.enriched, ledger.letters, ledger.duplicates) == (6, 1, 4, 1)
    assert ledger.balanced, ledger.facts(limit=9)


def test_a_deleted_lake_file_is_told_with_exactly_the_events_it_held(world: World, tmp_path: Path) -> None:
    for number in range(9):
        world.send(departed(f"event-{number}", at="10:00"))
    assert loaded(world, tmp_path, files=3).balanced
    files = sorted((tmp_path / "events").rglob("*.parquet"))
    assert len(files) == 3
    lake = Lake(tmp_path)
    before = lake.read("events", columns=["id"])["id"].to_list()
    files[1].unlink()

    ledger = read_ledger(Stores(world.reader, lake, None), hours=JUDGED_HOURS)

    kept, _ = lake.read_what_is_left("events", columns=["id"])
    gone = sorted(set(before) - set(kept["id"].to_list()))
    assert len(gone) == 3
    assert sorted(name.split(" at ")[0] for name in ledger.named("not-in-lake", limit=99)) == gone
    assert ledger.lost_files == (str(files[1].relative_to(tmp_path / "events")),)
    assert ledger.count("not-in-lake") == ledger.differences.height


def test_the_account_is_told_by_hour_and_names_what_is_missing(world: World, tmp_path: Path) -> None:
    world.send(departed("a", at="10:00"))
    world.run()

    ledger = read_ledger(Stores(world.reader, Lake(tmp_path), None), hours=JUDGED_HOURS)

    told = "\n".join(ledger_lines(ledger))
    assert "not-in-lake: 1" in told
    assert "  a at " in told
    assert "were not compared" in told
    shown = told_of_ledger(ledger)
    assert (shown["raw"], shown["not-in-lake"], shown["in_flight"]) == (1, 1, 0)


def test_three_deleted_documents_and_one_lake_file_are_named_and_nothing_else(world: World, tmp_path: Path) -> None:
    for number in range(9):
        world.send(departed(f"event-{number}", at="10:00"))
    loaded(world, tmp_path, files=3)
    search = MemorySearch()
    search.put_template(event_template(DOMAIN))
    documents = documents_of(world)
    assert search.create(documents).created == 9
    stores = Stores(world.reader, Lake(tmp_path), search)
    assert read_ledger(stores, hours=JUDGED_HOURS).balanced
    min((tmp_path / "events").rglob("*.parquet")).unlink()
    left = MemorySearch()
    left.put_template(event_template(DOMAIN))
    left.create(documents[3:])

    ledger = read_ledger(stores._replace(search=left), hours=JUDGED_HOURS)

    gone = sorted(str(document.fields["id"]) for document in documents[:3])
    assert sorted(name.split(" at ")[0] for name in ledger.named("not-in-search", limit=99)) == gone
    assert (ledger.count("not-in-search"), ledger.count("not-in-lake"), ledger.differences.height) == (3, 3, 6)
    assert (ledger.search, ledger.lake, len(ledger.lost_files)) == (6, 6, 1)


def test_a_refused_document_excuses_nothing_once_its_letter_was_replayed(world: World, tmp_path: Path) -> None:
    world.send(departed("misfit", at="10:00"))
    loaded(world, tmp_path)
    [message] = world.messages(EVENTS_ENRICHED)
    letter = letter_about(message, reason="mapping", detail="d", stage="search-loader")
    where = world.broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))
    search = MemorySearch()
    search.put_template(event_template(DOMAIN))
    stores = Stores(world.reader, Lake(tmp_path), search)
    excused = read_ledger(stores, hours=JUDGED_HOURS)
    search.create(documents_of(world))
    world.broker.append(Fate(letter=LetterPlace(*where).id, steps=(ANN.step("replayed", None, None),)).to_record())
    taken = read_ledger(stores, hours=JUDGED_HOURS)
    search.drop(documents_of(world)[0].index)

    ledger = read_ledger(stores, hours=JUDGED_HOURS)

    assert (excused.balanced, taken.balanced) == (True, True)
    assert [name.split(" at ")[0] for name in ledger.named("not-in-search", limit=9)] == ["misfit"]


def documents_of(world: World) -> list[Document]:
    return [
        event_document(
            DOMAIN,
            parse_event(message.value or b""),
            Transport(
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                raw_partition=message.partition,
                raw_offset=int(header(message, "raw_offset") or b""),
                tick_before_us=None,
                too_late=False,
            ),
            written_us=message.timestamp_ms * 1000,
        )
        for message in world.messages(EVENTS_ENRICHED)
    ]
