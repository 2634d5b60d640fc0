"""R3: with two of three brokers gone nothing is acknowledged, every refusal is quick and honest, and it ends by itself.

An acknowledgement while fewer copies than ``min.insync.replicas`` can exist is false, whatever stands in the log later:
so none may be given from the moment both brokers are dead until one of them is started again.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import polars as pl

from headway.clock import monotonic_s
from headway.local import lifecycle
from headway.settings import Settings
from headway.topics import EVENTS_RAW
from orchestration.chaos.broker_drive import LogDrive, door, driving
from orchestration.chaos.broker_faults import BrokerCluster
from orchestration.chaos.brokers import LOAD, PARTS, THREE_BROKERS
from orchestration.chaos.driver import BATCH, SINGLE
from orchestration.chaos.report import Report, Trial, quantile
from orchestration.chaos.stack import own_stack

REFUSED_WITHIN_S = 3.0
UNREADY_WITHIN_S = 5.0
RECOVERED_WITHIN_S = 15.0
_HELD_S, _SHORT_HELD_S = 60.0, 15.0
_BEFORE_S = 5.0
_AFTER_S = 5.0
# What was under way when the second broker died may have been acknowledged by it just before.
_IN_FLIGHT_S = 1.0
_PROBE_EVERY_S = 0.25
_BODY = (
    b'{"specversion":"1.0","id":"r3-probe-%d","source":"r3","type":"flight.departed.v1","subject":"r3",'
    b'"time":"2013-07-01T12:00:00Z","data":{}}'
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the Collector said to one probe."""

    asked_s: float
    took_s: float
    ready: int
    status: int
    honest: bool


@dataclass
class Probe:
    """Asks for readiness and offers one event, several times a second, alternately alone and as a batch."""

    door: str
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="r3-probe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self.door, timeout=10.0) as client:
            while not self._stop.wait(_PROBE_EVERY_S):
                self.answers.append(self._ask(client, len(self.answers)))

    def _ask(self, client: httpx.Client, number: int) -> Answer:
        asked_s = monotonic_s()
        try:
            ready = client.get("/readyz").status_code
            began_s = monotonic_s()
            alone = number % 2 == 0
            body, kind = (_BODY % number, SINGLE) if alone else (b"[" + _BODY % number + b"]", BATCH)
            answer = client.post("/v1/events", content=body, headers={"content-type": kind})
        except httpx.TransportError:
            return Answer(asked_s=asked_s, took_s=monotonic_s() - asked_s, ready=0, status=0, honest=False)
        problem = answer.headers.get("content-type", "").startswith("application/problem+json")
        # A batch answers per event, as application/json; each result is a problem document in itself.
        honest = "retry-after" in answer.headers and (problem or not alone)
        return Answer(
            asked_s=asked_s,
            took_s=monotonic_s() - began_s,
            ready=ready,
            status=answer.status_code,
            honest=answer.status_code != 503 or honest,
        )


@dataclass(frozen=True, kw_only=True)
class Gone:
    """Two brokers that were gone for a while."""

    name: str
    killed_s: float
    started_s: float
    enough_s: float
    pids: Sequence[int | None]

    @property
    def proof(self) -> str | None:
        """What proves it: both had a process, and have another now."""
        before, after = self.pids[:2], self.pids[2:]
        return f"pids {before} -> {after}" if None not in self.pids and not set(before) & set(after) else None

    def facts(self, *, begun_s: float) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "at_s": round(self.killed_s - begun_s, 2),
            "process": self.name,
            "what": "kill",
            "gone_s": round(self.started_s - self.killed_s, 2),
            "enough_ready_s": round(self.enough_s - self.started_s, 2),
            "pids": list(self.pids),
            "proof": self.proof,
        }


def run(trial: Trial) -> Report:
    """Run R3."""
    with own_stack(PARTS, mutant=trial.mutant, environment=THREE_BROKERS, say=trial.say) as settings:
        return _run(trial, settings, held_s=_SHORT_HELD_S if trial.short else _HELD_S)


def _run(trial: Trial, settings: Settings, *, held_s: float) -> Report:
    begun_s = monotonic_s()
    cluster = BrokerCluster(settings, topic=EVENTS_RAW)
    longest_s = _BEFORE_S + held_s + RECOVERED_WITHIN_S + _AFTER_S + 60.0
    try:
        cluster.wait_whole()
        with driving(settings, trial, LOAD, longest_s=longest_s) as drive:
            probe = Probe(door(settings))
            time.sleep(_BEFORE_S)
            gone = _take_two(cluster, held_s=held_s)
            trial.say(
                f"two brokers gone for {gone.started_s - gone.killed_s:.0f} s; enough of them ready "
                f"{gone.enough_s - gone.started_s:.1f} s after their start"
            )
            cluster.wait_whole()
            time.sleep(_AFTER_S)
            probe.close()
            drive.stop()
            journal = drive.told()
    finally:
        cluster.close()
    return _judge(trial, drive, journal, probe.answers, gone, begun_s=begun_s)


def _judge(
    trial: Trial, drive: LogDrive, journal: pl.DataFrame, answers: Sequence[Answer], gone: Gone, *, begun_s: float
) -> Report:
    account = drive.settle(journal)
    acked = journal.filter(journal["outcome"] == "acked")
    during = journal.filter(journal["sent_s"].is_between(gone.killed_s + _IN_FLIGHT_S, gone.started_s))
    during = during.filter(during["answered_s"] < gone.started_s)
    false = during.filter(during["outcome"] == "acked")
    refusals = [each for each in answers if gone.killed_s < each.asked_s < gone.started_s and each.status != 202]
    slow_s = quantile([each.took_s for each in refusals], 0.99)
    unready_s = _first(gone.killed_s, (each.asked_s for each in answers if each.ready == 503))
    recovered_s = _first(gone.enough_s, acked["answered_s"])
    dishonest = sum(not each.honest for each in answers)
    wanted = {
        f"events offered while the brokers were gone (got {during.height:,})": during.height > 0,
        f"refused within {REFUSED_WITHIN_S:.0f} s (99 % of {len(refusals)}: {slow_s:.2f} s)": slow_s
        <= REFUSED_WITHIN_S,
        f"every refusal with Retry-After, and as problem+json ({dishonest} without)": not dishonest,
        f"/readyz 503 within {UNREADY_WITHIN_S:.0f} s (after {unready_s} s)": _within(unready_s, UNREADY_WITHIN_S),
        f"acknowledged again within {RECOVERED_WITHIN_S:.0f} s of enough brokers (after {recovered_s} s)": _within(
            recovered_s, RECOVERED_WITHIN_S
        ),
        f"no answer but success and 503 (got {account.odd_answers or 'none'})": not account.odd_answers,
    }
    figures = {
        "offered_while_gone": during.height,
        "false_acknowledgements": false.height,
        "refusal_p99_s": round(slow_s, 3),
        "unready_after_s": unready_s,
        "recovered_after_s": recovered_s,
        "driver_slip_s": round(drive.slip_s, 3),
    }
    return Report(
        trial=trial,
        n=during.height,
        violations=account.violations | ({"false acknowledgements": tuple(false["id"])[:20]} if false.height else {}),
        wants=wanted,
        figures=account.figures | figures,
        faults=[gone],
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )


def _first(since_s: float, instants: Iterable[float]) -> float | None:
    """How long after an instant the first of these came; None when none did."""
    after = [at - since_s for at in instants if at > since_s]
    return round(min(after), 2) if after else None


def _within(waited_s: float | None, limit_s: float) -> bool:
    return waited_s is not None and waited_s <= limit_s


def _take_two(cluster: BrokerCluster, *, held_s: float) -> Gone:
    """SIGKILL the leader of most partitions and the controller, or another one, and keep both away for a while."""
    first = cluster.leads_most()
    second = cluster.watch.controller() if cluster.watch.controller() != first else cluster.leads_most(but=[first])
    names = [cluster.name(node) for node in (first, second)]
    before = [cluster.pid(node) for node in (first, second)]
    for pid in before:
        assert pid is not None, f"{names}: one of them is not running"
        os.kill(pid, signal.SIGKILL)
    killed_s = monotonic_s()
    for name in names:
        # The supervisor would start them again within a second.
        lifecycle.direct(cluster.settings, "pause", name, within_s=10.0)
    time.sleep(max(0.0, killed_s + held_s - monotonic_s()))
    started_s = monotonic_s()
    ready_s: list[float] = []

    def resume(name: str) -> None:
        lifecycle.direct(cluster.settings, "resume", name, within_s=90.0)
        ready_s.append(monotonic_s())

    threads = [threading.Thread(target=resume, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Gone(
        name=" and ".join(names),
        killed_s=killed_s,
        started_s=started_s,
        # With the broker that stayed, the first one back makes the two that an acknowledgement needs.
        enough_s=min(ready_s),
        pids=[*before, *(cluster.pid(node) for node in (first, second))],
    )
