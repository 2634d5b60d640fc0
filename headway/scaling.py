"""How many instances each stream job should have, decided from its load. Pure: loads in, decisions with reasons out.

A job gets another instance when those it has were behind at every one of the last readings and will not drain the
backlog in the time the policy gives; it loses one after a calm minute whose input the others can carry. What one
instance can do is not configured: it is what one was seen to do. Refuses to scale a job that handles nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from headway.backlog import Load, Policy

# Stream jobs of which one instance runs and no more, and why; the others may have one for each partition.
ALONE: Mapping[str, str] = {
    "letters-watch": "it compares all letters with all events, and each of two would see half of the letters.",
}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How many instances a job should have from now on, why, and from what that follows."""

    load: Load
    instances: int
    reason: str

    @property
    def changes(self) -> bool:
        """Whether it asks for another number than there is."""
        return self.instances != self.load.instances


def decide(loads: Iterable[Load], policy: Policy) -> list[Decision]:
    """Decide for all jobs together, as they share a machine: the one furthest behind is served first."""
    each = [_decide_alone(load, policy) for load in loads]
    left = policy.extra - sum(decision.load.instances - 1 for decision in each)
    granted: dict[str, Decision] = {}
    for decision in sorted(each, key=lambda one: -(one.load.lag_s or 0.0)):
        more = decision.instances - decision.load.instances
        given = min(more, max(0, left))
        if more > given:
            decision = replace(  # noqa: PLW2901 - what is granted takes the place of what was wished
                decision,
                instances=decision.load.instances + given,
                reason=f"{decision.reason}; the budget of {policy.extra} beyond the first ones leaves {given}",
            )
        left -= given
        granted[decision.load.job] = decision
    return [granted[decision.load.job] for decision in each]


def _decide_alone(load: Load, policy: Policy) -> Decision:
    most = min(load.partitions, policy.most)
    hindrance = _hindrance(load, policy)
    if load.instances > most and not load.held:
        return Decision(load=load, instances=most, reason=f"{load.instances} are more than the {most} allowed")
    if hindrance is not None:
        return _stay(load, hindrance)
    if load.behind:
        return _answer_backlog(load, policy, most=most)
    return _answer_calm(load, policy) if load.instances > 1 else _stay(load, f"keeps up: {_lag(load)}")


def _hindrance(load: Load, policy: Policy) -> str | None:
    """Why nothing can be decided now, if so."""
    if load.held:
        return f"a person holds it at {load.instances}"
    if load.ready < load.instances:
        return f"{load.ready} of {load.instances} instances are ready"
    if load.agreeing < policy.readings or load.handled_per_s is None:
        return f"measuring: {load.agreeing} of {policy.readings} readings"
    if load.lag_s is None:
        return f"nothing handled while {load.lag:,} messages wait: more instances would not help; see its log"
    return None


def _answer_backlog(load: Load, policy: Policy, *, most: int) -> Decision:
    """More instances, when those there are would not be done in time."""
    assert load.handled_per_s is not None
    assert load.input_per_s is not None
    one_per_s = load.handled_per_s / load.ready
    needed = math.ceil((load.input_per_s + load.lag / policy.drain_within_s) / one_per_s)
    told = f"{_lag(load)}, {load.input_per_s:,.0f}/s come in, one instance handles {one_per_s:,.0f}/s"
    if needed <= load.instances:
        reason = f"{told}: {load.instances} drain it in {policy.drain_within_s:.0f} s"
    else:
        reason = f"{told}: {needed} would drain it in {policy.drain_within_s:.0f} s"
    if needed > most:
        limit = f"its {load.partitions} partitions" if most == load.partitions else f"the {most} allowed"
        reason = f"{reason}, limited to {limit}"
    return Decision(load=load, instances=min(max(needed, load.instances), most), reason=reason)


def _answer_calm(load: Load, policy: Policy) -> Decision:
    """One instance less, when it was calm for long and the others can carry what came in meanwhile."""
    fewer, peak = load.instances - 1, load.peak_input_per_s or 0.0
    can_do = policy.headroom * fewer * (load.capacity_per_s or 0.0)
    if load.calm_s < policy.calm_s:
        return _stay(load, f"{_lag(load)}, calm for {load.calm_s:.0f} of {policy.calm_s:.0f} s")
    if peak > can_do and peak > 0:
        return _stay(load, f"needed: up to {peak:,.0f}/s come in, and {fewer} can be trusted with {can_do:,.0f}/s")
    reason = f"calm for {load.calm_s:.0f} s: up to {peak:,.0f}/s come in, which {fewer} can carry"
    return Decision(load=load, instances=fewer, reason=reason)


def _lag(load: Load) -> str:
    return f"{load.lag:,} messages behind" + (f" ({load.lag_s:,.0f} s)" if load.lag_s else "")


def _stay(load: Load, reason: str) -> Decision:
    return Decision(load=load, instances=load.instances, reason=reason)
