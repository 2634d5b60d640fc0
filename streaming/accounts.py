"""The books of the event plane, read from the log, the lake and the search index: what the ledger settles; watermarks.

Records become columns in chunks, so that a long log costs the memory of its ids and not of its events.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineWriter
from headway.clock import from_us, parse_instant_us
from headway.errors import InputRejected, TransientFailure
from headway.features.definitions import FeatureView
from headway.ledger import EFFECT_SCHEMA, LETTER_SCHEMA, RAW_SCHEMA, Books, Ledger, settle
from headway.letter_fates import read_fates
from headway.letters import LETTER_ID_HEADER, any_letter, letter_place
from headway.ports import LogReader, Message, SearchIndex
from headway.search import EVENTS_PATTERN
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW

_CHUNK = 50_000
_HOUR_MS = 3_600_000


class _Stamp(msgspec.Struct):
    """What the ledger reads of an event; everything else is skipped, not built."""

    id: str
    source: str
    receivedat: str | None = None


_STAMP = msgspec.json.Decoder(_Stamp)


class Stores(NamedTuple):
    """Where the books are read from; without a search index its documents are not compared."""

    log: LogReader
    lake: Lake
    search: SearchIndex | None


@contextmanager
def open_stores(*, bootstrap: str, lake: str, search_url: str) -> Iterator[Stores]:
    """Open the stores of a plane, as `headway.settings` says where they are; the search index only if a node answers."""
    from headway.adapters.elasticsearch import ElasticsearchIndex
    from headway.adapters.kafka_reader import KafkaReader

    reader = KafkaReader(bootstrap=bootstrap)
    index = ElasticsearchIndex(search_url, patience_s=0.0)
    try:
        yield Stores(reader, Lake(Path(lake)), index if _answers(index) else None)
    finally:
        index.close()
        reader.close()


def read_ledger(stores: Stores, *, hours: int) -> Ledger:
    """Return the account of the newest hours of events.raw, as everything stands now."""
    return settle(read_books(stores), hours=hours)


def read_books(stores: Stores) -> Books:
    """Return everything the ledger is settled from."""
    reader, lake, search = stores
    # Before the stores: a sink letter whose record a store has taken after all excuses nothing there any more.
    taken = frozenset(name for name, fate in read_fates(reader).items() if fate.state == "replayed")
    # Effects first: what is written meanwhile is then a raw record in flight, and never an effect without a cause.
    rows, lost_files = lake.read_what_is_left(
        "events", columns=["raw_partition", "raw_offset", "source", "id", "topic", "partition", "offset"]
    )
    documents = None if search is None else frame_of(_documents(search), EFFECT_SCHEMA)
    letters = frame_of(_letters(reader, taken), LETTER_SCHEMA)
    enriched = frame_of(map(_enriched, _events(reader, EVENTS_ENRICHED)), EFFECT_SCHEMA)
    raw = frame_of(map(_raw, _events(reader, EVENTS_RAW)), RAW_SCHEMA)
    loaded = rows.filter(pl.col("topic").is_not_null()).select(pl.col(n).cast(t) for n, t in EFFECT_SCHEMA.items())
    return Books(
        raw=raw, enriched=enriched, letters=letters, lake=loaded, search=documents, lost_files=tuple(lost_files)
    )


def least_watermark(store: OnlineWriter, views: Sequence[FeatureView]) -> Callable[[], int | None]:
    """Return what tells the least watermark over the views, microseconds; None while any has none."""
    names = [view.online_name for view in views]

    def read() -> int | None:
        watermarks = store.read_watermarks_us(names).values()
        known = [watermark for watermark in watermarks if watermark is not None]
        return min(known) if len(known) == len(watermarks) else None

    return read


def frame_of(rows: Iterable[tuple[Any, ...]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return rows as a frame, built in chunks."""
    waiting = iter(rows)
    chunks = [pl.DataFrame(schema=dict(schema))]
    while chunk := list(islice(waiting, _CHUNK)):
        chunks.append(pl.DataFrame(chunk, schema=dict(schema), orient="row"))
    return pl.concat(chunks, rechunk=True)


def digest_of(value: bytes | None) -> int:
    """Return 64 bits that two records share only when they hold the same bytes."""
    return int.from_bytes(hashlib.blake2b(value or b"", digest_size=8).digest(), "little")


def _answers(index: SearchIndex) -> bool:
    try:
        index.indexes(EVENTS_PATTERN)
    except TransientFailure:
        return False
    return True


def _documents(search: SearchIndex) -> Iterator[tuple[Any, ...]]:
    fields = list(EFFECT_SCHEMA)
    for found in search.scan(EVENTS_PATTERN, fields=fields):
        yield tuple(found.fields.get(name) for name in fields)


def _events(reader: LogReader, topic: str) -> Iterator[Message]:
    return (message for message in reader.read(topic) if not is_tick(message))


def _raw(message: Message) -> tuple[Any, ...]:
    source, name, received = _name(message)
    try:
        hour_ms = message.timestamp_ms if received is None else parse_instant_us(received, field="receivedat") // 1000
    except InputRejected:
        hour_ms = message.timestamp_ms
    hour = from_us(hour_ms // _HOUR_MS * _HOUR_MS * 1000)
    fixes = header(message, LETTER_ID_HEADER)
    return (
        message.partition,
        message.offset,
        source,
        name,
        hour,
        digest_of(message.value),
        None if fixes is None else fixes.decode(errors="replace"),
    )


def _enriched(message: Message) -> tuple[Any, ...]:
    source, name, _ = _name(message)
    return (
        message.partition,
        int(header(message, "raw_offset") or b""),
        source,
        name,
        message.partition,
        message.offset,
    )


def _letters(reader: LogReader, taken: frozenset[str]) -> Iterator[tuple[Any, ...]]:
    for message in reader.read(EVENTS_ENRICHED_LETTERS):
        letter = any_letter(message)
        if letter.kind == "sink" and letter_place(message).id in taken:
            continue
        place = letter.raw_place or (None, None)
        yield (
            *place,
            letter.kind,
            letter.stage,
            letter.reason,
            digest_of(letter.original),
            message.partition,
            message.offset,
        )


def _name(message: Message) -> tuple[str, str, str | None]:
    try:
        stamp = _STAMP.decode(message.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Written past the Collector; the Validator makes it a letter. Nothing it could repeat has an identity.
        return "", f"{message.partition}@{message.offset}", None
    return stamp.source, stamp.id, stamp.receivedat
