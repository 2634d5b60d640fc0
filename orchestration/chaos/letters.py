"""LETTERS: letters replayed three times, the first time killed in the middle; every sink holds each event once.

The replay is killed by SIGKILL inside a transaction: a fail-point holds it there, with the events handed over and not
committed, so that the kill always falls in the middle, on any machine. Before the third replay so much event time
passes that the Enricher has forgotten every event: a repeat would then be enriched again, and show in the sinks.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import httpx
import orjson

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.clock import DAY_US, monotonic_s
from headway.errors import PermanentFailure, TransientFailure
from headway.failpoints import PLAN_VARIABLE
from headway.letter_desk import DESK
from headway.letter_replay import BATCH_LETTERS
from headway.ports import LogReader
from headway.settings import Settings
from headway.ticks import tick_record
from headway.topics import EVENTS_ENRICHED_LETTERS, EVENTS_RAW, PARTITIONS
from orchestration.chaos.driver import BATCH, PATH, TICK_STEP_US
from orchestration.chaos.faults import Fault
from orchestration.chaos.features import Features, differing_features
from orchestration.chaos.letters_held import held_by_sinks, offences, put_back
from orchestration.chaos.load import Send, plan_sends
from orchestration.chaos.quiescence import books_at_rest
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from streaming.accounts import open_stores

FULL_LETTERS, SHORT_LETTERS = 10_000, 2_000
_KEYS = 200
_POST = 100
# Beside the letters, so that their replay has something to be told from.
_GOOD_EVERY = 50
# What every broken event has and no contract knows. Taken out again it leaves the flight as it was, under its own keys:
# one value set in all of them would make one entity of them, whose features are computed anew for each.
_SURPLUS = "colour"
# More than the 48 h of event time for which the Enricher knows a repeat (S12).
_FORGOTTEN_US = 3 * DAY_US
_PATIENCE_S = 180.0
# What comes back is out of time within a batch or two, and features emit rows anew for what came before (S6).
_WATERMARK_WITHIN_S = 180.0
# An open transaction ends after 20 s; the broker looks every 10 s.
_READ_WITHIN_S = 60.0
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The command line as a person uses it, on one stack; with the planted bug, if any, in it."""

    settings: Settings
    mutant: str | None

    def start(self, *arguments: str, failpoints: str = "", output: IO[str]) -> "subprocess.Popen[str]":
        """Start ``headway letters`` with these arguments; everything it says goes to ``output``."""
        through = [] if self.mutant is None else ["orchestration.chaos.mutant", self.mutant]
        return subprocess.Popen(
            [sys.executable, "-m", *through, "headway.cli", "letters", *arguments],
            env={**os.environ, **self.settings.environment(), PLAN_VARIABLE: failpoints},
            stdout=output,
            stderr=output,
            text=True,
        )

    def run(self, *arguments: str) -> Mapping[str, Any]:
        """Run it to its end and return its facts."""
        report = self.settings.state / "letters.json"
        log = self.settings.state / "log" / "letters.log"
        with log.open("a", encoding="utf-8") as output:
            code = self.start(*arguments, "--json", str(report), output=output).wait(_PATIENCE_S)
        facts: Mapping[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        if code != 0:
            raise PermanentFailure(f"headway letters {' '.join(arguments)}: exit code {code}, see {log}: {facts}")
        return facts


@dataclass(frozen=True, kw_only=True)
class Replays:
    """What three replays did: letters put back when the first was killed, verdicts of the others, and the features."""

    fault: Fault
    killed: int
    second: Mapping[str, int]
    third: Mapping[str, int]
    features: Features


def run(trial: Trial) -> Report:
    """Run the trial on a stack of its own."""
    count = SHORT_LETTERS if trial.short else FULL_LETTERS
    generator = random.Random(trial.seed)
    sends = _sends(trial, count, generator)
    begun_s = monotonic_s()
    with own_stack((*EVENT_PLANE, "search"), mutant=trial.mutant, environment={}, say=trial.say) as settings:
        reader = KafkaReader(bootstrap=settings.kafka_bootstrap, timeout_s=_READ_WITHIN_S)
        desk = Desk(settings=settings, mutant=trial.mutant)
        trial.say(f"{count:,} letters")
        _reject(settings, reader, sends, count)
        fixed = desk.run("fix", "--reason", "schema-violation", "--remove", f"data.{_SURPLUS}", "--note", "chaos")[
            "verdicts"
        ]
        if fixed != {"fixed": count}:
            raise PermanentFailure(f"letters: wanted {count} fixed, got {fixed}")
        fault = _killed_replay(desk, nth=_in_the_middle(count, generator))
        killed = sum(put_back(reader).values())
        fault.proof = _proof(fault, killed, count)
        trial.say(f"{fault.proof}; going on")
        second = desk.run("replay", "--all-fixed")["verdicts"]
        end_us = _tick_to(settings, max(send.time_us for send in sends))
        _settle(settings, trial)
        features = differing_features(
            settings, DOMAIN, Lake(Path(settings.lake)), as_of_us=end_us, within_s=_WATERMARK_WITHIN_S
        )
        _tick_to(settings, end_us + _FORGOTTEN_US)
        third = desk.run("replay", "--reason", "schema-violation")["verdicts"]
        _settle(settings, trial)
        held = held_by_sinks(settings, reader)
        replayed = put_back(reader)
    replays = Replays(fault=fault, killed=killed, second=second, third=third, features=features)
    ids = {send.id for send in sends}
    return _report(trial, replays, count=count, ids=ids, held={"raw": replayed, **held}, begun_s=begun_s)


def _sends(trial: Trial, letters: int, generator: random.Random) -> list[Send]:
    """As many broken events as letters are wanted, and some good ones among them."""
    plan = plan_sends(run=f"letters-{trial.seed:x}", keys=_KEYS, mix={}, generator=generator)
    good = letters // _GOOD_EVERY
    return [
        send if number % _GOOD_EVERY == 0 and number // _GOOD_EVERY < good else _broken(send)
        for number, send in enumerate(islice(plan, letters + good))
    ]


def _broken(send: Send) -> Send:
    document = orjson.loads(send.body)
    document["data"][_SURPLUS] = "red"
    return replace(send, kind="schema-violation", body=orjson.dumps(document))


def _in_the_middle(letters: int, generator: random.Random) -> int:
    """Draw the transaction that is killed, between a third and two thirds of them."""
    transactions = letters // BATCH_LETTERS
    return generator.randrange(transactions // 3 + 1, transactions * 2 // 3 + 1) + 1


def _reject(settings: Settings, reader: LogReader, sends: Sequence[Send], letters: int) -> None:
    """Send everything through the door, and wait until every broken event is a letter."""
    with httpx.Client(base_url=settings.load_balancer_url, timeout=30) as door:
        for start in range(0, len(sends), _POST):
            body = b"[" + b",".join(send.body for send in sends[start : start + _POST]) + b"]"
            door.post(PATH, content=body, headers={"content-type": BATCH}).raise_for_status()
    _until(lambda: sum(1 for _ in reader.read(EVENTS_ENRICHED_LETTERS)) == letters, f"{letters} letters are there")


def _killed_replay(desk: Desk, *, nth: int) -> Fault:
    """Start a replay, wait until its ``nth`` transaction is written and not committed, and kill it there."""
    log = desk.settings.state / "log" / "killed-replay.log"
    point = f"{DESK}.before_commit"
    with log.open("w", encoding="utf-8") as output:
        replay = desk.start("replay", "--all-fixed", failpoints=f"{point}={nth}:hang", output=output)
        try:
            _until(lambda: f'"{point}"' in log.read_text(encoding="utf-8"), f"the replay reached {point} no. {nth}")
        finally:
            replay.kill()
            code = replay.wait(_PATIENCE_S)
    fault = Fault(
        kind="letters", name="headway letters replay", what="kill", at_s=monotonic_s(), pid=replay.pid, point=point
    )
    if code != -9:
        raise PermanentFailure(f"letters: the replay ended with {code} before it could be killed; see {log}")
    return fault


def _proof(fault: Fault, killed: int, count: int) -> str | None:
    if not 0 < killed < count:
        return None
    return f"pid {fault.pid} ended with -9 (SIGKILL) in a transaction; {killed:,} of {count:,} put back by then"


def _tick_to(settings: Settings, after_us: int) -> int:
    """Say that event time has passed an instant; returns the tick."""
    tick_us = (after_us // TICK_STEP_US + 1) * TICK_STEP_US
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
    publisher.publish([tick_record(EVENTS_RAW, tick_us, partition=number) for number in range(PARTITIONS)])
    publisher.close()
    return tick_us


def _settle(settings: Settings, trial: Trial) -> None:
    with open_stores(bootstrap=settings.kafka_bootstrap, lake=settings.lake, search_url=settings.search_url) as stores:
        if stores.search is None:
            raise TransientFailure(f"{settings.search_url}: no search node answers, so not every sink can be read")
        books_at_rest(stores, say=trial.say)


def _report(
    trial: Trial,
    replays: Replays,
    *,
    count: int,
    ids: Collection[str],
    held: Mapping[str, Counter[str]],
    begun_s: float,
) -> Report:
    # In events.raw it is the letters that are counted: each put back once, whatever the Enricher makes of a repeat.
    wanted = {name: held[name].keys() if name == "raw" else ids for name in held}
    broken = {name: offences(counted, wanted[name]) for name, counted in held.items()}
    if replays.features.named:
        broken["online"] = replays.features.named
    return Report(
        trial=trial,
        n=count,
        violations={name: named[:_NAMED] for name, named in broken.items() if named},
        wants={
            f"letters put back = {count:,}, got {len(held['raw']):,}": len(held["raw"]) == count,
            f"the second replay takes the rest, got {dict(replays.second)}": (
                replays.second == {"replay": count - replays.killed}
            ),
            f"the third finds all of them done, got {dict(replays.third)}": replays.third == {"replayed-before": count},
            f"online values compared > 0, got {replays.features.checked:,}": replays.features.checked > 0,
        },
        figures={
            "put_back_by_the_kill": replays.killed,
            **{f"{name}_events": counted.total() for name, counted in held.items()},
            "not_once": {name: len(named) for name, named in broken.items()},
            "online_values_checked": replays.features.checked,
            "online_values_wrong": replays.features.wrong,
        },
        faults=[replays.fault],
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )


def _until(true: Callable[[], bool], what: str) -> None:
    deadline_s = monotonic_s() + _PATIENCE_S
    while not true():
        if monotonic_s() > deadline_s:
            raise TransientFailure(f"letters: not within {_PATIENCE_S:.0f} s: {what}")
        time.sleep(0.3)
