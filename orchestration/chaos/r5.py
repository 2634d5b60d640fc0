"""R5: a storm of rebalances: members join, leave, die, and come back from the dead to work on partitions they lost.

A SIGSTOP longer than the session timeout makes a zombie: the group goes on without it, and SIGCONT lets it finish what
it had in hand. Both jobs of the path are stormed at once, once per group protocol, each on a stack of its own.
"""

import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from headway.adapters.kafka_reader import KafkaReader
from headway.clock import monotonic_s
from headway.local import lifecycle
from orchestration.chaos.driver import Schedule
from orchestration.chaos.faults import Planned
from orchestration.chaos.load import USUAL_MIX, plan_sends
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.rescale import rescale
from orchestration.chaos.running import Judged, Running, judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from orchestration.chaos.stamps import longest_wait_s, read_stamps

PROTOCOLS = ("consumer", "classic")
# One that answers in transactions and one that writes outside Kafka.
JOBS = ("enricher", "lake-loader")
Change = Literal["join", "leave", "kill", "stop"]
_FEWEST, _MOST = 1, 3
# The group's session timeout is 6 s, by the broker's settings and by the classic protocol's client alike.
_ZOMBIE_S = 9.0
_SCALED_WITHIN_S = 60.0
_KEYS = 200
_MOST_STALL_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run, per protocol."""

    schedule: Schedule
    storm_s: float
    longer_s: float
    changes: int
    least_acked: int
    timed: bool


SHORT = Plan(
    schedule=Schedule(batches_per_s=10, batch_size=20, singles_per_s=10),
    storm_s=45,
    longer_s=60,
    changes=8,
    least_acked=5_000,
    timed=False,
)
FULL = Plan(
    schedule=Schedule(batches_per_s=14, batch_size=20, singles_per_s=20),
    storm_s=300,
    longer_s=60,
    changes=60,
    least_acked=60_000,
    timed=True,
)


@dataclass(frozen=True, kw_only=True)
class _Storm:
    """What one protocol came to."""

    running: Running
    judged: Judged
    waits_s: Mapping[int, float]
    seconds: float


def run(trial: Trial) -> Report:
    """Run R5 on two stacks of its own, one after the other."""
    plan = SHORT if trial.short else FULL
    storms = {protocol: _under(protocol, plan, trial) for protocol in PROTOCOLS}
    faults = [fault for storm in storms.values() for fault in storm.running.injector.faults]
    stalls = {protocol: max(storm.waits_s.values(), default=0.0) for protocol, storm in storms.items()}
    wants: dict[str, bool] = {}
    for protocol, storm in storms.items():
        kinds = Counter(fault.what for fault in storm.running.injector.faults)
        acked, changes = storm.judged.verdict.acked, sum(kinds.values())
        wants[f"{protocol}: changes >= {plan.changes}, got {changes}"] = changes >= plan.changes
        wants[f"{protocol}: every kind of change, got {dict(sorted(kinds.items()))}"] = len(kinds) == 4
        wants[f"{protocol}: acked >= {plan.least_acked:,}, got {acked:,}"] = acked >= plan.least_acked
        if plan.timed:
            stall = stalls[protocol]
            wants[f"{protocol}: longest stall of a partition <= {_MOST_STALL_S:.0f} s, got {stall:.1f} s"] = (
                stall <= _MOST_STALL_S
            )
    return Report(
        trial=trial,
        n=sum(storm.judged.verdict.acked for storm in storms.values()),
        violations={
            f"{protocol} {name}": lines
            for protocol, storm in storms.items()
            for name, lines in storm.judged.verdict.named().items()
        },
        wants=wants,
        figures={
            protocol: {
                **storm.judged.verdict.facts(),
                "changes": dict(sorted(Counter(fault.what for fault in storm.running.injector.faults).items())),
                "longest_wait_s_by_partition": dict(storm.waits_s),
            }
            for protocol, storm in storms.items()
        },
        faults=faults,
        begun_s=storms[PROTOCOLS[0]].running.begun_s,
        seconds=sum(storm.seconds for storm in storms.values()),
    )


def _under(protocol: str, plan: Plan, trial: Trial) -> _Storm:
    generator = random.Random(f"{trial.seed}/{protocol}")
    count = int(plan.schedule.events_per_s * (plan.storm_s + plan.longer_s))
    run_name = f"r5-{protocol}-{trial.seed:x}"
    sends = list(islice(plan_sends(run=run_name, keys=_KEYS, mix=USUAL_MIX, generator=generator), count))
    trial.say(f"protocol {protocol}")
    begun_s = monotonic_s()
    environment = {"HEADWAY_GROUP_PROTOCOL": protocol}
    with own_stack(EVENT_PLANE, mutant=trial.mutant, environment=environment, say=trial.say) as settings:
        for job in JOBS:
            lifecycle.scale(settings, job, 2, held=True, within_s=_SCALED_WITHIN_S)
        with load_on(settings, trial, sends, plan.schedule) as running:
            each = plan.changes // len(JOBS)
            threads = [
                threading.Thread(target=_storm, args=(running, job, _changes(each, generator), plan.storm_s))
                for job in JOBS
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            running.go_on_until(plan.least_acked)
        judged = judge(running)
        raw, enriched = read_stamps(KafkaReader(bootstrap=settings.kafka_bootstrap))
    return _Storm(
        running=running, judged=judged, waits_s=longest_wait_s(raw, enriched), seconds=monotonic_s() - begun_s
    )


def _changes(count: int, generator: random.Random) -> list[Change]:
    """Every kind in turn, in a drawn order each round."""
    kinds: tuple[Change, ...] = ("join", "leave", "kill", "stop")
    drawn: list[Change] = []
    while len(drawn) < count:
        drawn += generator.sample(kinds, len(kinds))
    return drawn[:count]


def _storm(running: Running, job: str, changes: Sequence[Change], storm_s: float) -> None:
    """Do the changes of one job one after the other, each at its time or when the one before it is through."""
    instances = 2
    for place, change in enumerate(changes):
        running.wait_until((place + 0.5) * storm_s / len(changes))
        if change == "join" and instances == _MOST:
            change = "leave"  # noqa: PLW2901 - the other change of the same number
        elif change == "leave" and instances == _FEWEST:
            change = "join"  # noqa: PLW2901
        if change in ("join", "leave"):
            instances += 1 if change == "join" else -1
            rescale(running.settings, running.injector, job, instances, change=change, say=running.trial.say)
        else:
            running.injector.do(Planned(at_s=0, kind=job, what=change, hold_s=_ZOMBIE_S if change == "stop" else 0.0))
