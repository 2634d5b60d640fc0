"""One round of the scaler: what it reads, records and asks for, on a fleet in memory."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from headway.adapters.kafka_backlog import GroupBacklog
from headway.adapters.memory_fleet import MemoryFleet
from headway.adapters.scaling_table import KEPT_US, ScalingTable
from headway.backlog import Policy
from headway.clock import FrozenClock, to_us
from headway.scaling import Decision
from streaming.scaler import Scaler
from streaming.scaler_metrics import ScalerMetrics

POLICY = Policy(most=2, extra=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
EVERY = timedelta(seconds=5)


class World:
    """Two jobs; the enricher handles 1,000 messages a second and instance, the loader has nothing to do."""

    def __init__(self, folder: Path) -> None:
        self.clock = FrozenClock(START)
        self.fleet = MemoryFleet({"enricher": 4, "loader": 4})
        self.table = ScalingTable(folder / "decisions.sqlite")
        idle = GroupBacklog(written=0, done=0, places=4, partitions=4)
        self.found = {"enricher": idle, "loader": idle}
        self.scaler = Scaler(
            backlogs=self.backlogs, fleet=self.fleet, table=self.table, policy=POLICY, clock=self.clock
        )

    def backlogs(self) -> Mapping[str, GroupBacklog]:
        return self.found

    def send(self, count: int) -> None:
        self.found["enricher"] = replace(self.found["enricher"], written=self.found["enricher"].written + count)

    def turn(self) -> dict[str, Decision]:
        decisions = self.scaler.turn(self.clock.now().timestamp())
        self.clock.advance(EVERY)
        backlog, handled = self.found["enricher"], 5_000 * self.fleet.counts()["enricher"].ready
        self.found["enricher"] = replace(backlog, done=min(backlog.written, backlog.done + handled))
        return {each.load.job: each for each in decisions}

    @property
    def wanted(self) -> dict[str, int]:
        return {job: count.wanted for job, count in self.fleet.counts().items()}


def test_a_backlog_brings_a_second_instance_and_its_end_takes_it_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(100_000)

    for _ in range(3):
        world.turn()
    during = world.wanted
    for _ in range(40):
        world.turn()

    assert during == {"enricher": 2, "loader": 1}
    assert world.wanted == {"enricher": 1, "loader": 1}
    up, down = world.table.read(job=None, last=10, changes=True)
    assert [(row.job, row.before, row.after) for row in (up, down)] == [("enricher", 1, 2), ("enricher", 2, 1)]
    assert up.reason == (
        "90,000 messages behind (90 s), 0/s come in, one instance handles 1,000/s: 3 would drain it in 30 s, "
        "limited to the 2 allowed"
    )


def test_every_decision_is_recorded_with_what_it_was_made_from(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(100_000)

    decisions = [world.turn() for _ in range(3)]

    rows = world.table.read(job="enricher", last=10, changes=False)
    assert [row.inputs for row in rows] == [
        {"load": asdict(each["enricher"].load), "policy": asdict(POLICY)} for each in decisions
    ]
    assert [row.at_us for row in rows] == [to_us(START + n * EVERY) for n in range(3)]


def test_decisions_alike_in_every_input_are_one_row_that_counts_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(100):
        world.turn()

    row = world.table.read(job="loader", last=1, changes=False)[0]

    assert row.times > 80
    assert row.until_us == to_us(START + 99 * EVERY)


def test_what_changed_a_number_is_kept_and_the_rest_is_forgotten_after_a_day(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(100_000)
    for _ in range(3):
        world.turn()

    world.clock.advance(timedelta(microseconds=KEPT_US + 1))
    world.turn()

    assert [row.after for row in world.table.read(job="enricher", last=10, changes=True)] == [2]
    assert {row.at_us for row in world.table.read(job="loader", last=10, changes=False)} == {
        to_us(START + 3 * EVERY) + KEPT_US + 1
    }


def test_a_number_that_a_person_holds_is_neither_changed_nor_asked_about(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fleet.hold("enricher", 1)
    world.send(1_000_000)

    decisions = [world.turn()["enricher"] for _ in range(10)]

    assert {each.reason for each in decisions} == {"a person holds it at 1"}
    assert world.wanted["enricher"] == 1


def test_a_person_who_is_quicker_than_the_scaler_wins(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.send(100_000)
    world.turn()
    world.turn()
    read = world.backlogs

    def hold_meanwhile() -> Mapping[str, GroupBacklog]:
        world.fleet.hold("enricher", 1)
        return read()

    world.scaler._backlogs = hold_meanwhile  # between the scaler's look at the fleet and its request
    decision = world.turn()["enricher"]

    assert (decision.instances, world.wanted["enricher"]) == (2, 1)


def test_a_job_that_does_not_run_here_is_left_out(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.found["elsewhere"] = GroupBacklog(written=10**6, done=0, places=4, partitions=4)

    assert set(world.turn()) == {"enricher", "loader"}


def test_the_metrics_are_those_of_the_last_round_and_none_after_a_failed_one(tmp_path: Path) -> None:
    world, metrics, registry = World(tmp_path), ScalerMetrics(), CollectorRegistry()
    registry.register(metrics)
    world.send(100_000)
    for _ in range(3):
        metrics.note(list(world.turn().values()))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"headway_scaler_{name}", labels)

    assert value("instances_wanted", job="enricher") == 2
    assert value("instances_idle", job="enricher") == 0
    assert value("lag_messages", job="enricher") == 90_000
    assert value("lag_seconds", job="enricher") == 90
    assert value("changes_total", job="enricher", direction="up") == 1
    metrics.forget()
    assert value("lag_messages", job="enricher") is None
    assert value("failed_rounds_total") == 1


def test_instances_beyond_the_partitions_are_shown_as_idle_and_never_asked_for(tmp_path: Path) -> None:
    """Somebody started five by hand, and holds them."""
    world, metrics, registry = World(tmp_path), ScalerMetrics(), CollectorRegistry()
    registry.register(metrics)
    world.fleet.hold("enricher", 5)

    metrics.note(list(world.turn().values()))

    assert registry.get_sample_value("headway_scaler_instances_idle", {"job": "enricher"}) == 1
