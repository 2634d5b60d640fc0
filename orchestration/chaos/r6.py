"""R6: poison in events.raw, past the Collector: one letter each with its original bytes, and nobody waits behind it.

Good events come through the Collector meanwhile. First every kind on which the job must not even restart; then, one by
one, those that hang it, kill it or take its memory, each of which must end as a letter after a few restarts. Afterwards
what can be repaired is repaired at the letter desk and replayed, twice: the second time changes nothing.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from headway.clock import SystemClock, monotonic_s, to_us
from headway.local import lifecycle
from headway.local.stack import THROUGH_VARIABLE
from headway.ports import LogReader, Position
from headway.topics import EVENTS_ENRICHED_LETTERS
from orchestration.chaos import hostile
from orchestration.chaos.driver import Schedule
from orchestration.chaos.failpoint_log import FailPointLog
from orchestration.chaos.hostile import JOB
from orchestration.chaos.load import plan_sends
from orchestration.chaos.poison_replay import Replayed, judge_replay, repair_and_replay
from orchestration.chaos.poison_verdict import judge_letters, read_poison_letters
from orchestration.chaos.poisoner import Poisoner, deadly_kinds
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.running import Judged, Running, judge, load_on
from orchestration.chaos.stack import EVENT_PLANE, own_stack, processes_of
from orchestration.chaos.stamps import longest_wait_s, read_stamps
from streaming.accounts import open_stores

_KEYS = 200
_ENVIRONMENT = {**hostile.ENVIRONMENT, THROUGH_VARIABLE: "orchestration.chaos.hostile"}
_HUNG = "batch hangs; ending this process"
# Two over its batch, two alone.
_MOST_DEATHS = 4
# Before the deadly ones come it is quiet for as long: what waits for any other poison is through by then.
_MOST_WAIT_S = 10.0
# Four restarts, or two hangs, and whatever was in hand with a deadly record is taken one by one.
_MOST_HELD_S = 120.0
_LETTER_WITHIN_S = 180.0
_UNMOVED_S = 30.0
_DIRECTED_WITHIN_S = 60.0
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run: ``each`` of every kind, over ``load_s`` of good events."""

    schedule: Schedule
    load_s: float
    longer_s: float
    each: int
    least_kinds: int
    least_good: int
    timed: bool


SHORT = Plan(
    schedule=Schedule(batches_per_s=10, batch_size=20, singles_per_s=5),
    load_s=30,
    longer_s=300,
    each=20,
    least_kinds=35,
    least_good=5_000,
    timed=False,
)
FULL = Plan(
    schedule=Schedule(batches_per_s=14, batch_size=20, singles_per_s=10),
    load_s=180,
    longer_s=300,
    each=500,
    least_kinds=35,
    least_good=60_000,
    timed=True,
)


@dataclass(frozen=True, kw_only=True)
class _Course:
    """What happened to the job meanwhile: a restart that nothing deadly explains, hangs ended, and the longest waits."""

    restarted: bool
    hangs_ended: int
    wait_s: float
    held_s: float


def run(trial: Trial) -> Report:
    """Run R6 on a stack of its own."""
    plan = SHORT if trial.short else FULL
    generator = random.Random(trial.seed)
    count = int(plan.schedule.events_per_s * (plan.load_s + plan.longer_s))
    sends = list(islice(plan_sends(run=f"r6-{trial.seed:x}", keys=_KEYS, mix={}, generator=generator), count))
    with (
        own_stack(EVENT_PLANE, mutant=trial.mutant, environment=_ENVIRONMENT, say=trial.say) as settings,
        open_stores(bootstrap=settings.kafka_bootstrap, lake=settings.lake, search_url=settings.search_url) as stores,
    ):
        poisoner = Poisoner(settings.kafka_bootstrap, each=plan.each, load_s=plan.load_s, generator=generator)
        said = settings.state / "log" / f"{JOB}.log"
        with load_on(settings, trial, sends, plan.schedule) as running:
            pid = processes_of(settings)[JOB]["pid"]
            with ThreadPoolExecutor(1) as beside:
                writing = beside.submit(poisoner.run)
                running.wait_until(plan.load_s)
                writing.result()
            kept = _are_letters(stores.log, poisoner)
            restarted = processes_of(settings)[JOB]["pid"] != pid
            deadly_from_ms = to_us(SystemClock().now()) // 1000
            stuck = False
            # What is wrong already needs nothing deadly on top to be told.
            if kept:
                time.sleep(_MOST_WAIT_S)
                with FailPointLog(said, kind=JOB).watched(running.injector):
                    stuck = not _write_deadly(running, poisoner, stores.log)
            running.go_on_until(plan.least_good)
        # Behind a record that nobody gives up there is no rest to wait for, and no replay to try.
        judged = judge(running, at_rest=not stuck, leave_out=poisoner.frame())
        raw, enriched = read_stamps(stores.log)
        early = pl.col("at_ms") < deadly_from_ms
        course = _Course(
            restarted=restarted,
            hangs_ended=said.read_text(encoding="utf-8", errors="replace").count(_HUNG),
            wait_s=max(longest_wait_s(raw.filter(early), enriched).values(), default=0.0),
            held_s=max(longest_wait_s(raw.filter(~early), enriched).values(), default=0.0),
        )
        letters = read_poison_letters(stores.log)
        replayed = None
        if not stuck:
            replayed = repair_and_replay(settings, stores, poisoner.repairs, say=trial.say)
    violations = {
        **judged.verdict.named(),
        **judge_letters(poisoner.frame(), letters, judged.everything),
        **(judge_replay(replayed) if replayed else {}),
    }
    return _report(plan, running, judged, poisoner, replayed=replayed, course=course, violations=violations)


def _are_letters(log: LogReader, poisoner: Poisoner) -> bool:
    """Whether there come to be as many letters as poison; given up once nothing has come for a while."""
    before, moved_s = -1, monotonic_s()
    while (found := sum(1 for _ in log.read(EVENTS_ENRICHED_LETTERS))) < poisoner.poison:
        if found > before:
            before, moved_s = found, monotonic_s()
        elif monotonic_s() - moved_s > _UNMOVED_S:
            return False
        time.sleep(_POLL_S)
    return True


def _write_deadly(running: Running, poisoner: Poisoner, log: LogReader) -> bool:
    """Write each deadly kind once, the next when the one before it is a letter; returns whether each became one."""
    settings, say = running.settings, running.trial.say
    for place, kind in enumerate(deadly_kinds()):
        if place:
            # What was wrong an hour ago is forgotten, and so is the supervisor's growing patience.
            lifecycle.direct(settings, "pause", JOB, within_s=_DIRECTED_WITHIN_S)
            lifecycle.direct(settings, "resume", JOB, within_s=_DIRECTED_WITHIN_S)
        begun_s = monotonic_s()
        at = poisoner.write_one(kind)
        while not _is_letter(log, at):
            if monotonic_s() - begun_s > _LETTER_WITHIN_S:
                say(f"{kind.name:<18} no letter after {_LETTER_WITHIN_S:.0f} s")
                return False
            time.sleep(_POLL_S)
        say(f"{kind.name:<18} a letter after {monotonic_s() - begun_s:4.1f} s")
    return True


def _is_letter(log: LogReader, at: Position) -> bool:
    place = {("letter_partition", b"%d" % at.partition), ("letter_offset", b"%d" % at.offset)}
    return any(place <= set(message.headers) for message in log.read(EVENTS_ENRICHED_LETTERS))


def _report(
    plan: Plan,
    running: Running,
    judged: Judged,
    poisoner: Poisoner,
    *,
    replayed: Replayed | None,
    course: _Course,
    violations: Mapping[str, list[str]],
) -> Report:
    verdict, faults = judged.verdict, running.injector.faults
    poison = poisoner.frame().filter(pl.col("kind") != "good")
    by_kind = Counter(poison["kind"].to_list())
    full_kinds = sum(n >= plan.each for n in by_kind.values())
    beside = judged.journal.filter(pl.col("sent_s") < running.begun_s + plan.load_s).height
    share = poison.height / (poison.height + beside)
    deaths = Counter(fault.point for fault in faults)
    points = [point for point in hostile.TAILS.values() if point is not None]
    timed = {
        f"nobody waits longer than {_MOST_WAIT_S:.0f} s behind poison, got {course.wait_s:.1f} s": (
            course.wait_s <= _MOST_WAIT_S
        ),
        f"nobody waits longer than {_MOST_HELD_S:.0f} s behind a deadly record, got {course.held_s:.1f} s": (
            course.held_s <= _MOST_HELD_S
        ),
        f"poison is 30 % of all while it comes, got {share:.0%}": share >= 0.3,
    }
    figures: dict[str, Any] = {
        **verdict.facts(),
        "poison": poison.height,
        "kinds": len(by_kind),
        "share": round(share, 3),
        "by_reason": dict(sorted(poison.group_by("wanted").len().rows())),
        "deaths": {str(point): n for point, n in sorted(deaths.items(), key=str)},
        **(replayed.facts() if replayed else {}),
        "longest_wait_s": course.wait_s,
        "longest_wait_behind_deadly_s": course.held_s,
    }
    hangs = deaths[hostile.TAILS["HANG"]]
    return Report(
        trial=running.trial,
        n=poison.height + verdict.acked,
        violations=violations,
        wants={
            f"kinds with {plan.each} records >= {plan.least_kinds}, got {full_kinds}": full_kinds >= plan.least_kinds,
            f"good events acked >= {plan.least_good:,}, got {verdict.acked:,}": verdict.acked >= plan.least_good,
            f"the {JOB} was not restarted before a deadly record": not course.restarted,
            f"every deadly kind ended the {JOB}, {_MOST_DEATHS} times at most, got {dict(deaths)}": all(
                0 < deaths[point] <= _MOST_DEATHS for point in points
            ),
            f"each of {hangs} hangs was ended by the watchdog, got {course.hangs_ended}": course.hangs_ended == hangs,
            **(timed if plan.timed else {}),
        },
        figures=figures,
        faults=faults,
        begun_s=running.begun_s,
        seconds=monotonic_s() - running.begun_s,
    )
