"""Quix Streams as both of its peers run it: exactly once, with the clients' settings that Headway has."""

import logging
import tempfile

from quixstreams import Application


def application(*, broker: str, group: str) -> Application:
    """Return an application that begins at the first event, with a folder of its own for state."""
    logging.getLogger("quixstreams").setLevel(logging.ERROR)
    return Application(
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
