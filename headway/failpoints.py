"""Fail-points: named places where a test makes this process die, raise or hang, told to by its environment.

``HEADWAY_FAILPOINTS`` lists them, comma-separated, as ``NAME=WHEN:ACTION``:

- ``enricher.after_produce=0.0005:kill``: each hit kills with that probability (a number with a point);
- ``enricher.before_commit=3:kill``: the third hit of this process kills (a whole number; later hits pass);
- actions: ``kill`` ends the process at once with status 137, as SIGKILL would, ``raise`` raises `FailPointRaised`,
  ``hang`` never returns.

A point that acts says so first: one JSON line on stderr, ``{"event": "failpoint", "name": ...}``. Draws come from
``HEADWAY_FAILPOINT_SEED`` and the process id: were the id left out, a restarted process would draw the fate of its
predecessor and die at the same hit for ever. The line names both. What bites: counts start again with each process,
so ``=1:kill`` kills every successor too, which the stream runtime reads as a record that kills.

Without the variable a hit costs one comparison (30-50 ns), so the calls stay in production code.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import orjson

from headway.clock import SystemClock
from headway.errors import ContractViolation

Action = Literal["kill", "raise", "hang"]

# What a shell reports for a process that SIGKILL ended.
KILLED_STATUS = 137
PLAN_VARIABLE = "HEADWAY_FAILPOINTS"
SEED_VARIABLE = "HEADWAY_FAILPOINT_SEED"


class FailPointRaised(Exception):
    """What ``raise`` raises: no class of ours, so that nobody has an answer prepared for it."""


@dataclass(frozen=True, kw_only=True)
class FailPoint:
    """One entry of the plan: acts on the ``nth`` hit, or on each hit with ``probability``; exactly one is given."""

    name: str
    action: Action
    nth: int | None = None
    probability: float | None = None


class FailPoints:
    """The plan of one process, and how often each point was hit."""

    def __init__(self, points: Mapping[str, FailPoint], *, seed: str, act: Callable[[FailPoint, int], None]) -> None:
        self._points = points
        self._act = act
        self._hits = dict.fromkeys(points, 0)
        self._draws = {name: random.Random(f"{seed}/{name}") for name in points}

    def hit(self, name: str) -> None:
        """Count a hit, and act when it is the one."""
        point = self._points.get(name)
        if point is None:
            return
        self._hits[name] += 1
        if point.probability is None:
            strikes = self._hits[name] == point.nth
        else:
            strikes = self._draws[name].random() < point.probability
        if strikes:
            self._act(point, self._hits[name])


# None: the environment has not been read. False: it names no point, which is every process but a test's.
_armed: FailPoints | Literal[False] | None = None


def hit(name: str) -> None:
    """Pass, unless the environment plans something for the point ``name``; the environment is read at the first call."""
    if _armed is False:
        return
    _hit(name)


def _hit(name: str) -> None:
    global _armed  # noqa: PLW0603 - one plan per process, as there is one environment
    if _armed is None:
        plan = parse_plan(os.environ.get(PLAN_VARIABLE, ""))
        seed = f"{os.environ.get(SEED_VARIABLE, '')}/{os.getpid()}"
        _armed = FailPoints(plan, seed=seed, act=_act) if plan else False
    if _armed:
        _armed.hit(name)


def parse_plan(text: str) -> dict[str, FailPoint]:
    """Return the points a plan names.

    Raises:
        ContractViolation: the text is no plan; names the entry.
    """
    points = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, rest = entry.partition("=")
        when, colon, action = rest.partition(":")
        if not (name and equals and colon) or action not in get_args(Action):
            raise _no_plan(entry)
        try:
            nth, probability = (None, float(when)) if "." in when else (int(when), None)
        except ValueError:
            raise _no_plan(entry) from None
        if (nth is not None and nth < 1) or (probability is not None and not 0 <= probability <= 1):
            raise _no_plan(entry)
        points[name] = FailPoint(name=name, action=action, nth=nth, probability=probability)  # type: ignore[arg-type]
    return points


def _no_plan(entry: str) -> ContractViolation:
    return ContractViolation(
        f"{PLAN_VARIABLE}: got {entry!r}, wanted NAME=WHEN:ACTION, where WHEN is the number of a hit (3) or a "
        f"probability with a point (0.0005), and ACTION one of {', '.join(get_args(Action))}"
    )


def _act(point: FailPoint, hits: int) -> None:
    said = {
        "event": "failpoint",
        "name": point.name,
        "action": point.action,
        "hit": hits,
        "pid": os.getpid(),
        "seed": os.environ.get(SEED_VARIABLE),
        "timestamp": SystemClock().now().isoformat(),
    }
    # Past every buffer: the next statement may end the process without flushing any.
    os.write(2, orjson.dumps(said) + b"\n")
    if point.action == "kill":
        os._exit(KILLED_STATUS)
    if point.action == "raise":
        raise FailPointRaised(f"{point.name}: raised as planned, at hit {hits}")
    while True:
        time.sleep(3600)
