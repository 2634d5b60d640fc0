"""Cost growth: processor time per event of the Enricher with a second instance beside the first.

One topic of real events, read from its start in each window by one instance or by two of one group. Counted are the
processor seconds of the instances alone; those of the broker, which has twice the connections, are not. What an event of a
backfill costs from 1 to 50 million of them, and a row of a batch from 0.3 to 5 million, is held flat by P11 and P10.
"""

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import children
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.p7 import SOURCE, fill
from benchmarks.report import outcome
from headway.commands import Outcome, Say
from headway.errors import PermanentFailure
from headway.settings import project_root

_LIMIT_S = 120.0
# What an event may cost with two instances, as a multiple of what it costs with one.
_COST = 1.15


@dataclass(frozen=True, kw_only=True)
class Group:
    """So many instances of the job, in a group of their own for every window."""

    kafka: str
    instances: int
    folder: Path
    numbers: Iterator[int]

    @property
    def name(self) -> str:
        """How it is told apart."""
        return f"{self.instances} instance{'s' if self.instances > 1 else ''}"

    def measure(self, seconds: float) -> Sample:
        """Read the topic from its start for so long, together."""
        group = f"p13-{next(self.numbers)}"
        with contextlib.ExitStack() as started:
            running = [self._start(group, number, seconds, started) for number in range(self.instances)]
            told = [_told(process, log, seconds) for process, log in running]
        events, cpu_s = sum(each["events"] for each in told), sum(each["cpu_s"] for each in told)
        idle = sum(not each["events"] for each in told)  # an instance beside the work would make the other look cheap
        facts = {"events_per_s": events / max(each["seconds"] for each in told)}
        return Sample(value=events / cpu_s, errors=idle, facts=facts)

    def _start(
        self, group: str, number: int, seconds: float, started: contextlib.ExitStack
    ) -> "tuple[subprocess.Popen[bytes], Path]":
        log = self.folder / f"{group}-{number}.log"
        errors = started.enter_context(log.open("wb"))
        command = children.module("benchmarks.enricher_job", self.kafka, SOURCE, group, seconds, number)
        environment = {**os.environ, "PYTHONPATH": str(project_root())}
        process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors)
        started.enter_context(process)
        started.callback(process.kill)
        return process, log


def run(plan: Plan, say: Say) -> Outcome:
    """Compare two instances with one."""
    with tempfile.TemporaryDirectory(prefix="headway-p13-") as name, contextlib.ExitStack() as started:
        folder = Path(name)
        kafka = started.enter_context(children.broker(folder, heap_mb=768)).bootstrap
        fill(kafka, say)
        numbers = itertools.count()
        one, two = (Group(kafka=kafka, instances=n, folder=folder, numbers=numbers) for n in (1, 2))
        compared = compare(
            "Validate, deduplicate, enrich by two instances",
            unit="events/CPU-s",
            ours=Contestant(name=two.name, measure=two.measure),
            peers=[Contestant(name=one.name, measure=one.measure)],
            targets=[Target(peer=one.name, at_least=round(1 / _COST, 3))],
            plan=plan,
            say=say,
        )
    return outcome("P13", [compared])


def _told(process: "subprocess.Popen[bytes]", log: Path, seconds: float) -> dict[str, float]:
    said, _ = process.communicate(timeout=_LIMIT_S + seconds)
    if process.returncode != 0:
        raise PermanentFailure(f"{log.stem}: ended with {process.returncode}; it said {log.read_text()[-500:]}")
    told: dict[str, float] = json.loads(said.splitlines()[-1])
    return told
