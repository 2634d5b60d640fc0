"""R13 of the stream: 1, 2 and 4 scorers, killed in between, answer every question once; the fifth idles and says so.

Killed from inside at the named points of their transactions, with the chance given to each, and by SIGKILL on top. In
the middle another version becomes live: whoever dies or takes over, each answer is of the version that its partition's
plan names for that offset, and computes again from what the answer itself says went in.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.mlflow import MlflowRegistry
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.failpoints import PLAN_VARIABLE, SEED_VARIABLE
from headway.local import lifecycle
from headway.registry import LIVE
from headway.settings import Settings
from headway.topics import PARTITIONS
from orchestration.chaos.failpoint_log import FailPointLog
from orchestration.chaos.faults import Fault, Injector, is_kind, plan_kills
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.scoring import QuestionDrive, fill_store, model_version, plan_questions, plan_rows, steps_of
from orchestration.chaos.scoring_books import judge_scores, settle_scores
from orchestration.chaos.scoring_verdict import ScoringVerdict
from orchestration.chaos.spare import idle_spare
from orchestration.chaos.stack import own_stack, processes_of
from products.catalogue import find_product

JOB = "scorer"
PRODUCT = "flight_delay"
TEAMS = (1, 2, PARTITIONS)
POINTS = ("before_handle", "after_handle", "before_produce", "after_produce", "before_commit", "after_commit")
# Between these a transaction holds scores whose offsets are not committed.
INSIDE = ("after_produce", "before_commit")
_SCALED_WITHIN_S = 120.0
_PROVEN_WITHIN_S = 60.0
_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a run; each team has ``team_s``, and ``chance`` is each fail-point's, per hit."""

    days: int
    steps_per_s: float
    team_s: float
    longer_s: float
    sigkills: int
    chance: float
    least_kills: int
    least_asked: int
    settle_s: float


SHORT = Size(
    days=8, steps_per_s=8, team_s=25, longer_s=90, sigkills=2, chance=0.004, least_kills=6, least_asked=5_000,
    settle_s=180,
)  # fmt: skip
FULL = Size(
    days=60, steps_per_s=24, team_s=75, longer_s=120, sigkills=5, chance=0.002, least_kills=20, least_asked=50_000,
    settle_s=300,
)  # fmt: skip


def run(trial: Trial) -> Report:
    """Run the stream's part of R13 on a stack of its own."""
    size = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    product = find_product(PRODUCT)
    questions = plan_questions(days=size.days, generator=generator)
    environment = {
        PLAN_VARIABLE: ",".join(f"{JOB}.{point}={size.chance}:kill" for point in POINTS),
        SEED_VARIABLE: str(trial.seed),
    }
    with own_stack((JOB,), mutant=trial.mutant, environment=environment, say=trial.say) as settings:
        registry, reader = MlflowRegistry(settings.mlflow_url), KafkaReader(bootstrap=settings.kafka_bootstrap)
        versions = [model_version(product, questions, seed=trial.seed + number) for number in range(2)]
        numbers = [
            registry.register(*version, metrics={}, params={}, tags={}, run=None).version for version in versions
        ]
        registry.set_alias(PRODUCT, LIVE, numbers[0])
        rows = fill_store(settings, product, plan_rows(product, questions, generator))
        trial.say(f"{len(questions):,} questions, {rows:,} rows in the online store, versions {numbers}")
        injector = Injector(lambda: processes_of(settings), trial.say)
        begun_s = monotonic_s()
        try:
            with _kills_noticed(settings, injector):
                drive = QuestionDrive(settings, steps_of(questions), steps_per_s=size.steps_per_s)
                drive.start()
                for team in TEAMS:
                    _scale(settings, team, trial)
                    if team == TEAMS[1]:
                        registry.set_alias(PRODUCT, LIVE, numbers[1])
                    kills = plan_kills([JOB], count=size.sigkills, first_s=2, last_s=size.team_s, generator=generator)
                    injector.inject(kills, begun_s=monotonic_s())
                deadline_s = monotonic_s() + size.longer_s
                while not _is_enough(injector.faults, size) and monotonic_s() < deadline_s:
                    time.sleep(_EVERY_S)
                drive.hurry()
                settle_scores(reader, PRODUCT, asked=drive.written, within_s=size.settle_s, say=trial.say)
                fifth = idle_spare(settings, JOB, trial)
            injector.wait_until_proven(within_s=_PROVEN_WITHIN_S)
        finally:
            injector.close()
        verdict = judge_scores(reader, product, versions)
    return _report(trial, size, verdict, injector.faults, fifth=fifth, begun_s=begun_s)


@contextmanager
def _kills_noticed(settings: Settings, injector: Injector) -> Iterator[None]:
    """Every instance writes a log of its own."""
    names = [JOB if number == 0 else f"{JOB}-{number}" for number in range(PARTITIONS)]
    with ExitStack() as watching:
        for name in names:
            log = FailPointLog(settings.state / "log" / f"{name}.log", kind=name)
            watching.enter_context(log.watched(injector))
        yield


def _scale(settings: Settings, team: int, trial: Trial) -> None:
    deadline_s = monotonic_s() + _SCALED_WITHIN_S
    while True:
        try:
            lifecycle.scale(settings, JOB, team, held=True, within_s=_SCALED_WITHIN_S)
        except TransientFailure as failure:  # one of them was killed while it was waited for
            if monotonic_s() > deadline_s:
                raise
            trial.say(f"{team} scorers: {failure}")
            time.sleep(1)
        else:
            trial.say(f"{team} scorers")
            return


def _is_enough(faults: Sequence[Fault], size: Size) -> bool:
    return len(_kills(faults)) >= size.least_kills and any(fault.point in INSIDE for fault in faults)


def _kills(faults: Sequence[Fault]) -> list[Fault]:
    return [fault for fault in faults if is_kind(fault.name, JOB)]


def _report(
    trial: Trial,
    size: Size,
    verdict: ScoringVerdict,
    faults: Sequence[Fault],
    *,
    fifth: Mapping[str, Any],
    begun_s: float,
) -> Report:
    kills = _kills(faults)
    inside = [fault for fault in kills if fault.point in INSIDE]
    asked, versions = verdict.counts["questions"], verdict.counts["versions"]
    return Report(
        trial=trial,
        n=asked,
        violations=verdict.violations,
        wants={
            f"questions >= {size.least_asked:,}, got {asked:,}": asked >= size.least_asked,
            f"kills of a {JOB} >= {size.least_kills}, got {len(kills)}": len(kills) >= size.least_kills,
            f"kills between produce and commit >= 1, got {len(inside)}": bool(inside),
            f"versions that answered: wanted 2, got {versions}": versions == 2,
            f"the fifth {JOB} idles, is ready and owns nothing, got {dict(fifth)}": (
                fifth.get("idle") is True and fifth.get("ready") is True and fifth.get("owned") == []
            ),
        },
        figures={
            **verdict.counts,
            "kills_by_point": dict(sorted(Counter(fault.point or "outside" for fault in kills).items())),
            "kills_by_instance": dict(sorted(Counter(fault.name for fault in kills).items())),
        },
        faults=faults,
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )
