"""Where an event's time goes between the Collector and the store: by the times at which each stage wrote it.

Times are those that producers gave their records, by the clock of this machine, so a stage's share covers its waiting,
its work, and the commit of the stage before.
"""

from collections.abc import Collection, Mapping

import msgspec

from domains.flights.domain import DOMAIN
from headway.features.wire import decode_input, decode_row
from headway.ports import LogReader
from headway.ticks import is_tick, is_watermark
from headway.topics import EVENTS_ENRICHED, EVENTS_RAW, FEATURES_INPUT, features_topic
from orchestration.chaos.report import quantile

STAGES = ("enriched", "fanned_out", "aggregated", "stored")


class _Named(msgspec.Struct):
    id: str


_NAME = msgspec.json.Decoder(_Named)


def journeys(reader: LogReader, *, readable_ms: Mapping[str, float], views: Mapping[str, str]) -> dict[str, float]:
    """Return median and 99th percentile of each stage's seconds, over events by id, and how many rows an input caused.

    Args:
        reader: of the log.
        readable_ms: when each event was seen online, Unix milliseconds.
        views: qualified name of the view in which it was looked for, by its id.
    """
    ids = readable_ms.keys()
    raw, enriched = (_written(reader, topic, ids) for topic in (EVENTS_RAW, EVENTS_ENRICHED))
    inputs: dict[str, float] = {}
    causes: dict[tuple[str, int, int], str] = {}
    taken = 0
    for message in reader.read(FEATURES_INPUT):
        if is_tick(message):
            continue
        item = decode_input(message.value or b"")
        taken += 1
        if views.get(item.event_id) == item.view:
            inputs[item.event_id] = message.timestamp_ms
            causes[item.view, message.partition, message.offset + 1] = item.event_id
    rows, written = _caused(reader, causes)
    times = (raw, enriched, inputs, rows, readable_ms)
    known = [name for name in ids if all(name in each for each in times)]
    told: dict[str, float] = {"rows_per_input": round(written / max(1, taken), 1)}
    for stage, before, after in zip(STAGES, times[:-1], times[1:], strict=True):
        waits_s = [(after[name] - before[name]) / 1000 for name in known]
        told |= {
            f"{stage}_p50_s": round(quantile(waits_s, 0.5), 3),
            f"{stage}_p99_s": round(quantile(waits_s, 0.99), 3),
        }
    return told


def _written(reader: LogReader, topic: str, ids: Collection[str]) -> dict[str, float]:
    found = {}
    for message in reader.read(topic):
        if not is_tick(message):
            name = _NAME.decode(message.value or b"").id
            if name in ids:
                found[name] = float(message.timestamp_ms)
    return found


def _caused(reader: LogReader, causes: Mapping[tuple[str, int, int], str]) -> tuple[dict[str, float], int]:
    """When the first row that each input caused was written, and all rows: a row's revision is its input's offset + 1."""
    found: dict[str, float] = {}
    written = 0
    for view in DOMAIN.views:
        for message in reader.read(features_topic(view.qualified)):
            if is_watermark(message):
                continue
            written += 1
            cause = causes.get((view.qualified, message.partition, decode_row(message.value or b"").revision))
            if cause is not None:
                found.setdefault(cause, float(message.timestamp_ms))
    return found, written
