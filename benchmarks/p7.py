"""Validator/Enricher with transactions: events per CPU-second beside Quix Streams, exactly once too, and FastStream.

One topic of real events, one percent of them sent twice, one in a thousand broken; every contestant reads it from the
start in each window. Processor seconds are those of the contestant's process alone, broker and load not counted.
"""

import contextlib
import importlib
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import children
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.report import outcome
from domains.flights.reference import load_reference
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.clock import parse_instant_us
from headway.commands import Outcome, Say
from headway.errors import ContractViolation, PermanentFailure
from headway.events import encode_event, parse_event
from headway.ports import Record
from headway.ticks import is_tick
from headway.topics import EVENTS_ENRICHED, PARTITIONS, Topic, topic_table

SOURCE, SAMPLE = "p7.raw", "p7.sample"
# More than the fastest contestant reads in a window of ten seconds and the second before it, on two cores.
EVENTS = 500_000
SAMPLE_EVENTS = 5_000
_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A contestant's process: started for every window, with a group of its own."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str]
    folder: Path
    numbers: Iterator[int]
    source: str

    def measure(self, seconds: float) -> Sample:
        """Read the topic from its start for so long."""
        said = self.run(self.source, window_s=seconds)
        rate = said["events"] / said["cpu_s"]
        facts = {"events_per_s": said["events"] / said["seconds"], "peak_mib": said["peak_mib"]}
        return Sample(value=rate, facts=facts)

    def run(self, source: str, *, window_s: float) -> dict[str, Any]:
        """Start the process, wait for its end, and return what its meter says."""
        group = f"{self.source}-{self.name}-{next(self.numbers)}"
        command = [word.format(source=source, group=group, window_s=window_s) for word in self.command]
        log = self.folder / f"{group}.log"
        with log.open("wb") as errors:
            done = subprocess.run(
                command, env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, check=False,
                timeout=_LIMIT_S + window_s,
            )  # fmt: skip
        if done.returncode != 0:
            raise PermanentFailure(f"{group}: ended with {done.returncode}; it said {log.read_text()[-500:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


def run(plan: Plan, say: Say) -> Outcome:
    """Prove that all do the same work, then compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p7-") as name, contextlib.ExitStack() as started:
        folder = Path(name)
        kafka = started.enter_context(children.broker(folder, heap_mb=768)).bootstrap
        fill(kafka, say)
        ours, *peers = _jobs(kafka, folder, say)
        _check_same_work(kafka, (ours, *peers), say)
        compared = compare(
            "Validate, deduplicate, enrich",
            unit="events/CPU-s",
            ours=Contestant(name=ours.name, measure=ours.measure),
            peers=[Contestant(name=peer.name, measure=peer.measure) for peer in peers],
            targets=[Target(peer="quix-streams", at_least=3.0)],
            plan=plan,
            say=say,
        )
    return outcome("P7", [compared])


def _jobs(kafka: str, folder: Path, say: Say) -> tuple[Job, Job, Job]:
    tables = folder / "tables.json"
    reference = load_reference()
    tables.write_text(
        json.dumps(
            {
                "airports": reference.airports,
                "airlines": reference.airlines,
                "planes": reference.planes,
                "version": reference.version,
            }
        )
    )
    python = str(peer_python("streams", say=say))
    env = {**os.environ, "PEER_TABLES": str(tables)}
    mine = {**env, "PYTHONPATH": str(FOLDER.parent.parent)}
    numbers = itertools.count()

    def peer(name: str, script: str) -> Job:
        command = (python, str(FOLDER / script), kafka, "{source}", f"{{source}}.{name}", "{group}", "{window_s}")
        return Job(name=name, command=command, env=mine, folder=folder, numbers=numbers, source=SOURCE)

    own = (*children.module("benchmarks.enricher_job", kafka), "{source}", "{group}", "{window_s}")
    return (
        Job(name="headway", command=own, env=mine, folder=folder, numbers=numbers, source=SOURCE),
        peer("quix-streams", "quix_enrich.py"),
        peer("faststream", "faststream_enrich.py"),
    )


def fill(kafka: str, say: Say) -> None:
    """Make the topics and write what everybody reads."""
    names = [
        SOURCE,
        SAMPLE,
        *(f"{source}.{peer}" for source in (SOURCE, SAMPLE) for peer in ("quix-streams", "faststream")),
    ]
    mine = [Topic(name=name, partitions=PARTITIONS, replication_factor=1, min_insync_replicas=1) for name in names]
    apply_topics(
        admin_client(kafka), [*mine, *topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1)]
    )
    publisher = KafkaPublisher(bootstrap=kafka)
    try:
        for topic, count in ((SAMPLE, SAMPLE_EVENTS), (SOURCE, EVENTS)):
            say(f"writing {count:,} events to {topic}")
            records = _records(topic, count)
            while part := list(itertools.islice(records, 20_000)):
                publisher.publish(part)
    finally:
        publisher.close()


def _records(topic: str, count: int) -> Iterator[Record]:
    history = importlib.import_module("domains.flights.source")
    start_us, end_us = (parse_instant_us(f"{year}-01-01T00:00:00Z", field="year") for year in (2013, 2014))
    received_us = parse_instant_us("2014-01-01T00:00:00.000001Z", field="receivedat")
    for number, event in enumerate(itertools.islice(history.iter_events(start_us, end_us), count)):
        stamped = {
            "receivedat_us": received_us + number * 997,
            "collectorid": "bench-1",
            "requestid": f"r-{number:012}",
        }
        value = encode_event(_with(event, **stamped, eventsize=400))
        yield Record(topic, event.subject.encode(), _broken(value) if number % 1000 == 999 else value, _headers(event))
        if number % 100 == 50:
            yield Record(topic, event.subject.encode(), value, _headers(event))


def _with(event: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(event, **changes)


def _headers(event: Any) -> tuple[tuple[str, bytes], ...]:
    return (("ce_type", event.type.encode()), ("ce_id", event.id.encode()), ("ce_source", event.source.encode()))


def _broken(value: bytes) -> bytes:
    return value.replace(b'"origin":"', b'"origin":"x', 1)


def _check_same_work(kafka: str, jobs: Iterable[Job], say: Say) -> None:
    """Let everybody do the sample to its end and compare what came out: ids and bodies, whatever the order."""
    reader = KafkaReader(bootstrap=kafka)
    found: dict[str, dict[str, Any]] = {}
    try:
        for job in jobs:
            say(f"{job.name}: the sample")
            job.run(SAMPLE, window_s=0)
            topic = EVENTS_ENRICHED if job.name == "headway" else f"{SAMPLE}.{job.name}"
            events = [parse_event(m.value or b"") for m in reader.read(topic) if not is_tick(m)]
            found[job.name] = {event.id: (event.type, event.data, event.enrichmentversion) for event in events}
            if len(events) != len(found[job.name]):
                raise ContractViolation(
                    f"{job.name}: {len(events)} events out, {len(found[job.name])} of them distinct"
                )
    finally:
        reader.close()
    first, *others = found.items()
    for name, given in others:
        if given != first[1]:
            differing = sorted(i for i in given.keys() | first[1].keys() if given.get(i) != first[1].get(i))
            raise ContractViolation(f"{name} and {first[0]} differ in {len(differing)} events, first {differing[:3]}")
    say(f"all give the same {len(first[1]):,} events")
