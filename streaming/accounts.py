"""The books of the event plane, read from the log, the lake and the online store: ledger and watermarks."""

from collections.abc import Callable, Sequence

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.redis_online import OnlineWriter
from headway.errors import InputRejected
from headway.events import parse_event
from headway.features.definitions import FeatureView
from headway.ledger import Ledger, Place, RawRecord, settle
from headway.letters import letter_of
from headway.ports import LogReader, Message
from headway.ticks import header, is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW


def read_ledger(reader: LogReader, lake: Lake) -> Ledger:
    """Return the account of everything events.raw holds now."""
    enriched = [
        Place(message.partition, int(header(message, "raw_offset") or b""))
        for message in reader.read(EVENTS_ENRICHED)
        if not is_tick(message)
    ]
    letters = [letter_of(message) for message in reader.read(EVENTS_ENRICHED_LETTERS)]
    # A sink letter's event is in events.enriched and counted there (S13, S22).
    verdicts = [letter for letter in letters if letter.kind == "enriched"]
    streamed = lake.read("events", columns=["raw_partition", "raw_offset"], predicate=pl.col("topic").is_not_null())
    return settle(
        [_raw_record(message) for message in reader.read(EVENTS_RAW) if not is_tick(message)],
        enriched=enriched,
        letters=[Place(letter.partition or 0, letter.offset or 0) for letter in verdicts],
        lake=[Place(partition, offset) for partition, offset in streamed.iter_rows()],
    )


def least_watermark(store: OnlineWriter, views: Sequence[FeatureView]) -> Callable[[], int | None]:
    """Return what tells the least watermark over the views, microseconds; None while any has none."""
    names = [view.online_name for view in views]

    def read() -> int | None:
        watermarks = store.read_watermarks_us(names).values()
        known = [watermark for watermark in watermarks if watermark is not None]
        return min(known) if len(known) == len(watermarks) else None

    return read


def _raw_record(message: Message) -> RawRecord:
    place = Place(message.partition, message.offset)
    try:
        event = parse_event(message.value or b"")
    except InputRejected:
        # Written past the Collector; the Validator makes it a letter. Nothing it could repeat has an identity.
        return RawRecord(place, ("", f"{message.partition}@{message.offset}"))
    return RawRecord(place, (event.source, event.id))
