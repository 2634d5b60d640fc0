"""What every fleet promises, tried on the one in memory and on a supervisor with real processes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.adapters.memory_fleet import MemoryFleet
from headway.errors import PermanentFailure, TransientFailure
from headway.local.control import ask
from headway.local.fleet import SupervisedFleet
from headway.ports import Fleet, InstanceCount
from tests.supervised import POLITE, Stack


class MemoryWorld:
    def __init__(self) -> None:
        self.memory = MemoryFleet({"job": 3})
        self.fleet: Fleet = self.memory

    def hold(self, instances: int) -> None:
        self.memory.hold("job", instances)


class SupervisedWorld:
    def __init__(self, stack: Stack) -> None:
        stack.start({"name": "job", "code": POLITE, "most": 3}, {"name": "log", "code": POLITE})
        stack.until_ready()
        self._control = stack.folder / "control.sock"
        self.fleet: Fleet = SupervisedFleet(self._control)

    def hold(self, instances: int) -> None:
        ask(self._control, {"do": "scale", "name": "job", "instances": instances, "held": True})


@pytest.fixture(params=["memory", pytest.param("supervised", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryWorld | SupervisedWorld]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    stack = Stack(tmp_path)
    try:
        yield SupervisedWorld(stack)
    finally:
        stack.close()


def counted(fleet: Fleet, wanted: InstanceCount) -> None:
    deadline = time.monotonic() + 30
    while fleet.counts() != {"job": wanted}:
        assert time.monotonic() < deadline, fleet.counts()
        time.sleep(0.02)


def test_what_is_asked_for_is_there_some_time_later(world: MemoryWorld | SupervisedWorld) -> None:
    counted(world.fleet, InstanceCount(wanted=1, ready=1, held=False))

    world.fleet.scale("job", 3)
    counted(world.fleet, InstanceCount(wanted=3, ready=3, held=False))
    world.fleet.scale("job", 2)
    counted(world.fleet, InstanceCount(wanted=2, ready=2, held=False))


@pytest.mark.parametrize("instances", [-1, 0, 4])
def test_instances_without_work_and_none_at_all_are_refused(
    world: MemoryWorld | SupervisedWorld, instances: int
) -> None:
    with pytest.raises(PermanentFailure, match=f"got {instances} instances, wanted 1 to 3"):
        world.fleet.scale("job", instances)

    assert world.fleet.counts()["job"].wanted == 1


def test_a_job_that_is_not_there_is_refused_with_those_that_are(world: MemoryWorld | SupervisedWorld) -> None:
    with pytest.raises(PermanentFailure, match=r"'jbo'.*found: job"):
        world.fleet.scale("jbo", 2)


def test_a_number_that_a_person_holds_is_shown_and_not_changed(world: MemoryWorld | SupervisedWorld) -> None:
    world.hold(2)

    with pytest.raises(PermanentFailure, match="a person holds it at 2"):
        world.fleet.scale("job", 1)

    counted(world.fleet, InstanceCount(wanted=2, ready=2, held=True))


def test_a_supervisor_that_is_gone_is_a_passing_failure(tmp_path: Path) -> None:
    with pytest.raises(TransientFailure, match="nobody answers"):
        SupervisedFleet(tmp_path / "control.sock").counts()
