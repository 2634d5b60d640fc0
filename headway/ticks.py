"""Ticks on the wire: "all events with time <= X have been sent", to every partition (SEMANTICS S2)."""

from headway.events import FUTURE_LIMIT_US, TICK_TYPE, TYPE_HEADER
from headway.ports import Message, Record

TICK_BEFORE_HEADER = "tick_before"
SOURCE_PARTITION_HEADER = "source_partition"
WATERMARK_TYPE = "headway.watermark"
_TICK_TYPE, _WATERMARK_TYPE = TICK_TYPE.encode(), WATERMARK_TYPE.encode()
# Microseconds until the year 33658; more digits are no instant.
_TICK_DIGITS = 18


def header(message: Message, name: str) -> bytes | None:
    """Return the value of a header, or None."""
    for key, value in message.headers:
        if key == name:
            return value
    return None


def is_tick(message: Message) -> bool:
    """Whether the record is a tick and not an event.

    What only claims to be one, or tells an instant that has not come yet, is not: it is an event that cannot be read,
    and becomes a letter. Taken for a tick it would end the job, or poison every watermark after it.
    """
    if message.key is not None or header(message, TYPE_HEADER) != _TICK_TYPE:
        return False
    value = message.value or b""
    if not value.isdigit() or len(value) > _TICK_DIGITS:
        return False
    return message.timestamp_ms <= 0 or int(value) <= message.timestamp_ms * 1000 + FUTURE_LIMIT_US


def is_watermark(message: Message) -> bool:
    """Whether the record of a changelog topic tells a watermark and is no row."""
    return header(message, TYPE_HEADER) == _WATERMARK_TYPE


def tick_us_of(message: Message) -> int:
    """Return the instant of a tick or watermark record, in microseconds."""
    return int(message.value or b"")


def tick_record(topic: str, tick_us: int, *, partition: int, source_partition: int | None = None) -> Record:
    """Return the tick for one partition; ``source_partition`` names the input partition it speaks for (S2, S3)."""
    headers = [(TYPE_HEADER, _TICK_TYPE)]
    if source_partition is not None:
        headers.append((SOURCE_PARTITION_HEADER, b"%d" % source_partition))
    return Record(topic=topic, key=None, value=b"%d" % tick_us, headers=tuple(headers), partition=partition)


def watermark_record(topic: str, watermark_us: int, *, partition: int) -> Record:
    """Return the record that tells readers of a changelog partition how far it is complete."""
    headers = ((TYPE_HEADER, _WATERMARK_TYPE),)
    return Record(topic=topic, key=None, value=b"%d" % watermark_us, headers=headers, partition=partition)


def tick_before_us(message: Message) -> int | None:
    """Return the newest tick before this event in its own partition, or None before the first."""
    value = header(message, TICK_BEFORE_HEADER)
    return None if value is None else int(value)
