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

RECORDS = 200
# A loader as the runtime drives it: what is refused is dropped and read again. With "stall", it stops for a line on
# stdin between reading what the table holds and writing on the strength of that, once.
LOADER = """
import sys
from pathlib import Path

from headway.adapters.delta import Lake
from headway.errors import TransientFailure
from headway.events import encode_event
from headway.ports import Message
from headway.topics import EVENTS_ENRICHED
from streaming.sinks.lake import LakeSink, build_lake_sink
from tests.streaming_world import DOMAIN, departed

root, (partition, step, records) = Path(sys.argv[1]), map(int, sys.argv[2:5])
stall = iter(sys.argv[5:])


def message(offset):
    event = departed(f"p{partition}o{offset}", at="10:00")
    headers = (("ce_type", event.type.encode()), ("raw_offset", b"%d" % offset))
    return Message(EVENTS_ENRICHED, partition, offset, b"EWR", encode_event(event), headers, 0)


class Stalling(Lake):
    def committed(self, table, app_id):
        held = super().committed(table, app_id)
        if next(stall, None):
            print("read", flush=True)
            sys.stdin.readline()
        return held


sink = LakeSink(Stalling(root), build_lake_sink(DOMAIN, [], str(root)).loads)
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


def start(
    root: Path, *, partition: int, step: int, records: int = RECORDS, stall: bool = False
) -> "subprocess.Popen[str]":
    arguments = [root, partition, step, records, *(["stall"] if stall else [])]
    command = [sys.executable, "-c", LOADER, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_zombie_and_the_owner_of_its_partition_write_each_record_once(tmp_path: Path) -> None:
    """A loader reads what the table holds and stalls; the next owner writes a part of its batch; then it wakes up."""
    build_lake_sink(DOMAIN, [], str(tmp_path))
    lake = Lake(tmp_path)
    zombie = start(tmp_path, partition=0, step=60, stall=True)
    assert zombie.stdout is not None
    assert zombie.stdout.readline() == "read\n"
    owner = start(tmp_path, partition=0, step=5, records=25)
    assert owner.communicate()[0] == "refused 0\n"

    others = [start(tmp_path, partition=0, step=7), start(tmp_path, partition=1, step=10)]
    assert zombie.stdin is not None
    zombie.stdin.write("\n")
    zombie.stdin.flush()
    compactions = 0
    deadline = time.monotonic() + 120
    while any(loader.poll() is None for loader in (zombie, *others)):
        assert time.monotonic() < deadline
        with contextlib.suppress(TransientFailure):
            compactions += lake.compact("events") > 0
        time.sleep(0.05)
    said = [loader.communicate()[0] for loader in (zombie, *others)]

    assert all(each.startswith("refused") for each in said), said
    assert int(said[0].split()[1]) >= 1
    places = Counter(lake.read("events", columns=["partition", "offset"]).iter_rows())
    assert dict(places) == {(p, offset): 1 for p in (0, 1) for offset in range(RECORDS)}
    assert compactions > 0
    assert lake.committed("events", f"{EVENTS_ENRICHED}-0") == RECORDS - 1
