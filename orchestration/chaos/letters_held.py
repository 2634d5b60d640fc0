"""What each sink of the event plane holds, by event, and what is not there exactly once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from headway.adapters.delta import Lake
from headway.adapters.elasticsearch import ElasticsearchIndex
from headway.events import parse_event
from headway.letters import LETTER_ID_HEADER
from headway.ports import LogReader
from headway.search import scan_events
from headway.settings import Settings
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_RAW


def put_back(reader: LogReader) -> Counter[str]:
    """Return how often each letter's event stands in events.raw again, by the letter."""
    letters = (header(message, LETTER_ID_HEADER) for message in reader.read(EVENTS_RAW))
    return Counter(letter.decode() for letter in letters if letter is not None)


def held_by_sinks(settings: Settings, reader: LogReader) -> dict[str, Counter[str]]:
    """Return how often each sink holds each event, by its id."""
    enriched = (message for message in reader.read(EVENTS_ENRICHED) if not is_tick(message))
    index = ElasticsearchIndex(settings.search_url)
    try:
        return {
            "enriched": Counter(parse_event(message.value or b"").id for message in enriched),
            "lake": Counter(Lake(Path(settings.lake)).read("events", columns=["id"])["id"].to_list()),
            "search": Counter(event.id for event in scan_events(index)),
        }
    finally:
        index.close()


def offences(counted: Mapping[str, int], wanted: Iterable[str]) -> list[str]:
    """Name what is not there exactly once, and what should not be there."""
    names = set(wanted)
    missing = [f"missing: {name}" for name in sorted(names - counted.keys())]
    several = [f"{times} times: {name}" for name, times in sorted(counted.items()) if times > 1]
    return [*missing, *several, *(f"invented: {name}" for name in sorted(counted.keys() - names))]
