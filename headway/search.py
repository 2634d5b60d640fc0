"""What the search index holds of events and letters: documents, ids, daily indexes and templates, derived from a domain.

Independent of any store. A document has the lake's columns under the lake's names, nulls left out, and one shape per
kind, so that search and lake can be compared field by field. Only declared fields are sent and the templates are
strict: a record the index refuses is a letter with a reason, never a field that appears by itself and blocks the next.

What bites: an id is unique within one index, and a day is one index. A repeat that comes on another day (the Enricher
drops repeats of 48 hours only) has to be looked up in the others before it is written; the loader does.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import polars as pl

from headway.clock import format_us, from_us, parse_instant_us
from headway.contracts import Domain
from headway.events import Event
from headway.lake import INSTANT, Transport, events_table
from headway.letter_table import letters_table
from headway.letters import Letter, letter_place
from headway.ports import Between, Document, FieldKind, IndexTemplate, Message, SearchIndex

EVENTS_PATTERN = "events-*"
LETTERS_PATTERN = "letters-*"
# The store's limit for an id.
_ID_BYTES = 512
_KINDS: Mapping[pl.DataType, FieldKind] = {
    pl.String(): "keyword",
    pl.Int64(): "long",
    pl.Float64(): "double",
    pl.Boolean(): "boolean",
    INSTANT: "date",
}


@dataclass(frozen=True, slots=True)
class IndexedEvent:
    """One event in the index as the ledger compares it; ``source`` and ``id`` are its identity (S12)."""

    source: str
    id: str
    raw_partition: int
    raw_offset: int
    received_us: int
    index: str


def event_template(domain: Domain) -> IndexTemplate:
    """Return what the daily indexes of a domain's events are made of."""
    columns = {name: kind for name, kind in events_table(domain).columns.items() if name != "month"}
    return IndexTemplate(
        name="headway-events", pattern=EVENTS_PATTERN, fields={name: _KINDS[kind] for name, kind in columns.items()}
    )


def letter_template() -> IndexTemplate:
    """Return what the daily indexes of letters are made of."""
    columns = {name: kind for name, kind in letters_table().columns.items() if name != "original"}
    fields: dict[str, FieldKind] = {name: _KINDS[kind] for name, kind in columns.items()}
    fields |= {"detail": "text", "original": "stored", "original_base64": "stored"}
    fields |= {"raw_partition": "long", "raw_offset": "long"}
    return IndexTemplate(name="headway-letters", pattern=LETTERS_PATTERN, fields=fields)


def event_id(source: str, id: str) -> str:  # noqa: A002  # the envelope's word
    """Return the document id of an event: ``id@source``, escaped; its digest where that is longer than a store takes."""
    # Both parts are a stranger's text. Escaped, neither holds an @ or a colon, so no two events share a name.
    readable = f"{quote(id, safe='')}@{quote(source, safe='/')}"
    if len(readable) <= _ID_BYTES:
        return readable
    return f"sha256:{hashlib.sha256(readable.encode()).hexdigest()}"


def event_document(domain: Domain, event: Event, transport: Transport, *, written_us: int) -> Document:
    """Return the document of an enriched event, in the index of the day (UTC) it was received.

    ``written_us`` stands in for ``receivedat`` of a record that came past the Collector.
    """
    received_us = written_us if event.receivedat_us is None else event.receivedat_us
    tick_us = transport.tick_before_us
    fields = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": format_us(event.time_us),
        "planted": event.planted,
        "enrichmentversion": event.enrichmentversion,
        **{name: event.data.get(name) for name in domain.columns},
        "receivedat": format_us(received_us),
        "collectorid": event.collectorid,
        "requestid": event.requestid,
        "eventsize": event.eventsize,
        "topic": transport.topic,
        "partition": transport.partition,
        "offset": transport.offset,
        "raw_partition": transport.raw_partition,
        "raw_offset": transport.raw_offset,
        "tick_before": None if tick_us is None else format_us(tick_us),
        "too_late": transport.too_late,
    }
    return Document(daily_index(EVENTS_PATTERN, received_us), event_id(event.source, event.id), _present(fields))


def letter_document(message: Message, letter: Letter) -> Document:
    """Return the document of a letter, under the place of its own record, in the index of the day it was written."""
    place = letter_place(message)
    written_us = message.timestamp_ms * 1000
    raw_partition, raw_offset = letter.raw_place or (None, None)
    fields = {
        "letter_id": place.id,
        "kind": letter.kind,
        "reason": letter.reason,
        "detail": letter.detail,
        "stage": letter.stage,
        **_original(letter.original),
        "source_topic": letter.topic,
        "source_partition": letter.partition,
        "source_offset": letter.offset,
        "raw_partition": raw_partition,
        "raw_offset": raw_offset,
        "written_at": format_us(written_us),
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "fingerprint": letter.fingerprint,
        "path": letter.path,
        "event_type": letter.event_type,
        "contract": letter.contract,
        "attempts": letter.attempts,
        "stack": letter.stack,
        "previous": letter.previous,
    }
    return Document(daily_index(LETTERS_PATTERN, written_us), place.id, _present(fields))


def letter_stub(message: Message, *, why: str) -> Document:
    """Return the least document of a letter that the index refused whole: where it stands, and why."""
    place = letter_place(message)
    written_us = message.timestamp_ms * 1000
    fields = {
        "letter_id": place.id,
        "reason": "mapping",
        "detail": f"the index refused this letter, read it from its topic: {why}",
        "written_at": format_us(written_us),
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
    }
    return Document(daily_index(LETTERS_PATTERN, written_us), place.id, fields)


def daily_index(pattern: str, instant_us: int) -> str:
    """Return the index of a pattern that holds the UTC day of an instant: ``events-2026.11.22``."""
    return pattern.replace("*", from_us(instant_us).strftime("%Y.%m.%d"))


def scan_events(
    index: SearchIndex, *, start_us: int | None = None, end_us: int | None = None
) -> Iterator[IndexedEvent]:
    """Yield every event in the index that was received in [start, end); without bounds, every one.

    Raises:
        TransientFailure: the index cannot be reached.
    """
    between = None
    if start_us is not None or end_us is not None:
        between = Between(field="receivedat", start_us=start_us or 0, end_us=2**53 if end_us is None else end_us)
    fields = ("source", "id", "raw_partition", "raw_offset", "receivedat")
    for found in index.scan(EVENTS_PATTERN, fields=fields, between=between):
        yield IndexedEvent(
            source=found.fields["source"],
            id=found.fields["id"],
            raw_partition=found.fields["raw_partition"],
            raw_offset=found.fields["raw_offset"],
            received_us=parse_instant_us(found.fields["receivedat"], field="receivedat"),
            index=found.index,
        )


def _original(original: bytes) -> dict[str, str]:
    try:
        return {"original": original.decode()}
    except UnicodeDecodeError:
        return {"original_base64": base64.b64encode(original).decode()}


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {name: value for name, value in fields.items() if value is not None}
