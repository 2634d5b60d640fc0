"""R11: late, repeated, tied and too late events, two writers of the online store, and every key is right all the same.

Enriched events go straight to the feature job. Stage 2 and the online writers are killed meanwhile, a writer is stopped
until its partitions belong to others and then goes on, the store is killed twice, and a second writer writes the whole
changelog in any order beside them. At rest the online store, the point-in-time join of the changelog, and the values
recomputed from the events agree for every entity of every view; and once more after the store was emptied and read anew.
"""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from domains.flights.contracts import SCHEDULED
from domains.flights.domain import DOMAIN
from domains.flights.source import iter_events
from headway.adapters.kafka_reader import KafkaReader
from headway.clock import monotonic_s, parse_instant_us
from headway.features.definitions import FeatureView
from headway.features.offline import AS_OF
from headway.settings import Settings
from orchestration.chaos.disorder import LATE, REPEATED, Disorder, plan_disorder
from orchestration.chaos.faults import Fault, Injector, Planned, plan_kills
from orchestration.chaos.features import online_values, reach_watermark
from orchestration.chaos.feed import Feed
from orchestration.chaos.rebuild import pause, read_online_anew
from orchestration.chaos.recompute import (
    Compared,
    answers_of,
    compare,
    draw_questions,
    entities_of,
    joined_answers,
    read_changelog,
    read_events,
)
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.rescale import rescale
from orchestration.chaos.second_writer import second_writer
from orchestration.chaos.stack import own_stack, processes_of
from streaming.jobs import AGGREGATE

PARTS = ("streams",)
_BESIDE = ("lake-loader", "letters-watch", "enricher")
_WRITER, _STORE = "online-writer", "valkey"
# The group's session timeout is 6 s: after this a stopped writer's partitions belong to others, and it knows nothing.
_ZOMBIE_S = 9.0
# One that finds nothing to kill within a minute is left out.
_KILLS, _LEAST_KILLS = 6, 5
_UNMOVED_S = 120.0
_PROVEN_WITHIN_S = 60.0
_NAMED = 20
# Small enough that a load lasts as long as its faults, large enough that pacing costs nothing.
_CHUNK = 500
_START = "2013-03-08T00:00:00Z"  # two days before the night of 23 hours
_END = "2013-05-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run: ``base`` events before repeats, and random questions to the changelog, per view."""

    base: int
    faults_s: float
    questions: int
    least_updates: int
    least_keys: int


SHORT = Plan(base=8_000, faults_s=40, questions=5_000, least_updates=8_000, least_keys=1_500)
FULL = Plan(base=50_000, faults_s=120, questions=20_000, least_updates=50_000, least_keys=2_000)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One view at rest: the changelog at random instants, and the store before and after it was read anew."""

    changelog: Compared
    online: Compared
    anew: Compared
    apart: Sequence[str]


def run(trial: Trial) -> Report:
    """Run R11 on a stack of its own."""
    plan = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    start_us, until_us = (parse_instant_us(at, field="history") for at in (_START, _END))
    history = (event for event in iter_events(start_us, until_us) if event.type != SCHEDULED)
    sent = plan_disorder(list(islice(history, plan.base)), generator)
    begun_s = monotonic_s()
    with own_stack(PARTS, mutant=trial.mutant, environment={}, say=trial.say) as settings:
        pause(settings, _BESIDE)
        injector = Injector(lambda: processes_of(settings), trial.say)
        try:
            rescale(settings, injector, _WRITER, 2, change="join", say=trial.say)
            with second_writer(settings, trial) as second:
                _send(settings, sent, injector, plan, trial)
                reach_watermark(settings, DOMAIN, sent.end_us, unmoved_s=_UNMOVED_S)
                trial.say("at rest; the second writer goes through all of it once more")
                injector.adopt(second.stop())
            checked = _check(settings, sent, plan, trial, start_us=start_us)
        finally:
            injector.close()
    return _report(trial, plan, sent, injector.faults, checked, begun_s=begun_s)


def _send(settings: Settings, sent: Disorder, injector: Injector, plan: Plan, trial: Trial) -> None:
    """Send everything while the faults are done; what is left of them when all is sent is still done."""
    generator = random.Random(f"{trial.seed}/faults")
    kills = plan_kills([_WRITER, AGGREGATE, _STORE], count=_KILLS, first_s=5, last_s=plan.faults_s, generator=generator)
    zombie = Planned(at_s=plan.faults_s / 2, kind=_WRITER, what="stop", hold_s=_ZOMBIE_S)
    faults = sorted([*kills, zombie], key=lambda each: each.at_s)
    disturbing = threading.Thread(
        target=injector.inject, args=(faults,), kwargs={"begun_s": monotonic_s()}, name="disturb", daemon=True
    )
    disturbing.start()
    pace_s = plan.faults_s / max(1, len(sent.items) // _CHUNK)
    with Feed(settings, DOMAIN) as feed:
        items = iter(sent.items)
        while chunk := list(islice(items, _CHUNK)):
            until_s = monotonic_s() + pace_s
            feed.play(chunk)
            time.sleep(max(0.0, until_s - monotonic_s()))
    disturbing.join()
    injector.wait_until_proven(within_s=_PROVEN_WITHIN_S)


def _check(settings: Settings, sent: Disorder, plan: Plan, trial: Trial, *, start_us: int) -> dict[str, Checked]:
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    end_us = sent.end_us
    events = read_events(reader, DOMAIN)
    entities = {view.qualified: entities_of(events, view) for view in DOMAIN.views}
    before = {view.qualified: _online(settings, view, entities, end_us) for view in DOMAIN.views}
    trial.say("the online store is emptied and read anew")
    read_online_anew(settings, DOMAIN)
    reach_watermark(settings, DOMAIN, end_us, unmoved_s=_UNMOVED_S)
    checked = {}
    for number, view in enumerate(DOMAIN.views):
        name = view.qualified
        rows = read_changelog(reader, view)
        asked = draw_questions(
            rows, view, count=plan.questions, start_us=start_us, end_us=end_us, seed=trial.seed + number
        )
        at_end = entities[name].with_columns(pl.lit(end_us, pl.Int64).alias(AS_OF))
        anew = _online(settings, view, entities, end_us)
        joined = joined_answers(rows, view, asked)
        checked[name] = Checked(
            changelog=compare(view, joined, events, until_us=end_us, who="changelog"),
            online=compare(view, before[name], events, until_us=end_us, who="online"),
            anew=compare(view, anew, events, until_us=end_us, who="online anew"),
            apart=[
                *_apart(before[name], joined_answers(rows, view, at_end), name),
                *_unknown(settings, view),
            ],
        )
    return checked


def _online(settings: Settings, view: FeatureView, entities: Mapping[str, pl.DataFrame], end_us: int) -> pl.DataFrame:
    mine = entities[view.qualified]
    return answers_of(view, mine, online_values(settings, view, mine), as_of_us=end_us)


def _apart(online: pl.DataFrame, joined: pl.DataFrame, name: str) -> list[str]:
    """Name the entities whose online row is not the one that the point-in-time join finds."""
    alone = online.join(joined, on=online.columns, how="anti", nulls_equal=True)
    return [f"{name}: online {row}, joined another" for row in alone.rows(named=True)]


def _unknown(settings: Settings, view: FeatureView) -> list[str]:
    """Name what the store says of an entity that never had an event, unless it is nothing."""
    nobody = pl.DataFrame({key: ["nobody"] for key in view.keys})
    [values] = online_values(settings, view, nobody)
    said = dict(zip(view.columns, values, strict=True))
    return [f"{view.qualified}: nobody has {said}"] if any(value is not None for value in said.values()) else []


def _report(
    trial: Trial,
    plan: Plan,
    sent: Disorder,
    faults: Sequence[Fault],
    checked: Mapping[str, Checked],
    *,
    begun_s: float,
) -> Report:
    def named(lines: Sequence[Sequence[str]]) -> list[str]:
        return [line for each in lines for line in each][:_NAMED]

    violations = {
        "online": named([each.online.named for each in checked.values()]),
        "online, read anew": named([each.anew.named for each in checked.values()]),
        "changelog": named([each.changelog.named for each in checked.values()]),
        "online and joined": named([each.apart for each in checked.values()]),
    }
    keys = sum(each.online.entities for each in checked.values())
    late, repeated = sent.late / plan.base, sent.repeated / plan.base
    kills = sum(fault.what == "kill" for fault in faults)
    figures: dict[str, Any] = {
        "updates_sent": sent.updates,
        "late": sent.late,
        "repeated": sent.repeated,
        "tied": sent.tied,
        "far_too_late": sent.far_too_late,
        "keys": keys,
        "values_wrong_online": sum(each.online.wrong for each in checked.values()),
        "values_wrong_online_anew": sum(each.anew.wrong for each in checked.values()),
        "values_wrong_changelog": sum(each.changelog.wrong for each in checked.values()),
        "questions": sum(each.changelog.answers for each in checked.values()),
    }
    return Report(
        trial=trial,
        n=2 * keys + figures["questions"],
        violations={name: lines for name, lines in violations.items() if lines},
        wants={
            f"updates >= {plan.least_updates:,}, got {sent.updates:,}": sent.updates >= plan.least_updates,
            f"keys >= {plan.least_keys:,}, got {keys:,}": keys >= plan.least_keys,
            f"late >= {LATE - 0.02:.0%}, got {late:.1%}": late >= LATE - 0.02,
            f"repeated >= {REPEATED - 0.02:.0%}, got {repeated:.1%}": repeated >= REPEATED - 0.02,
            f"tied and far too late events, got {sent.tied} and {sent.far_too_late}": bool(
                sent.tied and sent.far_too_late
            ),
            f"kills >= {_LEAST_KILLS}, got {kills}": kills >= _LEAST_KILLS,
        },
        figures=figures,
        faults=faults,
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )
