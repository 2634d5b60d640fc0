"""FRESH: what the Collector accepted is readable in the online store, and how soon, at half of what the plane can do.

First the capacity: events posted as fast as they are taken, until the last of them is online and in the lake: what loaders
have yet to do is no capacity. Then half as many a second on a fixed schedule. A wait runs from the answer to the client to the first reading that shows the event.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from domains.flights.domain import DOMAIN
from headway.adapters.kafka_backlog import read_backlogs
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.settings import Settings
from headway.ticks import tick_record
from headway.topics import EVENTS_RAW, PARTITIONS
from orchestration.chaos.door import Door
from orchestration.chaos.driver import BATCH, PATH, TICK_STEP_US, Drive, Driver, Schedule
from orchestration.chaos.features import reach_watermark
from orchestration.chaos.journey import journeys
from orchestration.chaos.load import Send, plan_sends
from orchestration.chaos.patience import wait_while_moving
from orchestration.chaos.probes import ProbedJournal, Watch, choose_probes
from orchestration.chaos.report import Report, Trial, quantile
from orchestration.chaos.stack import EVENT_PLANE, own_stack
from streaming.jobs import LAKE_LOADER, Scope, find_job, group_name

_KEYS = 400
_POST = 100
_POSTS_AT_ONCE = 4
# As clients send: mostly small batches, and single events among them.
_BATCH_SIZE = 20
_SINGLE_SHARE = 0.1
_ALONE_FOR_S = 8.0
_PROBES_PER_S = 100
_UNMOVED_S = 60.0
_POLL_S = 0.1
_MOST_P99_S = 2.0
_MOST_SLIP_S = 0.5
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run: events to warm up with, then to measure the capacity with, and seconds of load."""

    warm_up: int
    burst: int
    load_s: float
    least_probes: int
    timed: bool


SHORT = Plan(warm_up=4_000, burst=4_000, load_s=15, least_probes=300, timed=False)
FULL = Plan(warm_up=20_000, burst=60_000, load_s=90, least_probes=5_000, timed=True)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the load came to, in events a second and seconds."""

    capacity_per_s: float
    offered_per_s: float
    acked: int
    waits_s: Sequence[float]
    missing: Sequence[str]
    slip_s: float
    stages: Mapping[str, float]


def run(trial: Trial) -> Report:
    """Run it on a stack of its own."""
    plan = SHORT if trial.short else FULL
    begun_s = monotonic_s()
    sends = plan_sends(run=f"fresh-{trial.seed:x}", keys=_KEYS, mix={}, generator=random.Random(trial.seed))
    with own_stack(EVENT_PLANE, mutant=trial.mutant, environment={}, say=trial.say) as settings:
        publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
        try:
            _capacity(settings, list(islice(sends, plan.warm_up)), publisher)
            capacity = _capacity(settings, list(islice(sends, plan.burst)), publisher)
            schedule = half_of(capacity)
            trial.say(
                f"capacity {capacity:.0f} events/s; offering {schedule.events_per_s:.0f}/s for {plan.load_s:.0f} s"
            )
            chosen = list(islice(sends, int(schedule.events_per_s * plan.load_s)))
            measured = _load(settings, chosen, schedule, publisher, capacity=capacity)
        finally:
            publisher.close()
    return _report(trial, plan, measured, begun_s=begun_s)


def half_of(capacity_per_s: float) -> Schedule:
    """Return the schedule that offers half of a capacity."""
    offered = capacity_per_s / 2
    return Schedule(
        batches_per_s=offered * (1 - _SINGLE_SHARE) / _BATCH_SIZE,
        batch_size=_BATCH_SIZE,
        singles_per_s=offered * _SINGLE_SHARE,
    )


def _capacity(settings: Settings, sends: Sequence[Send], publisher: KafkaPublisher) -> float:
    """Post everything as fast as it is taken; return events a second until the last of them is online and in the lake."""
    begun_s = monotonic_s()
    asyncio.run(_post_all(settings.load_balancer_url, sends))
    end_us = (max(send.time_us for send in sends) // TICK_STEP_US + 1) * TICK_STEP_US
    publisher.publish([tick_record(EVENTS_RAW, end_us, partition=partition) for partition in range(PARTITIONS)])
    reach_watermark(settings, DOMAIN, end_us, unmoved_s=_UNMOVED_S)
    _wait_for_lake(settings)
    return len(sends) / (monotonic_s() - begun_s)


def _wait_for_lake(settings: Settings) -> None:
    """Wait until the lake loader has what the log has, but for the markers that end each partition."""
    admin = admin_client(settings.kafka_bootstrap)
    scope = Scope(domain=DOMAIN, products=())
    group, topics = group_name(DOMAIN, LAKE_LOADER), find_job(LAKE_LOADER).topics(scope)

    def behind() -> int:
        backlog = read_backlogs(admin, {group: topics})[group]
        return max(0, backlog.written - backlog.done - backlog.places)

    left = wait_while_moving(lambda: -behind(), wanted=0, unmoved_s=_UNMOVED_S, every_s=_POLL_S)
    if left is None or left < 0:
        raise TransientFailure(f"{LAKE_LOADER}: {left} records behind, and stands still. See its log.")


async def _post_all(url: str, sends: Sequence[Send]) -> None:
    waiting = iter([sends[start : start + _POST] for start in range(0, len(sends), _POST)])

    async def post(door: Door) -> None:
        for part in waiting:
            body = b"[" + b",".join(send.body for send in part) + b"]"
            answer = await door.post(PATH, body, content_type=BATCH)
            if answer.status >= 300:
                raise TransientFailure(f"POST {PATH}: got {answer.status} {answer.body[:200]!r}, wanted 2xx")

    with closing(Door(url)) as door:
        await asyncio.gather(*(post(door) for _ in range(_POSTS_AT_ONCE)))


def _load(
    settings: Settings, sends: Sequence[Send], schedule: Schedule, publisher: KafkaPublisher, *, capacity: float
) -> Measured:
    probes = choose_probes(
        sends,
        alone_for=int(schedule.events_per_s * _ALONE_FOR_S),
        most=int(_PROBES_PER_S * len(sends) / schedule.events_per_s),
    )
    with Watch(settings, probes) as watch, closing(ProbedJournal(settings.state / "journal.jsonl", watch)) as journal:
        driver = Driver(settings.load_balancer_url, journal, ticker=publisher)
        drive = Drive(driver, sends, schedule)
        begun_s = monotonic_s()
        drive.start()
        drive.finish()
        seconds = monotonic_s() - begun_s
        # Nothing is asked of the clock here: as long as probes turn up, they are waited for.
        wait_while_moving(lambda: -len(watch.missing), wanted=0, unmoved_s=_UNMOVED_S, every_s=_POLL_S)
    return Measured(
        capacity_per_s=capacity,
        offered_per_s=len(sends) / seconds,
        acked=driver.acked,
        waits_s=sorted(watch.waits_s),
        missing=watch.missing,
        slip_s=driver.slip_s,
        stages=journeys(
            KafkaReader(bootstrap=settings.kafka_bootstrap),
            readable_ms=watch.readable_ms,
            views={name: probe.view.qualified for name, probe in probes.items()},
        ),
    )


def _report(trial: Trial, plan: Plan, measured: Measured, *, begun_s: float) -> Report:
    waits, n = measured.waits_s, len(measured.waits_s)
    p99_s = quantile(waits, 0.99)
    timed = {
        f"p99 from accepted to readable <= {_MOST_P99_S:.0f} s, got {p99_s:.2f} s": p99_s <= _MOST_P99_S,
        f"the load left on time within {_MOST_SLIP_S} s, got {measured.slip_s:.2f} s": measured.slip_s <= _MOST_SLIP_S,
    }
    missing = [f"accepted, and not readable: {name}" for name in measured.missing[:_NAMED]]
    return Report(
        trial=trial,
        n=n,
        violations={"not readable": missing} if missing else {},
        wants={f"probes >= {plan.least_probes:,}, got {n:,}": n >= plan.least_probes, **(timed if plan.timed else {})},
        figures={
            "capacity_per_s": round(measured.capacity_per_s),
            "offered_per_s": round(measured.offered_per_s),
            "acked": measured.acked,
            "probes": n,
            "readable_p50_s": round(quantile(waits, 0.5), 3),
            "readable_p90_s": round(quantile(waits, 0.9), 3),
            "readable_p99_s": round(p99_s, 3),
            "readable_max_s": round(quantile(waits, 1.0), 3),
            **measured.stages,
            "driver_slip_s": round(measured.slip_s, 3),
        },
        faults=[],
        begun_s=begun_s,
        seconds=monotonic_s() - begun_s,
    )
