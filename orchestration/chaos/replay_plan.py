"""What REPLAY plays, and when it disturbs."""

import random
from dataclasses import dataclass

from headway.clock import HOUR_US
from orchestration.chaos.feed import STAGE_1, STEP_US
from streaming.jobs import AGGREGATE

_INSTANCES = (3, 2)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run: a tick each ``step_us``; ``questions`` are random pairs of entity and instant, per view."""

    start: str
    end: str
    step_us: int
    kills: int
    questions: int
    least_events: int


# Two weeks with the night of 23 hours in their middle.
SHORT = Plan(
    start="2013-03-03T00:00:00Z",
    end="2013-03-17T00:00:00Z",
    step_us=STEP_US,
    kills=4,
    questions=20_000,
    least_events=35_000,
)
# Schedules are known a day before, and the last arrivals belong to the next year.
FULL = Plan(
    start="2012-12-30T00:00:00Z",
    end="2014-01-03T00:00:00Z",
    step_us=HOUR_US,
    kills=10,
    questions=100_000,
    least_events=1_028_000,
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A disturbance at an instant of the replay: a kill of a stage, or another number of instances of stage 2."""

    at_us: int
    kill: str | None = None
    instances: int | None = None


def plan_changes(kills: int, *, start_us: int, end_us: int, generator: random.Random) -> list[Change]:
    """Return kills of both stages in turn at random instants, and stage 2 rescaled at a third and at two thirds."""
    stages = [STAGE_1, AGGREGATE] * (kills // 2) + [AGGREGATE] * (kills % 2)
    # Not at the very beginning, where there is no state yet, nor at the end, when all is done.
    first_us, last_us = start_us + (end_us - start_us) // 20, end_us - (end_us - start_us) // 10
    instants = sorted(generator.randrange(first_us, last_us) for _ in stages)
    changes = [Change(at_us=at_us, kill=stage) for at_us, stage in zip(instants, stages, strict=True)]
    third_us = (end_us - start_us) // 3
    changes += [Change(at_us=start_us + place * third_us, instances=count) for place, count in enumerate(_INSTANCES, 1)]
    return sorted(changes, key=lambda change: change.at_us)
