"""Quix Streams doing the Validator/Enricher's work, exactly once: ``quix_enrich.py BROKER IN OUT GROUP WINDOW_S``."""

import sys

from quixstreams import State

from benchmarks.peers.flights_work import Tables, enriched, validated
from benchmarks.peers.meter import Meter
from benchmarks.peers.quix import application

broker, source, target, group, window_s = sys.argv[1:]
app = application(broker=broker, group=group)
tables = Tables()
meter = Meter(float(window_s))


def work(value: bytes, state: State) -> bytes | None:
    """Return the enriched event, or None for one that is broken or repeated."""
    meter.count += 1
    valid = validated(value)
    if valid is None:
        return None
    envelope, body = valid
    identity = envelope.source + "\x1f" + envelope.id
    if state.exists(identity):
        return None
    result = enriched(envelope, body, tables)
    if result is not None:
        state.set(identity, 1)
    return result


events = app.dataframe(app.topic(source, value_deserializer="bytes", key_deserializer="bytes"))
events = events.apply(work, stateful=True).filter(lambda value: value is not None)
events.to_topic(app.topic(target, value_serializer="bytes", key_serializer="bytes"))
app.run()
