"""Search loader: enriched events and letters -> daily indexes, each document under a name that a repeat uses again (S14).

Written before the offsets are committed, so a crash writes some documents again, and the index says that it knows them.
A record whose values the index cannot hold becomes a sink letter in the transaction that commits its offset: it is in
the index or is a letter, never both or neither (S22).

What bites: a refusal is about one document only while others are taken. An index that refuses everything has a broken
template, which is ours: then nothing becomes a letter, and the job waits for somebody to mend it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from headway.contracts import Domain
from headway.errors import DependencyDown, InputRejected
from headway.letters import any_letter, letter_about
from headway.ports import Document, Message, Record, SearchIndex
from headway.search import (
    EVENTS_PATTERN,
    event_document,
    event_template,
    letter_document,
    letter_stub,
    letter_template,
)
from headway.ticks import is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS
from streaming.runtime import Flushed
from streaming.sinks.buffer import Buffer, Limits
from streaming.sinks.records import enriched_event

STAGE = "search-loader"
# A person looks a second after the fact; a bulk of thousands costs the node as much as ten of hundreds.
FLUSH_AGE_S = 1.0
FLUSH_MESSAGES = 4_000
FLUSH_BYTES = 8 * 1024 * 1024
# As the breaker of the jobs (S22): of so many records, such a share refused is no accident of theirs.
SUSPECT_RECORDS, SUSPECT_SHARE = 500, 0.95
_FIELD = re.compile(r"field \[([^\]]+)\]|introduction of \[([^\]]+)\]")
_LOG = structlog.get_logger()

DOCUMENTS = Counter("headway_search_documents_total", "Documents offered to the search index.", ["kind", "result"])


class Misfit(NamedTuple):
    """An event that the index can never hold as it is, why, and the field where that is said."""

    message: Message
    detail: str
    path: str | None


class SearchSink:
    """Buffers records and writes them in bulk."""

    def __init__(self, index: SearchIndex, domain: Domain) -> None:
        self._index = index
        self._domain = domain
        self._declared = False
        self._buffer = Buffer(Limits(messages=FLUSH_MESSAGES, bytes=FLUSH_BYTES, age_s=FLUSH_AGE_S))

    def offer(self, batch: Sequence[Message]) -> None:
        """Take messages into the buffer."""
        self._buffer.add(batch)

    def due(self, now_s: float) -> bool:
        """Whether the buffer is large or old enough for a request."""
        return self._buffer.due(now_s)

    def flush(self) -> Flushed:
        """Write the buffer; return its messages, and letters for those that the index can never hold.

        Raises:
            TransientFailure: the index is away, or did not take everything in time; what it took stays.
        """
        self._declare()
        events: list[Message] = []
        letters: list[tuple[Message, Document]] = []
        for message in self._buffer.messages:
            if message.topic != EVENTS_ENRICHED:
                letters.append((message, letter_document(message, any_letter(message))))
            elif not is_tick(message):
                events.append(message)
        refusals = [_letter(misfit) for misfit in self.write_events(events)]
        self._write_letters(letters)
        return Flushed(messages=self._buffer.clear(), letters=refusals)

    def write_events(self, messages: Sequence[Message]) -> list[Misfit]:
        """Write enriched events past the buffer; return those that the index can never hold.

        Raises:
            TransientFailure: see `flush`.
        """
        self._declare()
        events: dict[str, tuple[Message, Document]] = {}
        misfits: list[Misfit] = []
        for message in messages:
            try:
                document = self._event(message)
            except InputRejected as refusal:
                misfits.append(Misfit(message, str(refusal), None))
            else:
                events.setdefault(document.id, (message, document))  # the first write wins within a batch too
        return misfits + self._create(events)

    def drop(self) -> None:
        """Forget the buffer; what the index looks like is asked again, as it may have been away."""
        self._buffer.clear()
        self._declared = False

    def _declare(self) -> None:
        if not self._declared:
            self._index.put_template(event_template(self._domain))
            self._index.put_template(letter_template())
            self._declared = True

    def _event(self, message: Message) -> Document:
        event, transport = enriched_event(self._domain, message)
        return event_document(self._domain, event, transport, written_us=message.timestamp_ms * 1000)

    def _create(self, events: dict[str, tuple[Message, Document]]) -> list[Misfit]:
        documents = [document for _, document in events.values()]
        elsewhere = self._known_elsewhere(documents)
        created = self._index.create([document for document in documents if document.id not in elsewhere])
        _count("event", created=created.created, known=created.known + len(elsewhere), refused=len(created.refused))
        if len(created.refused) >= SUSPECT_SHARE * len(documents) and len(documents) >= SUSPECT_RECORDS:
            raise DependencyDown(
                "search index",
                f"it refuses {len(created.refused)} of {len(documents)} events ({created.refused[0].reason}); "
                "compare the index's mapping with the domain's contracts",
            )
        return [
            Misfit(events[refused.document.id][0], refused.reason, _path_in(refused.reason))
            for refused in created.refused
        ]

    def _known_elsewhere(self, documents: Sequence[Document]) -> frozenset[str]:
        """Which of these events are in the index of another day: repeats that came too late for the Enricher to know."""
        todays = {document.index for document in documents}
        if not documents or not set(self._index.indexes(EVENTS_PATTERN)) - todays:
            return frozenset()
        return self._index.known(EVENTS_PATTERN, [document.id for document in documents], outside=todays)

    def _write_letters(self, letters: Sequence[tuple[Message, Document]]) -> None:
        """Write letters; one that the index refuses is written without what it says, as it cannot be a letter again."""
        created = self._index.create([document for _, document in letters])
        _count("letter", created=created.created, known=created.known, refused=len(created.refused))
        if not created.refused:
            return
        messages = {document.id: message for message, document in letters}
        stubs = [letter_stub(messages[refused.document.id], why=refused.reason) for refused in created.refused]
        again = self._index.create(stubs)
        if again.refused:
            raise DependencyDown("search index", f"it refuses letters ({again.refused[0].reason}); mend its template")


def _path_in(reason: str) -> str | None:
    named = _FIELD.search(reason)
    return None if named is None else f"$.{named.group(1) or named.group(2)}"


def _letter(misfit: Misfit) -> Record:
    message, detail, path = misfit
    _LOG.info("letter", reason="mapping", detail=detail, partition=message.partition, offset=message.offset)
    letter = letter_about(message, reason="mapping", detail=detail, stage=STAGE, path=path)
    return letter.to_record(EVENTS_ENRICHED_LETTERS)


def _count(kind: str, *, created: int, known: int, refused: int) -> None:
    for result, documents in (("created", created), ("known", known), ("refused", refused)):
        DOCUMENTS.labels(kind, result).inc(documents)
