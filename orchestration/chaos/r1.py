"""R1: random SIGKILLs over the event plane under load, its ledger settled end to end.

The same drive first runs without faults, which gives the rate to compare with on the machine as it is.
"""

import random
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.clock import monotonic_s
from orchestration.chaos.driver import Schedule
from orchestration.chaos.faults import is_kind, plan_kills
from orchestration.chaos.features import Features, differing_features
from orchestration.chaos.load import USUAL_MIX, plan_sends
from orchestration.chaos.report import Report, Trial, acked_per_s, quantile, seconds_to_next_ack
from orchestration.chaos.running import Judged, Running, judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack, processes_of

# In the event plane there is no more to kill; what the stack does not run is left out.
KINDS = (
    "collector",
    "enricher",
    "features-fan-out",
    "features-aggregate",
    "online-writer",
    "lake-loader",
    "search-loader",
    "search",
    "enrichment",
    "valkey",
    "kafka",
    "kafka-watch",
    "letters-watch",
    "haproxy",
)
_KEYS = 200
_WATERMARK_WITHIN_S = 60.0
_LATER_S = 1.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run. ``least_*`` are what it has to reach for its claim.

    After the last fault the load goes on until enough is acknowledged, for ``longer_s`` at most: a busy machine makes
    the test longer, not red. ``timed`` adds what is promised in seconds, which needs a quiet machine.
    """

    schedule: Schedule
    calm_s: float
    faults_s: float
    longer_s: float
    faults: int
    timed: bool
    least_acked: int
    least_singles: int


SHORT = Plan(
    schedule=Schedule(batches_per_s=14, batch_size=20, singles_per_s=40),
    calm_s=10,
    faults_s=90,
    longer_s=240,
    faults=12,
    timed=False,
    least_acked=25_000,
    least_singles=2_000,
)
FULL = Plan(
    schedule=Schedule(batches_per_s=22, batch_size=20, singles_per_s=60),
    calm_s=30,
    faults_s=480,
    longer_s=120,
    faults=36,
    timed=True,
    least_acked=200_000,
    least_singles=20_000,
)
_LEAST_RATE = 0.70
_MOST_TO_NEXT_ACK_S = 15.0


def run(trial: Trial) -> Report:
    """Run R1 on a stack of its own."""
    plan = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    count = int(plan.schedule.events_per_s * (plan.calm_s + plan.faults_s + plan.longer_s))
    sends = list(islice(plan_sends(run=f"r1-{trial.seed:x}", keys=_KEYS, mix=USUAL_MIX, generator=generator), count))
    with own_stack((*EVENT_PLANE, "search"), mutant=trial.mutant, environment={}, say=trial.say) as settings:
        running_names = processes_of(settings)
        kinds = [kind for kind in KINDS if any(is_kind(name, kind) for name in running_names)]
        trial.say(f"{plan.schedule.events_per_s:.0f} events/s; SIGKILL for {', '.join(kinds)}")
        kills = plan_kills(
            kinds,
            count=plan.faults,
            first_s=plan.calm_s,
            # The last ones must show what they do to the load, too.
            last_s=plan.calm_s + plan.faults_s - 5,
            generator=generator,
        )
        # What a Collector has not yet had acknowledged dies with it: most, while the broker is away.
        kills += [replace(kill, at_s=kill.at_s + _LATER_S, kind="collector") for kill in kills if kill.kind == "kafka"]
        kills.sort(key=lambda kill: kill.at_s)
        with load_on(settings, trial, sends, plan.schedule) as running:
            running.injector.inject(kills, begun_s=running.begun_s)
            running.wait_until(plan.calm_s + plan.faults_s)
            running.go_on_until(plan.least_acked)
        judged = judge(running)
        features = differing_features(
            settings, DOMAIN, Lake(Path(settings.lake)), as_of_us=running.end_us, within_s=_WATERMARK_WITHIN_S
        )
    return _report(plan, running, judged, features)


def _report(plan: Plan, running: Running, judged: Judged, features: Features) -> Report:
    told, verdict, faults, begun_s = judged.journal, judged.verdict, running.injector.faults, running.begun_s
    calm = acked_per_s(told, from_s=begun_s, until_s=begun_s + plan.calm_s)
    under_faults = acked_per_s(told, from_s=begun_s + plan.calm_s, until_s=begun_s + plan.calm_s + plan.faults_s)
    waits = seconds_to_next_ack(told, faults)
    singles = verdict.counts["singles_acked"]
    least_faults = plan.faults * 5 // 6
    timed = {
        f"accepted rate >= {_LEAST_RATE:.0%} of the fault-free {calm:.0f}/s, got {under_faults:.0f}/s": (
            under_faults >= _LEAST_RATE * calm
        ),
        f"p95 to the next ack <= {_MOST_TO_NEXT_ACK_S:.0f} s, got {quantile(waits, 0.95):.1f} s": (
            quantile(waits, 0.95) <= _MOST_TO_NEXT_ACK_S
        ),
    }
    return Report(
        trial=running.trial,
        n=verdict.acked,
        violations={**verdict.named(), **({"features": features.named} if features.named else {})},
        wants={
            f"acked >= {plan.least_acked:,}, got {verdict.acked:,}": verdict.acked >= plan.least_acked,
            f"single posts acked >= {plan.least_singles:,}, got {singles:,}": singles >= plan.least_singles,
            f"faults >= {least_faults}, got {len(faults)}": len(faults) >= least_faults,
            **(timed if plan.timed else {}),
        },
        figures={
            **verdict.facts(),
            "offered_per_s": plan.schedule.events_per_s,
            "acked_per_s_without_faults": round(calm, 1),
            "acked_per_s_under_faults": round(under_faults, 1),
            "rate_kept": round(under_faults / calm, 3) if calm else None,
            "next_ack_p50_s": round(quantile(waits, 0.5), 2),
            "next_ack_p95_s": round(quantile(waits, 0.95), 2),
            "next_ack_max_s": round(quantile(waits, 1.0), 2),
            "driver_slip_s": round(running.driver.slip_s, 3),
            "feature_values_checked": features.checked,
            "feature_values_wrong": features.wrong,
        },
        faults=faults,
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )
