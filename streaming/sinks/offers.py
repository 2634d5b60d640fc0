"""How each store is offered the record of a sink letter again, so that it is there once however often that is repeated.

Search knows the event by its id. The lake's own guard cannot help, as it knows the newest offset of a partition and
the loader has gone on: a letter is an app_id of its own there, and a record whose place the table has is left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import polars as pl

from headway.adapters.delta import Lake
from headway.contracts import Domain
from headway.errors import InputRejected, TransientFailure
from headway.letter_offers import Offer, refused_record
from headway.letter_replay import Filed
from headway.letters import LETTER_TOPICS
from headway.ports import Message
from headway.settings import Settings
from headway.topics import EVENTS_ENRICHED
from streaming.sinks.lake import Load, build_lake_sink
from streaming.sinks.search import STAGE, SearchSink

LAKE_STAGE = "lake-loader"


def store_offers(domain: Domain, products: Sequence[str], settings: Settings) -> Mapping[str, Offer]:
    """Return how the stores of a plane are offered records again, by stage; each is opened when it is first asked."""

    def search() -> Offer:
        from headway.adapters.elasticsearch import ElasticsearchIndex

        return search_offer(SearchSink(ElasticsearchIndex(settings.search_url), domain))

    def lake() -> Offer:
        return lake_offer(Lake(Path(settings.lake)), build_lake_sink(domain, products, settings.lake).loads)

    return {STAGE: _when_asked(search), LAKE_STAGE: _when_asked(lake)}


def search_offer(sink: SearchSink) -> Offer:
    """Return the offer to the search index; a bug in the loader refuses the one record that it meets."""

    def offer(letters: Sequence[Filed]) -> dict[str, str]:
        def write(part: Sequence[Filed]) -> dict[str, str]:
            by_place = {_place(message): message for message in map(refused_record, part)}
            refused = {_place(m): detail for m, detail, _ in sink.write_events(list(by_place.values()))}
            return {f.id: refused[place] for f in part if (place := _place(refused_record(f))) in refused}

        refused, known = _split(letters, lambda topic: topic == EVENTS_ENRICHED)
        try:
            return refused | write(known)
        except TransientFailure:
            raise
        except Exception:  # noqa: BLE001 - which bug it is, and on which record, is found one by one
            for filed in known:
                refused |= _attempted(filed, lambda each: write([each]))
            return refused

    return offer


def lake_offer(lake: Lake, loads: Mapping[str, Load]) -> Offer:
    """Return the offer to the lake; ``loads`` as the loader has them."""

    def write(filed: Filed) -> dict[str, str]:
        message = refused_record(filed)
        load = loads[message.topic]
        rows = load.decode([message])
        if not _holds(lake, load.table.name, message):
            lake.append_each_once(load.table.name, {f"letters/{filed.id}": (0, rows)})
        return {}

    def offer(letters: Sequence[Filed]) -> dict[str, str]:
        refused, known = _split(letters, lambda topic: topic in loads and topic not in LETTER_TOPICS)
        for filed in known:
            refused |= _attempted(filed, write)
        return refused

    return offer


def _when_asked(build: Callable[[], Offer]) -> Offer:
    opened = cache(build)

    def offer(letters: Sequence[Filed]) -> Mapping[str, str]:
        return opened()(letters)

    return offer


def _attempted(filed: Filed, write: Callable[[Filed], dict[str, str]]) -> dict[str, str]:
    """Offer one record; whatever our own code raises on it is why it is refused."""
    try:
        return write(filed)
    except TransientFailure:
        raise
    except InputRejected as refusal:
        return {filed.id: str(refusal)}
    except Exception as error:  # noqa: BLE001 - told to the person at the desk, and the letter stays
        return {filed.id: f"{type(error).__name__}: {error}"}


def _split(letters: Sequence[Filed], loaded: Callable[[str], bool]) -> tuple[dict[str, str], list[Filed]]:
    """Tell letters about records of events and features from those about other letters, which cannot be made again."""
    refused: dict[str, str] = {}
    known: list[Filed] = []
    for filed in letters:
        if loaded(filed.letter.topic or ""):
            known.append(filed)
        else:
            refused[filed.id] = (
                f"its record is of {filed.letter.topic}, which keeps it; it is not offered: `discard` it"
            )
    return refused, known


def _holds(lake: Lake, table: str, message: Message) -> bool:
    """Whether the record was written after all: a process may die of it after its commit to the table."""
    topic, partition, offset = _place(message)
    at = (pl.col("topic") == topic) & (pl.col("partition") == partition) & (pl.col("offset") == offset)
    return lake.read(table, columns=["offset"], predicate=at).height > 0


def _place(message: Message) -> tuple[str, int, int]:
    return message.topic, message.partition, message.offset
