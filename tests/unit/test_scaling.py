"""The scaler's decision, on a job that is simulated: so much comes in, an instance handles so much, lag is the rest."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.backlog import Load, Policy, Reading, Track, measure
from headway.scaling import Decision, decide

EVERY_S = 5.0
POLICY = Policy(most=4, extra=3)
PARTITIONS = 4


@dataclass
class Job:
    """A job under the scaler; ``start_steps`` is how long another instance takes to be ready."""

    capacity_per_s: float
    policy: Policy = POLICY
    partitions: int = PARTITIONS
    start_steps: int = 1
    flush_steps: int = 1  # commits come every so many steps, as a loader's do
    instances: int = 1
    ready: int = 1
    written: float = 0.0
    handled: float = 0.0
    done: float = 0.0
    step: int = 0
    starting: int = 0
    track: Track = field(default_factory=Track)

    def run(self, steps: int, input_per_s: float | Callable[[int], float]) -> list[Decision]:
        return [self.turn(input_per_s if isinstance(input_per_s, float) else input_per_s(n)) for n in range(steps)]

    def turn(self, input_per_s: float) -> Decision:
        self.step += 1
        self.written += input_per_s * EVERY_S
        self.handled = min(self.written, self.handled + self.ready * self.capacity_per_s * EVERY_S)
        if self.step % self.flush_steps == 0:
            self.done = self.handled
        self.track = self.track.follow(self.reading(), self.policy)
        load = measure("job", self.track, self.policy, partitions=self.partitions, held=False)
        (decision,) = decide([load], self.policy)
        self._obey(decision)
        return decision

    def reading(self) -> Reading:
        return Reading(
            at_s=self.step * EVERY_S,
            written=int(self.written),
            done=int(self.done),
            places=self.partitions,
            instances=self.instances,
            ready=self.ready,
        )

    def _obey(self, decision: Decision) -> None:
        if decision.instances > self.instances:
            self.starting = self.start_steps
        self.instances = decision.instances
        self.starting = max(0, self.starting - 1)
        self.ready = self.instances if not self.starting else min(self.ready, self.instances)

    @property
    def lag(self) -> float:
        return self.written - self.done


def changes(decisions: list[Decision]) -> list[tuple[int, int]]:
    return [(each.load.instances, each.instances) for each in decisions if each.changes]


def load(job: str = "job", **other: object) -> Load:
    usual = Load(
        job=job,
        instances=1,
        ready=1,
        held=False,
        partitions=PARTITIONS,
        lag=100_000,
        lag_s=100.0,
        input_per_s=500.0,
        peak_input_per_s=500.0,
        handled_per_s=1000.0,
        capacity_per_s=1000.0,
        agreeing=3,
        behind=True,
        calm_s=0.0,
    )
    return replace(usual, **other)  # type: ignore[arg-type]  # fields by name


RATES = st.floats(0.0, 50_000.0)
CAPACITIES = st.floats(10.0, 10_000.0)


@settings(deadline=None)
@given(
    capacity=CAPACITIES,
    inputs=st.lists(RATES, min_size=40, max_size=120),
    most=st.integers(1, 12),
    partitions=st.integers(1, 8),
    extra=st.integers(0, 12),
    flush_steps=st.integers(1, 3),
)
def test_whatever_comes_in_a_job_has_one_instance_at_least_and_never_more_than_partitions_or_allowed(
    *, capacity: float, inputs: list[float], most: int, partitions: int, extra: int, flush_steps: int
) -> None:
    policy = Policy(most=most, extra=extra)
    job = Job(capacity_per_s=capacity, policy=policy, partitions=partitions, flush_steps=flush_steps)

    decisions = job.run(len(inputs), lambda n: inputs[n])

    assert all(1 <= each.instances <= min(partitions, most, 1 + extra) for each in decisions)
    assert all(each.reason for each in decisions)


@settings(deadline=None)
@given(
    capacity=CAPACITIES,
    share=st.floats(0.05, 3.5),
    flush_steps=st.integers(1, 3),
    start_steps=st.integers(0, 4),
    backlog_s=st.floats(0.0, 600.0),
)
def test_under_constant_load_the_number_settles_and_does_not_flap(
    capacity: float, share: float, flush_steps: int, start_steps: int, backlog_s: float
) -> None:
    """One way up, then one way down: never up again after down, whatever the load relative to one instance."""
    job = Job(capacity_per_s=capacity, flush_steps=flush_steps, start_steps=start_steps)
    job.written = backlog_s * capacity

    path = changes(job.run(400, share * capacity))

    ups = [after > before for before, after in path]
    assert ups == sorted(ups, reverse=True), path
    assert len(path) <= 6
    assert changes(job.run(100, share * capacity)) == []


@settings(deadline=None)
@given(capacity=CAPACITIES, share=st.floats(1.3, 3.5))
def test_a_growing_lag_brings_more_instances_within_a_few_decisions(capacity: float, share: float) -> None:
    """From the moment the backlog is real: what one instance handles in ten seconds, seen three times."""
    job = Job(capacity_per_s=capacity)
    before = job.run(3, 0.5 * capacity)

    until_real = int(POLICY.behind_s / ((share - 1) * EVERY_S)) + 2
    decisions = job.run(until_real + POLICY.readings + 1, share * capacity)

    assert changes(before) == []
    assert decisions[-1].load.instances > 1 or decisions[-1].changes


@settings(deadline=None)
@given(capacity=st.floats(100.0, 10_000.0), share=st.floats(0.0, 0.3))
def test_a_job_that_has_nothing_to_do_for_long_returns_to_one_instance(capacity: float, share: float) -> None:
    job = Job(capacity_per_s=capacity)
    job.run(40, 3.0 * capacity)
    many = job.instances

    job.run(200, share * capacity)

    assert many > 1
    assert job.instances == 1


@settings(deadline=None)
@given(capacity=st.floats(100.0, 5_000.0), backlog_s=st.floats(50.0, 120.0))
def test_a_backlog_is_gone_in_the_time_given_once_there_are_enough_instances(capacity: float, backlog_s: float) -> None:
    """From the decision on; starting an instance takes one reading more."""
    job = Job(capacity_per_s=capacity)
    job.written = backlog_s * capacity
    steps = 0
    while not job.turn(0.0).changes:
        steps += 1
        assert steps < 10

    job.run(int(POLICY.drain_within_s / EVERY_S) + 1, 0.0)

    assert job.lag <= POLICY.noise * PARTITIONS


def test_a_backlog_that_drains_in_time_anyway_starts_nothing() -> None:
    job = Job(capacity_per_s=1000.0)
    job.written = 25 * 1000.0

    assert changes(job.run(20, 0.0)) == []


def test_a_job_that_handles_nothing_is_not_given_more_instances() -> None:
    """A breaker that is open, or a store that is down: more of the same would stand still beside it."""
    job = Job(capacity_per_s=0.0)

    decisions = job.run(30, 1000.0)

    assert changes(decisions) == []
    assert "nothing handled" in decisions[-1].reason


def test_markers_that_look_like_lag_at_rest_are_not_work() -> None:
    job = Job(capacity_per_s=1000.0, instances=2, ready=2)
    job.written = POLICY.noise * PARTITIONS

    decisions = [job.turn(0.0) for _ in range(3)]
    job.capacity_per_s = 0.0  # nothing more is ever committed: there is nothing to commit
    decisions += job.run(20, 0.0)

    assert changes(decisions) == [(2, 1)]


def test_what_a_person_holds_is_left_alone() -> None:
    (decision,) = decide([load(held=True)], POLICY)

    assert (decision.instances, decision.reason) == (1, "a person holds it at 1")


def test_an_instance_that_is_still_starting_is_waited_for() -> None:
    (decision,) = decide([load(instances=2, ready=1)], POLICY)

    assert (decision.instances, decision.reason) == (2, "1 of 2 instances are ready")


def test_the_partitions_are_named_when_they_are_the_limit() -> None:
    (decision,) = decide([load(instances=2, ready=2, partitions=2, lag=10**6)], POLICY)

    assert decision.instances == 2
    assert "limited to its 2 partitions" in decision.reason


def test_a_budget_for_one_more_goes_to_the_job_furthest_behind() -> None:
    policy = Policy(most=4, extra=1)

    slow, slower = decide([load("slow", lag_s=100.0), load("slower", lag_s=200.0)], policy)

    assert (slow.instances, slower.instances) == (1, 2)
    assert "the budget of 1 beyond the first ones leaves 0" in slow.reason


def test_a_policy_that_allows_fewer_takes_the_surplus_away() -> None:
    (decision,) = decide([load(instances=4, ready=4)], Policy(most=2, extra=3))

    assert (decision.instances, decision.changes) == (2, True)


@settings(deadline=None)
@given(
    loads=st.lists(
        st.builds(
            load,
            job=st.uuids().map(str),
            instances=st.integers(1, 4),
            lag=st.integers(0, 10**9),
            lag_s=st.none() | st.floats(0, 10**6),
            behind=st.booleans(),
            calm_s=st.floats(0, 100),
        ).map(lambda each: replace(each, ready=each.instances)),
        max_size=8,
    ),
    extra=st.integers(0, 8),
)
def test_no_round_of_decisions_spends_more_than_the_budget(loads: list[Load], extra: int) -> None:
    policy = Policy(most=4, extra=extra)
    before = sum(each.instances - 1 for each in loads)

    decisions = decide(loads, policy)

    assert sum(each.instances - 1 for each in decisions) <= max(extra, before)
    assert [each.load.job for each in decisions] == [each.job for each in loads]


@pytest.mark.parametrize("gap_s", [4.9, 5.0, 5.1, 7.3])
def test_calm_is_seen_however_the_readings_fall(gap_s: float) -> None:
    """Readings trimmed at a calm of sixty seconds would never reach it when one falls at sixty and a tenth."""
    track = Track()
    for n in range(40):
        reading = Reading(at_s=n * gap_s, written=0, done=0, places=4, instances=2, ready=2)
        track = track.follow(reading, POLICY)

    assert measure("job", track, POLICY, partitions=4, held=False).calm_s >= POLICY.calm_s
    assert len(track.readings) <= POLICY.calm_s / gap_s + 2
