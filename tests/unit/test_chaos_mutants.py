"""Each planted bug on the plane in memory: right without it, and caught, by what it breaks, with it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from headway.adapters.delta import Lake
from headway.adapters.enrichment_http import HttpEnrichment
from headway.adapters.memory import MemoryLog, SimulatedCrash
from headway.errors import DependencyDown
from headway.events import encode_event
from headway.ledger import JUDGED_HOURS
from headway.letters import Letter, letter_of
from headway.ports import EnrichmentItem, EnrichmentRefused, Message, Record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, EVENTS_RAW_LETTERS
from orchestration.chaos.mutant import MUTANTS
from orchestration.chaos.planted import acknowledge_before_delivery, commit_offsets_first
from serving.collector_modes import SINGLE
from streaming.accounts import Stores, read_ledger
from streaming.handlers.aggregate import AggregateHandler
from streaming.handlers.enrich import EnrichHandler
from streaming.quarantine import DEATHS_OF_RECORD, Quarantine
from streaming.sinks.lake import LakeSink, build_lake_sink
from tests.free_ports import free_port
from tests.streaming_world import DOMAIN, Departed, World, departed
from tests.unit.test_collector import Silent, make_broker, post


class Early(Silent):
    """A log that is away, behind a publisher that does not wait for it."""


@pytest.mark.parametrize(
    ("topic", "body", "honest", "mutated"),
    [
        (EVENTS_RAW, encode_event(departed("a", at="10:00")), 503, 202),
        (EVENTS_RAW_LETTERS, b"{}", 503, 400),
    ],
)
def test_a_collector_that_does_not_wait_promises_what_nobody_has(
    monkeypatch: pytest.MonkeyPatch, topic: str, body: bytes, honest: int, mutated: int
) -> None:
    """Acknowledged and nowhere: the journal says acked (or 4xx for an envelope), the log is empty, I1 is broken."""
    assert post(Early(make_broker()), body, SINGLE).status_code == honest
    monkeypatch.setattr(Early, "publish_async", Early.publish_async)
    acknowledge_before_delivery(Early, topic=topic)

    assert post(Early(make_broker()), body, SINGLE).status_code == mutated


class DiesOnce(MemoryLog):
    """A log whose first commit of outputs is the last thing its process does."""

    dead = False

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        if outputs and not type(self).dead:
            type(self).dead = self._broker.crash_before_commit = True
        super().commit(inputs, outputs)


@pytest.mark.parametrize(("mutated", "lost"), [(False, []), (True, ["a"])])
def test_offsets_committed_apart_from_outputs_lose_what_was_in_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, mutated: bool, lost: list[str]
) -> None:
    class Log(DiesOnce):
        pass

    if mutated:
        commit_offsets_first(Log)
    monkeypatch.setattr("tests.streaming_world.MemoryLog", Log)
    world = World()
    world.send(departed("a", at="10:00"))
    with pytest.raises(SimulatedCrash):
        world.run()
    world.send(departed("b", at="10:01"))

    world.run()

    ledger = read_ledger(Stores(world.reader, Lake(tmp_path), None), hours=JUDGED_HOURS)
    assert [name.split(" ")[0] for name in ledger.named("lost", limit=9)] == lost


def written_twice(world: World, folder: Path) -> list[str]:
    """Load the lake, die before the offsets are committed, load the same records again; return what is there twice."""
    for _ in range(2):
        sink = build_lake_sink(DOMAIN, [], str(folder))
        sink.offer(world.messages(EVENTS_ENRICHED))
        sink.flush()
    return read_ledger(Stores(world.reader, Lake(folder), None), hours=JUDGED_HOURS).named("twice", limit=9)


def test_a_loader_that_appends_blindly_doubles_what_it_reads_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.run()
    assert written_twice(world, tmp_path / "honest") == []
    for name in ("committed", "append_each_once"):
        monkeypatch.setattr(Lake, name, getattr(Lake, name))  # put back after the test
    MUTANTS["lake-appends-blindly"].plant()

    assert len(written_twice(world, tmp_path / "blind")) == 1


def test_a_loader_that_commits_first_loses_what_it_had_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World()
    world.send(departed("a", at="10:00"))
    world.run()
    for name in ("offer", "due", "flush", "drop"):
        monkeypatch.setattr(LakeSink, name, getattr(LakeSink, name))
    MUTANTS["commit-before-write"].plant()
    sink = build_lake_sink(DOMAIN, [], str(tmp_path))
    sink.offer(world.messages(EVENTS_ENRICHED))

    committed = sink.flush().messages

    assert len(committed) == 1
    # Killed here, it would never read the record again.
    ledger = read_ledger(Stores(world.reader, Lake(tmp_path), None), hours=JUDGED_HOURS)
    assert len(ledger.named("not-in-lake", limit=9)) == 1


def test_an_enricher_that_takes_down_for_refused_blames_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    item = EnrichmentItem("flight.departed.v1", Departed(origin="EWR", dep_delay_min=1))
    nobody = free_port()
    client = HttpEnrichment(f"http://127.0.0.1:{nobody}", deadline_s=1.0)
    with pytest.raises(DependencyDown):
        client.enrich([item])
    monkeypatch.setattr(HttpEnrichment, "enrich", HttpEnrichment.enrich)
    MUTANTS["down-taken-for-refused"].plant()

    assert [type(answer) for answer in client.enrich([item])] == [EnrichmentRefused]
    client.close()


def test_a_feature_job_that_forgets_state_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def restore(topic: str, _partition: int) -> list[Message]:
        asked.append(topic)
        return []

    AggregateHandler(DOMAIN.views, restore).assigned([0])
    assert asked == [f"state.{view.qualified}" for view in DOMAIN.views]
    asked.clear()
    monkeypatch.setattr(AggregateHandler, "assigned", AggregateHandler.assigned)
    MUTANTS["state-forgotten"].plant()

    AggregateHandler(DOMAIN.views, restore).assigned([0])

    assert asked == []


BROKEN = b'{"id": 3' + b"," * 200


def letters_of_broken_bytes(world: World, folder: Path) -> tuple[list[bytes], list[str]]:
    """The originals that letters keep of an event that cannot be read and is followed by a good one, and what is lost."""
    world.send_bytes(BROKEN, key="EWR")
    world.send(departed("after", at="10:00"))
    world.run()
    ledger = read_ledger(Stores(world.reader, Lake(folder), None), hours=JUDGED_HOURS)
    return [letter_of(m).original for m in world.reader.read(EVENTS_ENRICHED_LETTERS)], ledger.named("lost", limit=9)


def test_an_enricher_that_skips_what_it_rejects_loses_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert letters_of_broken_bytes(World(), tmp_path) == ([BROKEN], [])
    monkeypatch.setattr(EnrichHandler, "handle", EnrichHandler.handle)
    MUTANTS["poison-skipped"].plant()

    letters, lost = letters_of_broken_bytes(World(), tmp_path)

    assert (letters, len(lost)) == ([], 1)


def test_letters_that_are_cut_hold_other_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Letter, "to_record", Letter.to_record)
    MUTANTS["letters-cut"].plant()

    [original], lost = letters_of_broken_bytes(World(), tmp_path)

    assert lost == []
    assert BROKEN.startswith(original)
    assert original != BROKEN


def test_a_journal_that_condemns_nobody_lets_a_record_kill_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = Message("events.raw", 0, 7, None, b"", (), 0)
    journal = tmp_path / "enricher-0.json"
    for _ in range(DEATHS_OF_RECORD):
        with Quarantine(journal).in_hand([message]):
            left = journal.read_bytes()
        journal.write_bytes(left)
    assert Quarantine(journal).is_condemned(message)
    monkeypatch.setattr(Quarantine, "is_condemned", Quarantine.is_condemned)
    MUTANTS["never-condemned"].plant()

    assert not Quarantine(journal).is_condemned(message)
