"""What loaders read from ``events.enriched``, whoever wrote the record: a record that is no event becomes a letter."""

from headway.contracts import Domain
from headway.errors import InputRejected
from headway.events import Event, parse_event
from headway.features.windows import is_too_late
from headway.lake import Transport
from headway.ports import Message
from headway.ticks import header, tick_before_us


def enriched_event(domain: Domain, message: Message) -> tuple[Event, Transport]:
    """Return the event of a record of ``events.enriched`` and how it came.

    Raises:
        InputRejected: it is none; names field, got and wanted.
    """
    event = parse_event(message.value or b"")
    known = [contract.event_type for contract in domain.contracts]
    if event.type not in known:
        raise InputRejected(f"type: got {event.type!r}, wanted one of {sorted(known)}")
    raw_offset = header(message, "raw_offset") or b""
    if not raw_offset.isdigit():
        raise InputRejected(
            f"raw_offset: got {raw_offset!r}, wanted the Enricher's header with an offset of events.raw"
        )
    tick_us = tick_before_us(message)
    return event, Transport(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        raw_partition=message.partition,
        raw_offset=int(raw_offset),
        tick_before_us=tick_us,
        too_late=is_too_late(
            event.time_us, tick_before_us=tick_us, lateness_us=domain.contract(event.type).lateness_us
        ),
    )
