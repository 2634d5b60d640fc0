"""R13: replicas, Ray's controller and the feature store killed under a load of predictions, and nobody notices.

Then what stands alone on one machine, which cannot go unnoticed: the load balancer, Ray's raylet and its GCS. Of these
it is told how long they were missed. Every answer of both parts is compared with the prediction computed apart.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from headway.adapters.mlflow import MlflowRegistry
from headway.adapters.redis_views import OnlineViews
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.manifest import Manifest
from headway.product import Product
from headway.registry import CHAMPION, LIVE, ModelRegistry
from headway.settings import Settings
from orchestration.chaos.answer_verdict import AnswerVerdict, Window, judge_answers
from orchestration.chaos.answerers import Answerers
from orchestration.chaos.asking import PredictionLoad, bodies_of, expected_answers, rows_by_entity
from orchestration.chaos.faults import Fault, Injector, Planned, is_kind
from orchestration.chaos.report import Report, Trial, quantile
from orchestration.chaos.scoring import FROM_US, fill_store, is_bad, model_version, plan_questions, plan_rows
from orchestration.chaos.stack import own_stack
from products.catalogue import find_product

PRODUCT = "flight_delay"
PARTS = ("release-guard", "topics")
REPLICAS = 2
_DAYS = 8
_LIVE_WITHIN_S = 180.0
_PROVEN_WITHIN_S = 90.0
_EVERY_S = 0.5
# A fault is not over when the process is back: the next check of the load balancer, the next try of the reader.
_SLACK_S = 2.0
# A fault must show what it does to the load, and the load that it is over.
_TAIL_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a run: faults that nobody may notice come evenly, then those of ``alone`` one after the other."""

    rate_per_s: float
    every_s: float
    replicas: int
    others: int
    alone: tuple[str, ...]
    least_asked: int
    timed: bool


SHORT = Size(rate_per_s=40, every_s=12, replicas=4, others=1, alone=("haproxy",), least_asked=2_500, timed=False)
FULL = Size(
    rate_per_s=100,
    every_s=15,
    replicas=20,
    others=2,
    alone=("haproxy", "haproxy", "haproxy", "raylet", "gcs"),
    least_asked=30_000,
    timed=True,
)
_FULL_WITHIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Missed:
    """For how long a process was missed, of how long it was watched."""

    name: str
    missed_s: float
    watched_s: float


def run(trial: Trial) -> Report:
    """Run R13 on a stack of its own."""
    size = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    product = find_product(PRODUCT)
    events = [event for event in plan_questions(days=_DAYS, generator=generator) if not is_bad(event)]
    with own_stack(PARTS, mutant=trial.mutant, environment={}, say=trial.say) as settings:
        version = model_version(product, events, seed=trial.seed)
        rows = plan_rows(product, events, generator)
        fill_store(settings, product, rows)
        _mark_backfilled(settings, product)
        _go_live(MlflowRegistry(settings.mlflow_url), version, trial)
        bodies = bodies_of(product, events)
        answerers = Answerers(settings, product=PRODUCT, replicas=REPLICAS)
        _wait_for_replicas(answerers)
        injector = Injector(answerers, trial.say)
        begun_s = monotonic_s()
        try:
            load = PredictionLoad(settings, product, bodies, rate_per_s=size.rate_per_s)
            together = plan_faults(size)
            trial.say(f"{size.rate_per_s:.0f} predictions/s; {len(together)} faults that nobody may notice")
            load.start()
            _kill_in_turn(injector, together, answerers)
            slips = [load.finish().start_slip_s]
            unnoticed = list(injector.faults)
            alone = PredictionLoad(settings, product, bodies, rate_per_s=size.rate_per_s)
            trial.say(f"now {', '.join(size.alone)}, which will be missed")
            alone.start()
            for kind in size.alone:
                _kill_in_turn(injector, [Planned(at_s=0, kind=kind, what="kill")], answerers)
            slips.append(alone.finish().start_slip_s)
            ended_s = monotonic_s()
            noticed = injector.faults[len(unnoticed) :]
        finally:
            injector.close()
        expected = expected_answers(product, version, bodies, rows_by_entity(product, rows))
        first = judge_answers(load.answers, expected=expected, away=_away(unnoticed))
        second = judge_answers(alone.answers, expected=expected, away=[])
    missed_s = _missed_s(second, noticed, ended_s=ended_s)
    return _report(trial, size, (first, second), (unnoticed, noticed), missed_s, slip_s=max(slips), begun_s=begun_s)


def plan_faults(size: Size) -> list[Planned]:
    """Return the faults that nobody may notice: a replica at every step, the others between them."""
    faults = [Planned(at_s=5 + place * size.every_s, kind="replica", what="kill") for place in range(size.replicas)]
    stretch_s = size.every_s * size.replicas / size.others
    for kind, share in (("controller", 0.3), ("valkey", 0.7)):
        for place in range(size.others):
            # Half-way between two replicas.
            step = round((place + share) * stretch_s / size.every_s)
            faults.append(Planned(at_s=5 + (step + 0.5) * size.every_s, kind=kind, what="kill"))
    return sorted(faults, key=lambda fault: fault.at_s)


def _kill_in_turn(injector: Injector, plan: Sequence[Planned], answerers: Answerers) -> None:
    """Kill at the times planned, and go on until all is back: of what stands twice one at a time, others between."""
    begun_s = monotonic_s()
    for planned in plan:
        time.sleep(max(0.0, begun_s + planned.at_s - monotonic_s()))
        if planned.kind == "replica":
            _wait_for_replicas(answerers)
        injector.do(planned)
    injector.wait_until_proven(within_s=_PROVEN_WITHIN_S)
    _wait_for_replicas(answerers)
    time.sleep(_TAIL_S)


def _mark_backfilled(settings: Settings, product: Product) -> None:
    views = OnlineViews(f"redis://{settings.online_store}", settings.feast_project)
    try:
        for view in product.feature_views.values():
            views.mark_bootstrapped(view.online_name, digest=view.digest, until_us=FROM_US)
    finally:
        views.close()


def _go_live(registry: ModelRegistry, version: tuple[bytes, Manifest], trial: Trial) -> None:
    made = registry.register(*version, metrics={}, params={}, tags={}, run=None)
    registry.set_alias(PRODUCT, CHAMPION, made.version)
    deadline_s = monotonic_s() + _LIVE_WITHIN_S
    while (live := registry.alias(PRODUCT, LIVE)) is None or live.version != made.version:
        if monotonic_s() > deadline_s:
            raise TransientFailure(f"{PRODUCT} version {made.version}: not live within {_LIVE_WITHIN_S:.0f} s")
        time.sleep(_EVERY_S)
    trial.say(f"{PRODUCT} version {made.version} is live")


def _wait_for_replicas(answerers: Answerers) -> None:
    deadline_s = monotonic_s() + _LIVE_WITHIN_S
    while True:
        found = [each for name, each in answerers().items() if is_kind(name, "replica")]
        if all(each["state"] == "ready" for each in found):
            return
        if monotonic_s() > deadline_s:
            raise TransientFailure(f"replicas: {found}, wanted all of them asked within {_LIVE_WITHIN_S:.0f} s")
        time.sleep(_EVERY_S)


def _away(faults: Sequence[Fault]) -> list[Window]:
    return [
        Window(from_s=fault.at_s - _SLACK_S, until_s=fault.at_s + (fault.down_s or 0.0) + _SLACK_S)
        for fault in faults
        if is_kind(fault.name, "valkey")
    ]


def _report(
    trial: Trial,
    size: Size,
    verdicts: tuple[AnswerVerdict, AnswerVerdict],
    faults: tuple[Sequence[Fault], Sequence[Fault]],
    missed: Sequence[Missed],
    *,
    slip_s: float,
    begun_s: float,
) -> Report:
    first, second = verdicts
    unnoticed, noticed = faults
    asked = first.counts["requests"]
    full_s = [fault.down_s for fault in unnoticed if is_kind(fault.name, "replica") and fault.down_s is not None]
    kills = sum(is_kind(fault.name, "replica") for fault in unnoticed)
    full = {
        f"full capacity <= {_FULL_WITHIN_S:.0f} s after a replica's end, got {max(full_s, default=0):.1f} s": (
            bool(full_s) and max(full_s) <= _FULL_WITHIN_S
        ),
    }
    return Report(
        trial=trial,
        n=asked,
        violations={
            **first.violations,
            **{
                f"{name} while somebody was missed": lines
                for name, lines in second.violations.items()
                if name != "not answered"
            },
        },
        wants={
            f"requests >= {size.least_asked:,}, got {asked:,}": asked >= size.least_asked,
            f"replicas killed {size.replicas}, got {kills}": kills == size.replicas,
            "answers again after whatever was missed": all(
                each.missed_s < each.watched_s - _SLACK_S for each in missed
            ),
            **(full if size.timed else {}),
        },
        figures={
            "unnoticed": dict(first.counts),
            "unnoticed_success": f"{first.success:.3%}",
            "missed": dict(second.counts),
            "missed_success": f"{second.success:.3%}",
            "missed_s": [f"{each.name}: {each.missed_s:.1f}" for each in missed],
            "full_capacity_p50_s": round(quantile(full_s, 0.5), 1),
            "full_capacity_max_s": round(max(full_s, default=0), 1),
            "driver_slip_s": round(slip_s, 3),
        },
        faults=[*unnoticed, *noticed],
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )


def _missed_s(verdict: AnswerVerdict, faults: Sequence[Fault], *, ended_s: float) -> list[Missed]:
    """How long each was missed: until the last request that was not answered, of those before the next fault."""
    ends = [*(fault.at_s for fault in faults[1:]), ended_s]
    # What was under way when the next one was killed is not this one's.
    windows = [
        Window(from_s=fault.at_s, until_s=until_s - _SLACK_S) for fault, until_s in zip(faults, ends, strict=True)
    ]
    return [
        Missed(name=fault.name, missed_s=verdict.outage_s(window), watched_s=window.until_s - window.from_s)
        for fault, window in zip(faults, windows, strict=True)
    ]
