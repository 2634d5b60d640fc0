"""How many replicas a model version should have, decided from its load. Pure: a load in, a decision with its reason out.

A version gets more replicas when those it has were above their target at every one of the last readings, and one less
after a calm minute whose load the others can carry. Load is the share of a processor that a replica's process used, or
requests in flight against what one should hold, whichever says more: on a crowded machine a replica that waits for a
processor is not busy, and its requests pile up. Refuses to decide while replicas come or go, or have not been measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReplicaPolicy:
    """When to change the number of replicas.

    Attributes:
        least: replicas there are always; one alone is a gap when it is killed.
        most: replicas there are at most; more than processors only take them from each other.
        busy: share of a processor that a replica should use. One event loop answers later and later above about 0.8.
        in_flight: requests a replica should hold at once; the load balancer sends it 64 at most.
        readings: how many in a row have to agree.
        calm_s: how long the others must have been able to carry the load before one is ended.
        headroom: share of their targets that the others may be loaded with then; without it the number would flap.
    """

    least: int
    most: int
    busy: float = 0.6
    in_flight: float = 8.0
    readings: int = 3
    calm_s: float = 60.0
    headroom: float = 0.7


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One replica at one instant."""

    busy: float
    in_flight: float


@dataclass(frozen=True, kw_only=True)
class ReplicaLoad:
    """The load of one application.

    Attributes:
        job: the application's name.
        instances: replicas wanted now.
        running: replicas there are now.
        readings: of each running replica its newest, oldest first.
        calm_s: for how long one less could have carried the load, as the last decision left it; 0 when it could not.
    """

    job: str
    instances: int
    running: int
    readings: Sequence[Sequence[Reading]]
    calm_s: float


@dataclass(frozen=True, kw_only=True)
class ReplicaDecision:
    """How many replicas there should be from now on, and why. ``calm`` is whether one less could carry the load."""

    load: ReplicaLoad
    instances: int
    reason: str
    calm: bool = False


def decide_replicas(load: ReplicaLoad, policy: ReplicaPolicy) -> ReplicaDecision:
    """Decide for one application."""
    if not policy.least <= load.instances <= policy.most:
        within = min(max(load.instances, policy.least), policy.most)
        reason = f"{load.instances} are not within {policy.least} and {policy.most}"
        return ReplicaDecision(load=load, instances=within, reason=reason)
    if load.running != load.instances:
        return _stay(load, f"{load.running} of {load.instances} replicas are running")
    fewest = min((len(each) for each in load.readings), default=0)
    if len(load.readings) < load.running or fewest < policy.readings:
        measured = sum(len(each) >= policy.readings for each in load.readings)
        return _stay(load, f"measuring: {measured} of {load.running} replicas have {policy.readings} readings")
    newest = [[_pressure(reading, policy) for reading in each[-policy.readings :]] for each in load.readings]
    # What was there at every reading asks for more; what was there at any of them forbids less.
    steady, peak = sum(map(min, newest)), sum(map(max, newest))
    needed = math.ceil(steady)
    if needed > load.instances:
        limit = "" if needed <= policy.most else f", limited to {policy.most}"
        reason = f"{_told(load)}: {needed} are needed{limit}"
        return ReplicaDecision(load=load, instances=min(needed, policy.most), reason=reason)
    return _answer_calm(load, policy, peak=peak)


def _answer_calm(load: ReplicaLoad, policy: ReplicaPolicy, *, peak: float) -> ReplicaDecision:
    fewer = load.instances - 1
    if fewer < policy.least:
        return _stay(load, f"{_told(load)}: there are {policy.least} always")
    if peak > policy.headroom * fewer:
        return _stay(load, f"{_told(load)}: {fewer} could not be trusted with it")
    if load.calm_s < policy.calm_s:
        reason = f"{_told(load)}: {fewer} could carry it, for {load.calm_s:.0f} of {policy.calm_s:.0f} s"
        return ReplicaDecision(load=load, instances=load.instances, reason=reason, calm=True)
    return ReplicaDecision(load=load, instances=fewer, reason=f"{_told(load)}: calm for {load.calm_s:.0f} s")


def _pressure(reading: Reading, policy: ReplicaPolicy) -> float:
    """The load in replicas at their target."""
    return max(reading.busy / policy.busy, reading.in_flight / policy.in_flight)


def _told(load: ReplicaLoad) -> str:
    busy = ", ".join(f"{each[-1].busy:.0%}" for each in load.readings)
    return f"{load.instances} replicas are busy {busy} with {sum(each[-1].in_flight for each in load.readings):.0f} in flight"


def _stay(load: ReplicaLoad, reason: str) -> ReplicaDecision:
    return ReplicaDecision(load=load, instances=load.instances, reason=reason)
