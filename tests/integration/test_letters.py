"""Letters on a real broker, with the real jobs and the command line as people call it, killed in the middle of a replay."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from domains.flights.contracts import CONTRACTS, DEPARTED
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.clock import DAY_US, SystemClock, to_us
from headway.events import Event, encode_event, parse_event
from headway.failpoints import KILLED_STATUS
from headway.letter_replay import BATCH_LETTERS
from headway.ports import Message, Record
from headway.settings import Settings
from headway.ticks import tick_record
from headway.topics import EVENTS_ENRICHED, EVENTS_ENRICHED_LETTERS, EVENTS_RAW, PARTITIONS
from streaming.accounts import Stores, read_ledger
from tests.contract.conftest import RealBroker, new_broker
from tests.free_ports import free_block

pytestmark = pytest.mark.integration

DEADLINE_S = 120.0
# Three transactions, the second of which is cut short.
LETTERS = 2 * BATCH_LETTERS + 200
GOOD = 20
# Events lie back, so that event time can move on by days and no tick is of the future, which would be none.
_LAST_WEEK_US = 7 * DAY_US
[BODY] = [dict(contract.example or {}) for contract in CONTRACTS if contract.event_type == DEPARTED]


@dataclass
class Plane:
    """A broker, the Enricher and the lake loader as processes, and the command line."""

    settings: Settings
    environment: dict[str, str]
    reader: KafkaReader
    publisher: KafkaPublisher

    def command(
        self, *arguments: str, mutant: str | None = None, failpoint: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        through = ["orchestration.chaos.mutant", mutant] if mutant else []
        argv = [sys.executable, "-m", *through, "headway.cli", "letters", *arguments]
        environment = {**self.environment, "HEADWAY_FAILPOINTS": failpoint}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def letters(self, *arguments: str, mutant: str | None = None) -> Any:
        done = self.command(*arguments, "--json", mutant=mutant)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, events: list[Event]) -> None:
        headers = (("ce_type", DEPARTED.encode()),)
        self.publisher.publish([Record(EVENTS_RAW, e.subject.encode(), encode_event(e), headers) for e in events])

    def messages(self, topic: str) -> list[Message]:
        return list(self.reader.read(topic))

    def put_back(self) -> Counter[str]:
        """How often each letter's event has been put back into events.raw."""
        headers = [dict(message.headers) for message in self.messages(EVENTS_RAW)]
        return Counter(each["letter_id"].decode() for each in headers if "letter_id" in each)

    def wait(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < deadline, "the condition did not come true"
            threading.Event().wait(0.3)

    def forget_duplicates(self) -> None:
        """Let two days and more of event time pass, after which the Enricher cannot tell a repeat any more."""
        tick_us = to_us(SystemClock().now()) - _LAST_WEEK_US + 3 * DAY_US
        self.publisher.publish([tick_record(EVENTS_RAW, tick_us, partition=number) for number in range(PARTITIONS)])


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    broker: RealBroker = new_broker(tmp_path / "broker")
    broker.start()
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWAY_PORT_BASE", str(free_block()))
    monkeypatch.setenv("HEADWAY_KAFKA_BOOTSTRAP", broker.config.bootstrap)
    settings = Settings()
    environment = {**os.environ, **settings.environment()}
    subprocess.run([sys.executable, "-m", "streaming.provision"], env=environment, check=True, timeout=DEADLINE_S)
    jobs = [
        subprocess.Popen([sys.executable, "-m", "streaming.main", job], env=environment)
        for job in ("enricher", "lake-loader")
    ]
    plane = Plane(
        settings,
        environment,
        KafkaReader(bootstrap=broker.config.bootstrap),
        KafkaPublisher(bootstrap=broker.config.bootstrap),
    )
    yield plane
    plane.publisher.close()
    for job in jobs:
        job.terminate()
        job.wait(timeout=30)
    broker.stop()


def departed(name: str, delay_min: object) -> Event:
    now_us = to_us(SystemClock().now())
    return Event(
        id=name,
        source=DOMAIN.source,
        type=DEPARTED,
        subject=f"UA-{hash(name) % 97}",
        time_us=now_us - _LAST_WEEK_US,
        data={**BODY, "dep_delay_min": delay_min},
        receivedat_us=now_us,
    )


def reject(plane: Plane, count: int) -> set[str]:
    """Send events whose delay is a text, and a few good ones; return the ids of all."""
    plane.send([departed(f"bad-{number}", f"{number} min") for number in range(count)])
    plane.send([departed(f"good-{number}", 5) for number in range(GOOD)])
    plane.wait(lambda: len(plane.messages(EVENTS_ENRICHED_LETTERS)) == count)
    return {f"bad-{number}" for number in range(count)} | {f"good-{number}" for number in range(GOOD)}


def fix_all(plane: Plane, count: int) -> None:
    [cause] = plane.letters("list", "--cluster")["clusters"]
    assert (cause["count"], cause["reason"], cause["path"]) == (count, "schema-violation", "$.data.dep_delay_min")
    fixed = plane.letters("fix", "--cluster", cause["fingerprint"], "--set", "data.dep_delay_min=5", "--note", "texts")
    assert fixed["verdicts"] == {"fixed": count}


def killed_replay(plane: Plane, *, at_commit: int, mutant: str | None = None) -> None:
    killed = plane.command("replay", "--all-fixed", mutant=mutant, failpoint=f"letters.before_commit={at_commit}:kill")
    assert killed.returncode == KILLED_STATUS, killed.stderr
    assert json.loads(killed.stderr.splitlines()[-1])["name"] == "letters.before_commit"


def in_lake(plane: Plane) -> Counter[str]:
    lake = Lake(Path(plane.settings.lake))
    return Counter(lake.read("events", columns=["id"])["id"].to_list()) if lake.exists("events") else Counter()


def test_letters_replayed_three_times_and_killed_in_the_middle_are_in_every_sink_once(plane: Plane) -> None:
    everything = reject(plane, LETTERS)
    fix_all(plane, LETTERS)

    killed_replay(plane, at_commit=2)
    plane.wait(lambda: len(plane.messages(EVENTS_ENRICHED)) == BATCH_LETTERS + GOOD)
    plane.forget_duplicates()
    second = plane.letters("replay", "--all-fixed")
    third = plane.letters("replay", "--reason", "schema-violation")

    # The first transaction was done, and nothing of the one cut short.
    assert second["verdicts"] == {"replay": LETTERS - BATCH_LETTERS}
    assert third["verdicts"] == {"replayed-before": LETTERS}
    put_back = plane.put_back()
    assert len(put_back) == LETTERS
    assert set(put_back.values()) == {1}
    plane.wait(lambda: set(in_lake(plane)) >= everything)
    assert in_lake(plane) == Counter(everything)
    enriched = [parse_event(m.value or b"").id for m in plane.messages(EVENTS_ENRICHED) if m.key is not None]
    assert Counter(enriched) == Counter(everything)
    plane.wait(lambda: read_ledger(Stores(plane.reader, Lake(Path(plane.settings.lake)), None), hours=24).balanced)
    [letter] = plane.letters("list", "--fate", "replayed", "--limit", "1")["letters"]
    shown = plane.letters("show", letter["id"])
    assert [step["state"] for step in shown["steps"]] == ["fixed", "replayed"]
    assert (shown["came_back_as"], letter["contract"]) == (None, DEPARTED)


def test_a_replay_in_two_steps_puts_events_into_the_lake_twice(plane: Plane) -> None:
    """The planted bug that the test above would find: its course is the same."""
    everything = reject(plane, LETTERS)
    fix_all(plane, LETTERS)

    killed_replay(plane, at_commit=2, mutant="replay-in-two-steps")
    plane.wait(lambda: len(plane.messages(EVENTS_ENRICHED)) == BATCH_LETTERS + GOOD)
    plane.forget_duplicates()
    plane.letters("replay", "--all-fixed", mutant="replay-in-two-steps")

    assert sum(plane.put_back().values()) == LETTERS + BATCH_LETTERS
    plane.wait(lambda: in_lake(plane).total() == len(everything) + BATCH_LETTERS)
