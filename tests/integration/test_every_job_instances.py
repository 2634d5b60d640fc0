"""Every stream job with 2, 4 and 5 instances under load, one of them killed: shares, idling, and what it all came to.

One stack for all: the load goes on while the jobs have their turns, and is accounted for at the end. The supervisor
refuses the fifth instance, so the test starts it itself.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.announcement import read_announcement
from headway.errors import PermanentFailure
from headway.local import lifecycle
from headway.local.stack import announcements
from headway.settings import LOOPBACK, Settings
from headway.topics import PARTITIONS
from orchestration.chaos.driver import Schedule
from orchestration.chaos.features import Features, differing_features
from orchestration.chaos.load import USUAL_MIX, plan_sends
from orchestration.chaos.reconcile import Verdict
from orchestration.chaos.report import Trial
from orchestration.chaos.running import judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from products.catalogue import all_products
from streaming.jobs import AGGREGATE, JOBS, Job, Scope, find_job
from tests.held_down import held_down
from tests.job_processes import JobProcess, readiness, samples

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1500)]

SCOPE = Scope(domain=DOMAIN, products=tuple(all_products()))
SHARED = [job for job in JOBS if job.alone is None]
SCHEDULE = Schedule(batches_per_s=4, batch_size=20, singles_per_s=20)
LONGEST_S = 900
SPARE = PARTITIONS
PATIENCE_S = 120.0


def until(holds: Callable[[], bool], *, told: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


@dataclass(frozen=True)
class Team:
    """The instances of one job by number: 0 to 3 are the stack's, 4 is the one it knows nothing of."""

    settings: Settings
    job: Job

    def port(self, number: int) -> int | None:
        if number == 0:
            return self.settings.ports.job_first + JOBS.index(self.job)
        said = read_announcement(announcements(self.settings) / f"{self.job.name}-{number}.json")
        return None if said is None else said.port

    def says(self, number: int) -> Mapping[str, Any]:
        port = self.port(number)
        return {"ready": False} if port is None else readiness(LOOPBACK, port)

    def metric(self, number: int, name: str) -> float:
        port = self.port(number)
        assert port is not None
        (value,) = samples(LOOPBACK, port, name)
        return value

    def shares(self) -> dict[int, list[str]]:
        said = {number: self.says(number) for number in range(PARTITIONS + 1)}
        return {number: answer["owned"] for number, answer in said.items() if answer["ready"]}

    def until_split(self, *, working: int, idle: int) -> dict[int, list[str]]:
        """Wait until so many share every partition of every topic, none twice, and so many have none; give who has what."""
        places = sorted(f"{topic}/{each}" for topic in self.job.topics(SCOPE) for each in range(PARTITIONS))

        def settled() -> bool:
            owned = list(self.shares().values())
            counts = (sum(map(bool, owned)), owned.count([]))
            return counts == (working, idle) and sorted(place for each in owned for place in each) == places

        until(settled, told=lambda: (self.job.name, working, idle, self.shares()))
        return self.shares()


def name_of(job: Job, number: int) -> str:
    return job.name if number == 0 else f"{job.name}-{number}"


def take_turn(settings: Settings, job: Job, say: Callable[[str], None]) -> None:
    """Two instances, four, five; one killed and held down; then one again."""
    team, began_s = Team(settings, job), time.monotonic()
    for count in (2, PARTITIONS):
        lifecycle.scale(settings, job.name, count, held=True, within_s=PATIENCE_S)
        split = team.until_split(working=count, idle=0)
        say(f"{job.name:<18} {count} instances have {sorted(map(len, split.values()))} partitions")
    with pytest.raises(PermanentFailure, match=f"got {PARTITIONS + 1} instances, wanted 1 to {PARTITIONS}"):
        lifecycle.scale(settings, job.name, PARTITIONS + 1, held=True, within_s=PATIENCE_S)

    # As the stack's own: it asks the Enrichment API through the load balancer.
    own = settings.model_copy(update={"enrichment_url": settings.load_balancer_url})
    spare = JobProcess(job.name, SPARE, own)
    spare.start()
    try:
        split = team.until_split(working=PARTITIONS, idle=1)
        idle = next(number for number, owned in split.items() if not owned)
        assert {name: team.says(idle)[name] for name in ("ready", "idle", "partitions")} == {
            "ready": True,
            "idle": True,
            "partitions": 0,
        }
        until(lambda: team.metric(idle, "headway_job_idle") == 1, told=lambda: "no metric of idling")
        victim = next(number for number, owned in split.items() if owned and number != SPARE)
        name = name_of(job, victim)
        killed_s = time.monotonic()
        with held_down(settings, [name], say=say):
            team.until_split(working=PARTITIONS, idle=0)
            assert team.says(idle)["idle"] is False
            took_s = time.monotonic() - killed_s
        team.until_split(working=PARTITIONS, idle=1)
        say(
            f"{job.name:<18} {PARTITIONS + 1} instances: {name_of(job, idle)} idles; {name} was killed, and the idle one "
            f"works after {took_s:.1f} s"
        )
    finally:
        code = spare.stop()
    assert code == 0
    lifecycle.scale(settings, job.name, 1, held=True, within_s=PATIENCE_S)
    team.until_split(working=1, idle=0)
    say(f"{job.name:<18} 1 instance again; {time.monotonic() - began_s:.0f} s")


def drive(jobs: Sequence[Job], *, mutant: str | None, parts: Sequence[str]) -> tuple[Verdict, Features]:
    """Give every job its turn under load; what the drive came to, and whether the online store says what events say."""
    trial = Trial(test="instances", short=False, seed=7, mutant=mutant, say=print)
    plan = plan_sends(run="instances", keys=200, mix=USUAL_MIX, generator=random.Random(trial.seed))
    sends = list(islice(plan, int(SCHEDULE.events_per_s * LONGEST_S)))
    with own_stack(parts, mutant=mutant, environment={}, say=print) as settings:
        with load_on(settings, trial, sends, SCHEDULE) as running:
            for job in jobs:
                take_turn(settings, job, print)
            assert running.drive.sending, "the load ended before the jobs had their turns; raise LONGEST_S"
        verdict = judge(running).verdict
        lake = Lake(Path(settings.lake))
        features = differing_features(settings, DOMAIN, lake, as_of_us=running.end_us, within_s=PATIENCE_S)
    trial.say(
        f"{verdict.acked:,} acknowledged; ledger {verdict.counts['ledger']}; broken: {verdict.named() or 'nothing'}"
    )
    trial.say(f"{features.checked:,} online values compared with recomputation, {features.wrong} differ")
    return verdict, features


def test_every_job_shares_idles_and_takes_over_under_load_and_nothing_is_lost_doubled_or_computed_wrong() -> None:
    verdict, features = drive(SHARED, mutant=None, parts=(*EVENT_PLANE, "search", "scorer"))

    assert verdict.held, verdict.facts()
    assert verdict.acked > 10_000
    assert (features.wrong, features.checked > 500) == (0, True), features


def test_an_aggregate_that_takes_over_without_its_state_is_caught() -> None:
    """The planted bug: windows begin anew with every instance that comes."""
    verdict, features = drive([find_job(AGGREGATE)], mutant="state-forgotten", parts=EVENT_PLANE)

    assert verdict.held, verdict.facts()
    assert features.wrong > 0
