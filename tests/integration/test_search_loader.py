"""The search loader on a real node: what the flights' contracts promise fits its mapping, and a repeat changes nothing."""

import msgspec
import pytest

from domains.flights.domain import DOMAIN
from headway.adapters.elasticsearch import ElasticsearchIndex
from headway.adapters.memory import MemoryBroker, MemoryExclusiveWriter, MemoryLog, MemoryReader, SimulatedCrash
from headway.clock import DAY_US, parse_instant_us
from headway.enrichment import ReferenceEnrichment
from headway.events import Event, encode_event
from headway.letter_desk import DESK, Done, LetterDesk, Selection
from headway.letter_replay import Signature
from headway.letters import letter_about, letter_of
from headway.ports import EnrichmentItem, Record
from headway.search import LETTERS_PATTERN, scan_events
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW_LETTERS, topic_table
from streaming.runtime import SinkWorker
from streaming.sinks.offers import search_offer
from streaming.sinks.search import STAGE, SearchSink
from tests.search_world import SearchNode

pytestmark = pytest.mark.integration

RECEIVED_US = parse_instant_us("2031-01-02T10:00:00Z", field="receivedat")
LATER_US = parse_instant_us("2031-02-03T10:00:00Z", field="received")
TOPICS = [EVENTS_ENRICHED, EVENTS_RAW_LETTERS, EVENTS_ENRICHED_LETTERS]


def test_a_day_of_flights_is_indexed_once_and_a_misfit_is_a_letter_in_the_index(search_node: SearchNode) -> None:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
    load_history = DOMAIN.load_history
    assert load_history is not None
    events = list(
        load_history().iter_events(
            parse_instant_us("2013-07-01T00:00:00Z", field="from"),
            parse_instant_us("2013-07-01T12:00:00Z", field="until"),
        )
    )
    reference = ReferenceEnrichment(DOMAIN.load_reference())
    for offset, event in enumerate(events):
        body = msgspec.convert(event.data, DOMAIN.contract(event.type).body)
        (answer,) = reference.enrich([EnrichmentItem(event.type, body)])
        data = event.data | getattr(answer, "columns", {})
        append(broker, msgspec.structs.replace(event, data=data, receivedat_us=RECEIVED_US), raw_offset=offset)
    misfit = msgspec.structs.replace(events[0], id="misfit", receivedat_us=RECEIVED_US)
    append(broker, msgspec.structs.replace(misfit, data=misfit.data | {"flight": "UA 1"}), raw_offset=len(events))
    index = ElasticsearchIndex(search_node.url)

    for group in ("first", "again"):
        run(broker, index, group=group)

    indexed = [event for event in scan_events(index) if event.received_us == RECEIVED_US]
    assert {event.id for event in events} == {event.id for event in indexed}
    assert len(indexed) == len(events)
    assert {"events-2031.01.02"} == {event.index for event in indexed}
    letters = [letter_of(message) for message in MemoryReader(broker).read(EVENTS_ENRICHED_LETTERS)]
    assert [(letter.reason, letter.path) for letter in letters] == [("mapping", "$.flight")] * 2
    fields = ["reason", "path", "raw_offset", "kind"]
    found = [each.fields for each in index.scan(LETTERS_PATTERN, fields=fields) if each.fields["path"] == "$.flight"]
    assert [{"reason": "mapping", "path": "$.flight", "raw_offset": len(events), "kind": "sink"}] * 2 == found
    index.close()


def test_a_letter_of_the_loader_is_offered_to_the_node_again_and_is_there_once(search_node: SearchNode) -> None:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
    load_history = DOMAIN.load_history
    assert load_history is not None
    start_us = parse_instant_us("2013-07-01T00:00:00Z", field="from")
    first = next(event for event in load_history().iter_events(start_us, start_us + DAY_US) if "flight" in event.data)
    fits = msgspec.structs.replace(first, id="fits", receivedat_us=LATER_US)
    append(broker, fits, raw_offset=0)
    append(broker, msgspec.structs.replace(fits, id="never", data=fits.data | {"flight": "UA 1"}), raw_offset=1)
    for message in MemoryReader(broker).read(EVENTS_ENRICHED):
        letter = letter_about(message, reason="handler-failed", detail="ValueError: a bug, mended since", stage=STAGE)
        broker.append(letter.to_record(EVENTS_ENRICHED_LETTERS))
    index = ElasticsearchIndex(search_node.url)
    writer = MemoryExclusiveWriter(broker, name=DESK)
    desk = LetterDesk(MemoryReader(broker), writer, [DOMAIN], {STAGE: search_offer(SearchSink(index, DOMAIN))})

    def replay() -> Done:
        return desk.replay(Selection(), Signature(by="ann", at_us=LATER_US), watermark_us=None, progress=lambda _: None)

    broker.crash_before_commit = True
    with pytest.raises(SimulatedCrash):
        replay()
    cut_short = [event.id for event in scan_events(index) if event.received_us == LATER_US]
    done, again = replay(), replay()

    assert cut_short == [event.id for event in scan_events(index) if event.received_us == LATER_US] == ["fits"]
    assert done.verdicts == {"offer": 1, "refused-again": 1}
    assert again.verdicts == {"replayed-before": 1, "refused-again": 1}
    assert "[flight]" in next(iter(done.why.values()))
    index.close()


def append(broker: MemoryBroker, event: Event, *, raw_offset: int) -> None:
    headers = (("ce_type", event.type.encode()), ("raw_offset", b"%d" % raw_offset))
    broker.append(Record(topic=EVENTS_ENRICHED, key=event.subject.encode(), value=encode_event(event), headers=headers))


def run(broker: MemoryBroker, index: ElasticsearchIndex, *, group: str) -> None:
    """Run the loader as a process would: to the end, and once more for the letters it wrote itself."""
    for _ in range(2):
        worker = SinkWorker(SearchSink(index, DOMAIN))
        log = MemoryLog(broker, group=group, topics=TOPICS, on_assign=lambda _: None, on_revoke=lambda _: None)
        polls = iter([False] * 5 + [True])
        worker.run(log, stopped=lambda: next(polls))  # noqa: B023
        log.close()
