"""When a model version gets a replica more or less, and what Ray is told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.adapters.scaling_table import ScalingTable
from headway.replica_scaling import Reading, ReplicaLoad, ReplicaPolicy, decide_replicas
from serving.replica_scaler import BUSY, IN_FLIGHT, LoadMeter, ReplicaScaler, Scaling

POLICY = ReplicaPolicy(least=1, most=4)


def readings(*busy: float, in_flight: float = 0.0) -> list[Reading]:
    return [Reading(busy=each, in_flight=in_flight) for each in busy]


def load(*replicas: Sequence[Reading], calm_s: float = 0.0, **changes: int) -> ReplicaLoad:
    counts = {"instances": len(replicas), "running": len(replicas), **changes}
    return ReplicaLoad(job="delay.v1", readings=replicas, calm_s=calm_s, **counts)


@pytest.mark.parametrize(
    ("given_load", "instances", "reason"),
    [
        (load(readings(0.5, 0.5, 0.5)), 1, "there are 1 always"),
        (load(readings(0.9, 0.9, 0.9)), 2, "busy 90% with 0 in flight: 2 are needed"),
        (load(readings(0.9, 0.9, 0.9), readings(0.9, 0.9, 0.9)), 3, "3 are needed"),
        (load(readings(0.1, 0.9, 0.9)), 1, "there are 1 always"),
        (load(readings(0.2, 0.2, 0.2, in_flight=20.0)), 3, "3 are needed"),
        (load(readings(0.2, 0.2, 0.2, in_flight=64.0)), 4, "8 are needed, limited to 4"),
        (load(readings(0.9, 0.9)), 1, "measuring: 0 of 1 replicas have 3 readings"),
        (load(running=1, instances=1), 1, "measuring: 0 of 1 replicas"),
        (load(readings(0.9, 0.9, 0.9), instances=2), 2, "1 of 2 replicas are running"),
        (load(readings(0.9, 0.9, 0.9), instances=9, running=9), 4, "9 are not within 1 and 4"),
        (load(readings(0.1, 0.1, 0.1), readings(0.1, 0.1, 0.1)), 2, "1 could carry it, for 0 of 60 s"),
        (load(readings(0.1, 0.1, 0.1), readings(0.1, 0.1, 0.1), calm_s=60.0), 1, "calm for 60 s"),
        (load(readings(0.3, 0.3, 0.3), readings(0.3, 0.3, 0.3), calm_s=60.0), 2, "could not be trusted"),
        (load(readings(0.5, 0.1, 0.1), readings(0.1, 0.1, 0.1), calm_s=60.0), 2, "could not be trusted"),
    ],
)
def test_a_decision_follows_from_the_load_and_says_why(given_load: ReplicaLoad, instances: int, reason: str) -> None:
    decision = decide_replicas(given_load, POLICY)

    assert decision.instances == instances
    assert reason in decision.reason


def test_only_what_the_others_could_carry_is_calm() -> None:
    quiet, busy = readings(0.1, 0.1, 0.1), readings(0.5, 0.5, 0.5)

    assert decide_replicas(load(quiet, quiet), POLICY).calm
    assert not decide_replicas(load(busy, busy), POLICY).calm
    assert not decide_replicas(load(quiet), POLICY).calm


_READINGS = st.lists(st.builds(Reading, busy=st.floats(0, 2), in_flight=st.floats(0, 64)), min_size=0, max_size=5)


@given(
    replicas=st.lists(_READINGS, min_size=1, max_size=6),
    running=st.integers(0, 6),
    calm_s=st.floats(0, 120),
)
def test_a_decision_keeps_the_bounds_and_ends_one_replica_at_most(
    replicas: list[list[Reading]], running: int, calm_s: float
) -> None:
    asked = ReplicaLoad(job="x", instances=len(replicas), running=running, readings=replicas[:running], calm_s=calm_s)

    decided = decide_replicas(asked, POLICY).instances

    assert POLICY.least <= decided <= POLICY.most
    assert decided >= min(len(replicas), POLICY.most) - 1


@given(
    replicas=st.lists(
        st.lists(st.builds(Reading, busy=st.floats(0, 2), in_flight=st.floats(0, 64)), min_size=3, max_size=3),
        min_size=2,
        max_size=4,
    )
)
def test_what_made_one_replica_go_does_not_bring_it_back(replicas: list[list[Reading]]) -> None:
    """The load of the one that went is shared by the others: were more needed then, the number would flap."""
    before = load(*replicas, calm_s=POLICY.calm_s)
    if decide_replicas(before, POLICY).instances == before.instances - 1:
        rest = len(replicas) - 1
        worst = [
            max(sum(each[n].busy for each in replicas) for n in range(3)),
            max(sum(each[n].in_flight for each in replicas) for n in range(3)),
        ]
        shared = [[Reading(busy=worst[0] / rest, in_flight=worst[1] / rest)] * 3] * rest

        assert decide_replicas(load(*shared), POLICY).instances == rest


@dataclass
class Value:
    value: float


@dataclass
class Context:
    """What Ray's controller tells a policy, as far as ours reads it."""

    current_time: float
    target_num_replicas: int = 1
    current_num_replicas: int = 1
    busy: Sequence[float] = (0.9, 0.9, 0.9)
    app_name: str = "delay.v1"
    policy_state: dict[str, Any] = field(default_factory=dict)

    @property
    def running_replicas(self) -> list[str]:
        return [f"r{n}" for n in range(self.current_num_replicas)]

    @property
    def raw_metrics(self) -> Mapping[str, Mapping[str, Sequence[Value]]]:
        return {
            BUSY: {each: [Value(busy) for busy in self.busy] for each in self.running_replicas},
            IN_FLIGHT: {each: [Value(0.0) for _ in self.busy] for each in self.running_replicas},
        }


class Ray:
    """The controller's turns: it asks, remembers, and does what it is told."""

    def __init__(self, file: Path) -> None:
        options = Scaling(policy=POLICY, decisions=file).options["autoscaling_config"]["policy"]
        self.scaler = ReplicaScaler(**options["policy_kwargs"])
        self.replicas, self.state = 1, dict[str, Any]()

    def turn(self, at_s: float, *, busy: float) -> int:
        context: Any = Context(
            current_time=at_s,
            target_num_replicas=self.replicas,
            current_num_replicas=self.replicas,
            busy=[busy] * 3,
            policy_state=dict(self.state),
        )
        self.replicas, self.state = self.scaler(context)
        return self.replicas


def test_replicas_come_at_once_and_go_one_by_one_after_a_calm_minute(tmp_path: Path) -> None:
    ray = Ray(tmp_path / "decisions.sqlite")

    up = [ray.turn(at_s, busy=0.9) for at_s in (0.0, 3.0, 6.0)]
    down = [ray.turn(10.0 + at_s, busy=0.05) for at_s in range(0, 300, 3)]

    assert up == [2, 3, 4]
    assert [count for count, _ in _runs(down)] == [4, 3, 2, 1]
    assert all(length >= 20 for _, length in _runs(down)[:-1])


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    return [(number, numbers.count(number)) for number in dict.fromkeys(numbers)]


def test_a_moment_of_load_begins_the_calm_minute_again(tmp_path: Path) -> None:
    ray = Ray(tmp_path / "decisions.sqlite")
    ray.turn(0.0, busy=0.9)

    quiet = [ray.turn(at_s, busy=0.05) for at_s in (3.0, 60.0)]
    ray.turn(62.5, busy=0.5)
    again = [ray.turn(at_s, busy=0.05) for at_s in (65.0, 122.0, 126.0)]

    assert (quiet, again) == ([2, 2], [2, 2, 1])


def test_each_judgement_is_recorded_with_its_inputs_as_often_as_there_are_new_ones(tmp_path: Path) -> None:
    ray = Ray(tmp_path / "decisions.sqlite")

    for tenth in range(75):
        ray.turn(100.0 + tenth / 10, busy=0.9)

    rows = ScalingTable(tmp_path / "decisions.sqlite").read(job="delay.v1", last=9, changes=False)
    assert [(row.before, row.after) for row in rows] == [(1, 2), (2, 3), (3, 4)]
    assert rows[0].inputs["load"]["readings"] == [[{"busy": 0.9, "in_flight": 0.0}] * 3]
    assert rows[0].inputs["policy"]["most"] == 4
    assert rows[0].at_us == 100_000_000


def test_a_decision_that_cannot_be_recorded_is_carried_out_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert Ray(tmp_path / "file" / "decisions.sqlite").turn(0.0, busy=0.9) == 2


def test_with_one_number_to_choose_from_ray_is_given_that_number() -> None:
    scaling = Scaling(policy=ReplicaPolicy(least=2, most=2), decisions=Path("unused"))

    assert scaling.options == {"num_replicas": 2}


def test_a_meter_tells_the_share_since_it_was_last_asked() -> None:
    cpu_s, now_s = iter([1.0, 1.5, 1.5, 3.5]), iter([10.0, 11.0, 11.0, 12.0])
    meter = LoadMeter(cpu_s=lambda: next(cpu_s), now_s=lambda: next(now_s))

    assert [meter.busy() for _ in range(3)] == [0.5, 0.0, 2.0]
