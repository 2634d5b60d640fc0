"""A second writer of the online store: ``python -m orchestration.chaos.second_writer REPORT SEED``.

Beside the job's own writers it writes the whole changelog again and again, in a drawn order, as a writer that has lost
its partitions and does not know it would at its worst. Nothing may come of it. Told to stop, it goes through all of it
once more, so that what a killed store has lost is there again, and says in ``REPORT`` what it did.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from domains.flights.domain import DOMAIN
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.redis_online import OnlineRow, OnlineWriter
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.features.wire import decode_row
from headway.local.control import write_whole
from headway.ports import LogReader
from headway.settings import Settings
from headway.stopping import stop_event
from headway.ticks import is_watermark
from headway.topics import features_topic
from orchestration.chaos.faults import Fault
from orchestration.chaos.report import Trial
from streaming.sinks.online import online_row

_ROWS_AT_ONCE = 500
# What is shuffled together: as many rows as fit into memory without a thought.
_PART = 50_000
_AGAIN_S = 0.2
_STOPPED_WITHIN_S = 300.0


class SecondWriter:
    """The process of a trial; see `second_writer`."""

    def __init__(self, process: "subprocess.Popen[bytes]", report: Path) -> None:
        self._process, self._report = process, report
        self._begun_s = monotonic_s()

    def stop(self) -> Fault:
        """Have it go through everything once more and end; return it as a fault, proven by what it wrote."""
        pid, begun_s = self._process.pid, self._begun_s
        fault = Fault(kind="second-writer", name="second-writer", what="join", at_s=begun_s, pid=pid)
        self._process.terminate()
        if self._process.wait(_STOPPED_WITHIN_S) == 0:
            said: Mapping[str, int] = json.loads(self._report.read_text(encoding="utf-8"))
            if said["rounds"] > 1 and said["rows"]:
                fault.proof = f"{said['rows']} rows written in {said['rounds']} rounds, {said['superseded']} refused"
        fault.down_s = monotonic_s() - begun_s
        return fault


@contextmanager
def second_writer(settings: Settings, trial: Trial) -> Iterator[SecondWriter]:
    """Run a second writer beside the job's own, with the planted bug, if any, in it too."""
    report = settings.state / "second-writer.json"
    through = [] if trial.mutant is None else ["orchestration.chaos.mutant", trial.mutant]
    command = [sys.executable, "-m", *through, "orchestration.chaos.second_writer", str(report), str(trial.seed)]
    environment = {**os.environ, **settings.environment()}
    with (settings.state / "log" / "second-writer.log").open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield SecondWriter(process, report)
    finally:
        process.kill()
        process.wait()


def main(report: str, seed: str) -> None:
    """Write until told to stop, and once more."""
    stop = stop_event()
    settings = Settings()
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    generator = random.Random(seed)
    rounds = written = superseded = 0
    last = False
    while not last:
        last = stop.is_set()
        try:
            for rows in _parts(reader):
                generator.shuffle(rows)
                for start in range(0, len(rows), _ROWS_AT_ONCE):
                    superseded += _write(store, rows[start : start + _ROWS_AT_ONCE])
                written += len(rows)
            rounds += 1
        except TransientFailure:  # a killed job's transaction is still open
            last = False
        stop.wait(_AGAIN_S)
    store.close()
    write_whole(Path(report), json.dumps({"rounds": rounds, "rows": written, "superseded": superseded}))


def _parts(reader: LogReader) -> Iterator[list[OnlineRow]]:
    for view in DOMAIN.views:
        messages = reader.read(features_topic(view.qualified))
        rows = (online_row(view, decode_row(m.value or b"")) for m in messages if not is_watermark(m))
        while part := list(islice(rows, _PART)):
            yield part


def _write(store: OnlineWriter, rows: list[OnlineRow]) -> int:
    while True:
        try:
            return store.write(rows).superseded
        except TransientFailure:  # the store is killed on purpose
            time.sleep(_AGAIN_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
