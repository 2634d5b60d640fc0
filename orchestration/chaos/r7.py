"""R7: the Enricher is exactly-once: killed at named points of its transaction and at random, with the broker bounced.

The fail-points kill from inside, with the chance given to each; SIGKILLs come on top, so that the least number is
reached whatever the rate of batches on this machine.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from headway.adapters.kafka_reader import KafkaReader
from headway.clock import monotonic_s
from headway.failpoints import PLAN_VARIABLE, SEED_VARIABLE
from orchestration.chaos.driver import Schedule
from orchestration.chaos.failpoint_log import FailPointLog
from orchestration.chaos.faults import Fault, Planned, plan_kills
from orchestration.chaos.load import Kind, plan_sends
from orchestration.chaos.report import Report, Trial, quantile
from orchestration.chaos.running import Judged, Running, judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from orchestration.chaos.stamps import read_stamps, seconds_to_resume

POINTS = (
    "before_handle",
    "after_handle",
    "before_produce",
    "after_produce",
    "before_commit",
    "after_commit",
    "during_letter",
)
# Between these a transaction holds records whose offsets are not committed.
INSIDE = ("after_produce", "before_commit")
_JOB = "enricher"
_KEYS = 400
_MIX: dict[Kind, float] = {
    "duplicate": 0.03,
    "unknown-type": 0.02,
    "schema-violation": 0.04,
    "enrichment-refused": 0.02,
    "invalid-envelope": 0.005,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run; ``chance`` is each fail-point's, per hit."""

    schedule: Schedule
    faults_s: float
    longer_s: float
    sigkills: int
    chance: float
    least_kills: int
    least_raw: int
    timed: bool


SHORT = Plan(
    schedule=Schedule(batches_per_s=8, batch_size=50, singles_per_s=2),
    faults_s=45,
    longer_s=180,
    sigkills=3,
    chance=0.01,
    least_kills=5,
    least_raw=12_000,
    timed=False,
)
FULL = Plan(
    schedule=Schedule(batches_per_s=11, batch_size=50, singles_per_s=2),
    faults_s=300,
    longer_s=240,
    sigkills=8,
    chance=0.002,
    least_kills=15,
    least_raw=150_000,
    timed=True,
)
_MOST_TO_RESUME_S = 12.0


def run(trial: Trial) -> Report:
    """Run R7 on a stack of its own."""
    plan = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    count = int(plan.schedule.events_per_s * (plan.faults_s + plan.longer_s))
    sends = list(islice(plan_sends(run=f"r7-{trial.seed:x}", keys=_KEYS, mix=_MIX, generator=generator), count))
    environment = {
        PLAN_VARIABLE: ",".join(f"{_JOB}.{point}={plan.chance}:kill" for point in POINTS),
        SEED_VARIABLE: str(trial.seed),
    }
    kills = plan_kills([_JOB], count=plan.sigkills, first_s=5, last_s=plan.faults_s - 5, generator=generator)
    bounces = [
        Planned(at_s=plan.faults_s / 3, kind="kafka", what="kill"),
        Planned(at_s=plan.faults_s * 2 / 3, kind="kafka", what="term"),
    ]
    with own_stack(EVENT_PLANE, mutant=trial.mutant, environment=environment, say=trial.say) as settings:
        log = FailPointLog(settings.state / "log" / f"{_JOB}.log", kind=_JOB)
        with load_on(settings, trial, sends, plan.schedule) as running, log.watched(running.injector):
            running.injector.inject(sorted([*kills, *bounces], key=lambda each: each.at_s), begun_s=running.begun_s)
            running.wait_until(plan.faults_s)
            running.go_on_until(plan.least_raw, and_also=lambda: _is_enough(running.injector.faults, plan))
        judged = judge(running)
        _, enriched = read_stamps(KafkaReader(bootstrap=settings.kafka_bootstrap))
        resumed = seconds_to_resume(enriched, [fault.at_ms for fault in running.injector.faults if fault.kind == _JOB])
    return _report(plan, running, judged, resumed)


def _is_enough(faults: Sequence[Fault], plan: Plan) -> bool:
    kills = [fault for fault in faults if fault.kind == _JOB]
    return len(kills) >= plan.least_kills and any(fault.point in INSIDE for fault in kills)


def _report(plan: Plan, running: Running, judged: Judged, resumed: Sequence[float]) -> Report:
    verdict, faults = judged.verdict, running.injector.faults
    kills = [fault for fault in faults if fault.kind == _JOB]
    inside = [fault for fault in kills if fault.point in INSIDE]
    bounced = [fault for fault in faults if fault.kind == "kafka"]
    raw = verdict.counts["ledger"]["raw"]
    timed = {
        f"the job enriches again <= {_MOST_TO_RESUME_S:.0f} s after a kill, the last of those in a row (p95), "
        f"got {quantile(resumed, 0.95):.1f} s": (quantile(resumed, 0.95) <= _MOST_TO_RESUME_S)
    }
    return Report(
        trial=running.trial,
        n=raw,
        violations=verdict.named(),
        wants={
            f"inputs >= {plan.least_raw:,}, got {raw:,}": raw >= plan.least_raw,
            f"kills of the {_JOB} >= {plan.least_kills}, got {len(kills)}": len(kills) >= plan.least_kills,
            f"kills between produce and commit >= 1, got {len(inside)}": bool(inside),
            f"broker bounces: wanted 2, got {len(bounced)}": len(bounced) == 2,
            **(timed if plan.timed else {}),
        },
        figures={
            **verdict.facts(),
            "kills_by_point": dict(sorted(Counter(fault.point or "outside" for fault in kills).items())),
            "resume_p50_s": round(quantile(resumed, 0.5), 2),
            "resume_p95_s": round(quantile(resumed, 0.95), 2),
            "resume_max_s": round(quantile(resumed, 1.0), 2),
            "driver_slip_s": round(running.driver.slip_s, 3),
        },
        faults=faults,
        begun_s=running.begun_s,
        seconds=monotonic_s() - running.begun_s,
    )
