"""REPLAY: a year of flights through both stages of the feature job; every value it wrote is the one the events give.

While the year passes, both stages are killed at random instants of it and stage 2 is rescaled 1 -> 3 -> 2. Then state,
changelogs and online store are thrown away and made again from zero, undisturbed. Both times values are recomputed from
the events at random instants and compared with the changelog, joined as of each, and with the online store; and the two
changelogs are the same rows with the same revisions, known at the same watermarks.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from domains.flights.domain import DOMAIN
from domains.flights.source import iter_events
from headway.adapters.kafka_reader import KafkaReader
from headway.clock import DAY_US, monotonic_s, parse_instant_us
from headway.settings import Settings
from orchestration.chaos.faults import Injector, Planned
from orchestration.chaos.features import await_watermark, reach_watermark
from orchestration.chaos.feed import STAGE_1, Feed, Item, in_steps
from orchestration.chaos.memory_watch import MemoryWatch
from orchestration.chaos.patience import wait_while_moving
from orchestration.chaos.rebuild import begin_anew, pause
from orchestration.chaos.recompute import read_events
from orchestration.chaos.replay_plan import FULL, SHORT, Change, Plan, plan_changes
from orchestration.chaos.replay_verdict import Told, differing_runs, judge_run
from orchestration.chaos.report import Report, Trial
from orchestration.chaos.rescale import rescale
from orchestration.chaos.stack import own_stack, processes_of
from streaming.jobs import AGGREGATE

PARTS = ("streams",)
# None is under test, and the first two would read all that is written here.
_BESIDE = ("lake-loader", "letters-watch", "enricher")
# At the year's end a killed stage reads its state again, which is the longest that the watermark stands still.
_UNMOVED_S = 300.0
_POLL_S = 0.05
_PROVEN_WITHIN_S = 60.0
# The memory of a stage that forgets what no event can reach any more; Python returns little of what it once had.
_MOST_GROWTH = 1.5


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One time through all events: how long it took, and what it left."""

    seconds: float
    told: Told


def run(trial: Trial) -> Report:
    """Run the replay on a stack of its own."""
    plan = SHORT if trial.short else FULL
    start_us, end_us = (parse_instant_us(at, field="replay") for at in (plan.start, plan.end))
    generator = random.Random(trial.seed)
    changes = plan_changes(plan.kills, start_us=start_us, end_us=end_us, generator=generator)
    begun_s = monotonic_s()
    with own_stack(PARTS, mutant=trial.mutant, environment={}, say=trial.say) as settings:
        pause(settings, _BESIDE)
        reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
        injector = Injector(lambda: processes_of(settings), trial.say)
        judge = partial(
            judge_run, settings, DOMAIN, reader=reader, start_us=start_us, end_us=end_us, questions=plan.questions
        )
        try:
            items = in_steps(iter_events(start_us, end_us), start_us=start_us, end_us=end_us, step_us=plan.step_us)
            replay_s = _replay(settings, trial, changes, injector, items, end_us=end_us)
            events = read_events(reader, DOMAIN)
            trial.say(f"{events.height:,} events in {replay_s:.0f} s; recomputing")
            first = Pass(seconds=replay_s, told=judge(events=events, seed=trial.seed))
            trial.say(f"{first.told.wrong} of {first.told.values:,} values differ; from zero")
            begin_anew(settings, DOMAIN)
            memory = MemoryWatch(lambda: processes_of(settings), AGGREGATE, step_us=30 * DAY_US)
            rebuilt_s = reach_watermark(settings, DOMAIN, end_us, unmoved_s=_UNMOVED_S, told=memory.look)
            trial.say(f"rebuilt in {rebuilt_s:.0f} s; recomputing")
            second = Pass(seconds=rebuilt_s, told=judge(events=events, seed=trial.seed + 1))
            apart = differing_runs(first.told, second.told)
        finally:
            injector.close()
    return _report(
        trial,
        plan,
        injector,
        [first, second],
        apart,
        events=events.height,
        memory=memory.mib,
        begun_s=begun_s,
    )


def _replay(
    settings: Settings,
    trial: Trial,
    changes: Sequence[Change],
    injector: Injector,
    items: Iterable[Item],
    *,
    end_us: int,
) -> float:
    """Feed everything while other threads disturb; return how long it took until the last watermark was online."""
    begun_s = monotonic_s()

    def online(at_us: int) -> int | None:
        return await_watermark(settings, DOMAIN, at_us, unmoved_s=_UNMOVED_S)

    with Feed(settings, DOMAIN) as feed:

        def fed(at_us: int) -> int | None:
            return wait_while_moving(lambda: feed.told_us, wanted=at_us, unmoved_s=_UNMOVED_S, every_s=_POLL_S)

        # Each stage by its own progress: when the store has an instant, stage 1 may be done with it long since.
        first, second = (
            threading.Thread(
                target=_disturb, args=(settings, trial, chosen, injector, reached), name="disturb", daemon=True
            )
            for chosen, reached in (
                ([change for change in changes if change.kill == STAGE_1], fed),
                ([change for change in changes if change.kill != STAGE_1], online),
            )
        )
        first.start()
        second.start()
        feed.play(items)
    reach_watermark(settings, DOMAIN, end_us, unmoved_s=_UNMOVED_S)
    seconds = monotonic_s() - begun_s
    first.join()
    second.join()
    injector.wait_until_proven(within_s=_PROVEN_WITHIN_S)
    return seconds


def _disturb(
    settings: Settings,
    trial: Trial,
    changes: Sequence[Change],
    injector: Injector,
    reached: Callable[[int], int | None],
) -> None:
    """Do each change once ``reached`` has come to its instant, and none any more when that stands still."""
    before = 1
    for change in changes:
        now_us = reached(change.at_us)
        if now_us is None or now_us < change.at_us:
            return
        if change.kill is not None:
            injector.do(Planned(at_s=0, kind=change.kill, what="kill"))
        if change.instances is not None:
            what: Any = "join" if change.instances > before else "leave"
            rescale(settings, injector, AGGREGATE, change.instances, change=what, say=trial.say)
            before = change.instances


def _report(
    trial: Trial,
    plan: Plan,
    injector: Injector,
    passes: Sequence[Pass],
    apart: Sequence[str],
    *,
    events: int,
    memory: Mapping[int, float],
    begun_s: float,
) -> Report:
    faults = injector.faults
    kinds = Counter(f"{fault.kind} {fault.what}" for fault in faults)
    kills = sum(fault.what == "kill" for fault in faults)
    violations: dict[str, Sequence[str]] = {}
    for name, one in zip(("replayed", "rebuilt"), passes, strict=True):
        violations |= {f"{name}, {what}": lines for what, lines in one.told.violations.items() if lines}
    if apart:
        violations["rebuilt differs"] = apart
    months = sorted(memory)
    growth = memory[months[-1]] / memory[months[1]] if len(months) > 2 else None
    asked = [one.told.asked for one in passes]
    wants = {
        f"events >= {plan.least_events:,}, got {events:,}": events >= plan.least_events,
        f"kills >= {plan.kills}, got {kills}": kills >= plan.kills,
        f"stage 2 rescaled up and down, got {dict(sorted(kinds.items()))}": {f"{AGGREGATE} join", f"{AGGREGATE} leave"}
        <= kinds.keys(),
        f"questions per view >= {plan.questions:,}": all(min(each.values()) >= plan.questions for each in asked),
    }
    if growth is not None:
        wants[f"memory of stage 2 at the end <= {_MOST_GROWTH} x that of the second month, got {growth:.2f} x"] = (
            growth <= _MOST_GROWTH
        )
    return Report(
        trial=trial,
        n=sum(sum(each.values()) for each in asked),
        violations=violations,
        wants=wants,
        figures={
            "events": events,
            "changelog_rows": passes[0].told.rows,
            "values_recomputed": sum(one.told.values for one in passes),
            "values_wrong": sum(one.told.wrong for one in passes),
            "online_entities": passes[0].told.online_entities,
            "replay_s": round(passes[0].seconds, 1),
            "replay_events_per_s": round(events / passes[0].seconds),
            "rebuild_s": round(passes[1].seconds, 1),
            "rebuild_events_per_s": round(events / passes[1].seconds),
            "stage_2_mib_by_month": {str(month): round(mib) for month, mib in sorted(memory.items())},
            "by_view": passes[1].told.by_view,
        },
        faults=faults,
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )
