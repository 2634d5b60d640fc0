"""Stream scoring with transactions, features in the event: events per CPU-second beside Quix Streams, plain and fast.

One topic of events with twenty features each; every contestant reads it from the start in each window and answers each
event from the same model file, exactly once. Processor seconds are those of the contestant's process alone.
"""

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import children
from benchmarks.asked_events import CATEGORIES, NAME, NUMBERS, WORDS, asking_records, write_model
from benchmarks.frame import Contestant, Plan, Target, compare
from benchmarks.p7 import Job
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.report import outcome
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.commands import Outcome, Say
from headway.errors import ContractViolation
from headway.manifest import MODEL_FILE
from headway.topics import PARTITIONS, Topic, scores_topic, topic_table

SOURCE, SAMPLE = "p6.asked", "p6.sample"
PEERS = ("quix-streams-fast", "quix-streams-plain")
# More than the fastest contestant reads in a window of ten seconds and the second before it, on two cores.
EVENTS = 600_000
SAMPLE_EVENTS = 5_000


def run(plan: Plan, say: Say) -> Outcome:
    """Prove that all give the same scores, then compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p6-") as name, contextlib.ExitStack() as started:
        folder = Path(name)
        say("fitting the model")
        write_model(folder)
        kafka = started.enter_context(children.broker(folder, heap_mb=768)).bootstrap
        _fill(kafka, say)
        ours, *peers = _jobs(kafka, folder, say)
        _check_same_work(kafka, (ours, *peers), say)
        compared = compare(
            "Score, features in the event",
            unit="events/CPU-s",
            ours=Contestant(name=ours.name, measure=ours.measure),
            peers=[Contestant(name=peer.name, measure=peer.measure) for peer in peers],
            targets=[Target(peer=PEERS[0], at_least=1.5), Target(peer=PEERS[1], at_least=2.5)],
            plan=plan,
            say=say,
        )
    return outcome("P6", [compared])


def _jobs(kafka: str, folder: Path, say: Say) -> list[Job]:
    columns = folder / "columns.json"
    told = {"numbers": NUMBERS, "categories": CATEGORIES, "words": WORDS, "version": 1}
    columns.write_text(json.dumps(told))
    python = str(peer_python("scores", say=say))
    env = {
        **os.environ,
        "PEER_COLUMNS": str(columns),
        "PEER_MODEL": str(folder / MODEL_FILE),
        "PYTHONPATH": str(FOLDER.parent.parent),
    }
    numbers = itertools.count()

    def job(name: str, command: Sequence[str]) -> Job:
        return Job(name=name, command=tuple(command), env=env, folder=folder, numbers=numbers, source=SOURCE)

    own = (*children.module("benchmarks.scorer_job", kafka, folder), "{source}", "{group}", "{window_s}")
    script = (python, str(FOLDER / "quix_score.py"), kafka)
    return [
        job("headway", own),
        *(
            job(name, (*script, "{source}", f"{{source}}.{name}", "{group}", "{window_s}", name.rpartition("-")[2]))
            for name in PEERS
        ),
    ]


def _fill(kafka: str, say: Say) -> None:
    names = [SOURCE, SAMPLE, *(f"{source}.{peer}" for source in (SOURCE, SAMPLE) for peer in PEERS)]
    mine = [Topic(name=name, partitions=PARTITIONS, replication_factor=1, min_insync_replicas=1) for name in names]
    table = topic_table(views=[], products=[NAME], replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(kafka), [*mine, *table])
    publisher = KafkaPublisher(bootstrap=kafka)
    try:
        for topic, count, seed in ((SAMPLE, SAMPLE_EVENTS, 1), (SOURCE, EVENTS, 2)):
            say(f"writing {count:,} events to {topic}")
            records = asking_records(topic, count, seed=seed)
            while part := list(itertools.islice(records, 20_000)):
                publisher.publish(part)
    finally:
        publisher.close()


def _check_same_work(kafka: str, jobs: Sequence[Job], say: Say) -> None:
    """Let everybody score the sample to its end and compare what came out, to the bit, in whatever order."""
    reader = KafkaReader(bootstrap=kafka)
    found: dict[str, dict[tuple[str, float], int]] = {}
    for job in jobs:
        say(f"{job.name}: the sample")
        job.run(SAMPLE, window_s=0)
        topic = scores_topic(NAME) if job.name == "headway" else f"{SAMPLE}.{job.name}"
        found[job.name] = {}
        for message in reader.read(topic):
            said = json.loads(message.value or b"")
            answer = (said["subject"], said["probability"])
            found[job.name][answer] = found[job.name].get(answer, 0) + 1
    first, *others = found.items()
    if sum(first[1].values()) != SAMPLE_EVENTS:
        raise ContractViolation(f"{first[0]}: {sum(first[1].values())} answers to {SAMPLE_EVENTS} events")
    for name, given in others:
        if given != first[1]:
            differing = sorted(a for a in given.keys() | first[1].keys() if given.get(a) != first[1].get(a))
            raise ContractViolation(f"{name} and {first[0]} differ in {len(differing)} answers, first {differing[:3]}")
    say(f"all give the same {SAMPLE_EVENTS:,} answers")
