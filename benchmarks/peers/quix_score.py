"""Quix Streams scoring events exactly once: ``quix_score.py BROKER IN OUT GROUP WINDOW_S plain|fast``."""

import logging
import sys
import tempfile
from typing import Any

from quixstreams import Application

from benchmarks.peers.meter import Meter
from benchmarks.peers.score_work import Columns, Fast, Plain

broker, source, target, group, window_s, how = sys.argv[1:]
logging.getLogger("quixstreams").setLevel(logging.ERROR)
app = Application(
    broker_address=broker,
    consumer_group=group,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir=tempfile.mkdtemp(prefix="quix-"),
    loglevel="ERROR",
    auto_create_topics=True,
    # As Headway's clients: lz4, and fetches that wait as long.
    consumer_extra_config={"fetch.wait.max.ms": 100},
    producer_extra_config={"compression.type": "lz4", "linger.ms": 20},
)
form = "json" if how == "plain" else "bytes"
score = (Plain if how == "plain" else Fast)(Columns()).score
meter = Meter(float(window_s))


def work(event: Any) -> Any:
    """Return the answer to one event."""
    meter.count += 1
    return score(event)


events = app.dataframe(app.topic(source, value_deserializer=form, key_deserializer="bytes")).apply(work)
events.to_topic(app.topic(target, value_serializer=form, key_serializer="bytes"))
app.run()
