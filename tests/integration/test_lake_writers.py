"""Several loaders in processes of their own on one table, with compaction between them: each record is one row."""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from headway.adapters.delta import Lake
from headway.errors import TransientFailure
from headway.topics import EVENTS_ENRICHED
from streaming.sinks.lake import build_lake_sink
from tests.streaming_world import DOMAIN

pytestmark = pytest.mark.integration

RECORDS = 400
# A loader as the runtime drives it: what is refused is dropped and read again.
SCRIPT = """
import sys

from headway.errors import TransientFailure
from headway.events import encode_event
from headway.ports import Message
from headway.topics import EVENTS_ENRICHED
from streaming.sinks.lake import build_lake_sink
from tests.streaming_world import DOMAIN, departed

root, partition, step, records = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


def message(offset):
    event = departed(f"p{partition}o{offset}", at="10:00")
    headers = (("ce_type", event.type.encode()), ("raw_offset", b"%d" % offset))
    return Message(EVENTS_ENRICHED, partition, offset, b"EWR", encode_event(event), headers, 0)


sink = build_lake_sink(DOMAIN, [], root)
print("ready", flush=True)
offset = refused = 0
while offset < records:
    batch = [message(each) for each in range(offset, min(records, offset + step))]
    sink.offer(batch)
    try:
        sink.flush()
        offset += len(batch)
    except TransientFailure:
        sink.drop()
        refused += 1
print(f"refused {refused}", flush=True)
"""


def start(root: Path, *, partition: int, step: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCRIPT, str(root), str(partition), str(step), str(RECORDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_owners_and_a_zombie_write_each_record_once_while_the_table_is_compacted(tmp_path: Path) -> None:
    """Partition 0 has two loaders at once, with batches of other lengths, so that whichever is behind overlaps."""
    build_lake_sink(DOMAIN, [], str(tmp_path))  # the table is there before anybody writes
    lake = Lake(tmp_path)
    loaders = [start(tmp_path, partition=p, step=step) for p, step in ((0, 7), (0, 11), (1, 10))]
    compactions = 0
    deadline = time.monotonic() + 120
    while any(loader.poll() is None for loader in loaders):
        assert time.monotonic() < deadline
        with contextlib.suppress(TransientFailure):
            compactions += lake.compact("events") > 0
        time.sleep(0.05)
    said = [loader.communicate()[0] for loader in loaders]

    assert [loader.returncode for loader in loaders] == [0, 0, 0], said
    rows = lake.read("events", columns=["partition", "offset"])
    places = Counter(rows.iter_rows())
    assert {(p, offset): 1 for p in (0, 1) for offset in range(RECORDS)} == dict(places)
    assert compactions > 0
    assert lake.committed("events", f"{EVENTS_ENRICHED}-0") == RECORDS - 1
    # The two of partition 0 met: at least one of them was told so.
    assert sum(int(each.split("refused ")[1]) for each in said[:2]) > 0
