"""Quix Streams scoring events exactly once: ``quix_score.py BROKER IN OUT GROUP WINDOW_S plain|fast``."""

import sys
from typing import Any

from benchmarks.peers.meter import Meter
from benchmarks.peers.quix import application
from benchmarks.peers.score_work import Columns, Fast, Plain

broker, source, target, group, window_s, how = sys.argv[1:]
app = application(broker=broker, group=group)
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
