"""FastStream doing the Validator/Enricher's work in batches: ``faststream_enrich.py BROKER IN OUT GROUP WINDOW_S``.

It has no state and no consume-transform-produce transaction: identities are in a dictionary that a restart forgets, and
a crash repeats what was published since the last commit of offsets.
"""

import asyncio
import logging
import sys

from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker

from benchmarks.peers.flights_work import Tables, enriched, validated
from benchmarks.peers.meter import Meter

broker_address, source, target, group, window_s = sys.argv[1:]
broker = KafkaBroker(
    broker_address,
    acks="all",
    enable_idempotence=True,
    compression_type="lz4",
    logger=None,
    apply_types=False,
    log_level=logging.ERROR,
)
tables = Tables()
meter = Meter(float(window_s))
seen: set[str] = set()


@broker.subscriber(  # type: ignore[untyped-decorator,unused-ignore]  # typed where the peer is installed
    source,
    batch=True,
    max_records=2000,
    polling_interval=0.02,
    group_id=group,
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.ACK,
    decoder=lambda message: message.body,
)
async def work(values: list[bytes]) -> None:
    """Publish what the batch becomes."""
    out = []
    for value in values:
        valid = validated(value)
        if valid is None:
            continue
        envelope, body = valid
        identity = envelope.source + "\x1f" + envelope.id
        if identity in seen:
            continue
        result = enriched(envelope, body, tables)
        if result is not None:
            seen.add(identity)
            out.append(result)
    if out:
        await broker.publish_batch(*out, topic=target)
    meter.done(len(values))


asyncio.run(FastStream(broker, logger=None).run())
