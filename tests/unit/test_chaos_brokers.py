"""R2: its schedule, its proofs, and the verdict on a hurt cluster: what is lost, repeated, invented, and an outage."""

from collections import Counter

import polars as pl
import pytest

from headway.clock import monotonic_s
from headway.kafka_health import Partition
from headway.topics import EVENTS_RAW, partition_of
from orchestration.chaos.broker_faults import FaultReport
from orchestration.chaos.broker_verdict import outages, settle_drive
from orchestration.chaos.broker_watch import BrokerWatch
from orchestration.chaos.r2 import FULL

PARTITIONS = 2
# One key for each of two partitions.
KEYS = {partition_of(name.encode(), PARTITIONS): name for name in ("a", "b", "c", "d", "e")}


def journal(*rows: tuple[str, str, float, str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"id": id_, "key": key, "sent_s": at - 0.1, "answered_s": at, "outcome": outcome, "status": status}
            for id_, key, at, outcome, status in rows
        ]
    )


def acked(id_: str, at: float, partition: int = 0) -> tuple[str, str, float, str, int]:
    return id_, KEYS[partition], at, "acked", 202


def unknown(id_: str, at: float, status: int = 503) -> tuple[str, str, float, str, int]:
    return id_, KEYS[0], at, "unknown", status


def test_what_was_acknowledged_and_is_not_in_the_log_is_lost() -> None:
    account = settle_drive(journal(acked("1", 1), acked("2", 2), unknown("3", 3)), ["1"])

    assert account.lost == ("2",)
    assert account.violations == {"lost": ("2",)}


def test_what_was_not_acknowledged_may_be_in_the_log_and_is_counted() -> None:
    account = settle_drive(journal(acked("1", 1), unknown("2", 2), unknown("3", 3)), ["1", "3"])

    assert account.violations == {}
    assert (account.unacknowledged, account.unacknowledged_but_written) == (2, 1)


def test_what_stands_in_the_log_twice_or_was_never_sent_is_named() -> None:
    account = settle_drive(journal(acked("1", 1), unknown("2", 2)), ["1", "2", "2", "9"])

    assert account.violations == {"repeated": ("2",), "invented": ("9",)}


def test_only_success_and_503_are_answers_a_client_may_get() -> None:
    account = settle_drive(journal(acked("1", 1), unknown("2", 2), unknown("3", 3, 500), unknown("4", 4, 0)), ["1"])

    assert account.odd_answers == {500: 1, 0: 1}


def test_an_outage_is_that_of_the_worst_partition() -> None:
    rows = [acked(f"0-{at}", at, 0) for at in range(20)]
    rows += [acked(f"1-{at}", at, 1) for at in range(20) if not 5 < at < 14]

    assert outages(journal(*rows), partitions=PARTITIONS, faults=[(6.0, 12.0), (16.0, 18.0)]) == [9.0, 1.0]


def test_a_partition_that_never_comes_back_is_out_until_the_end() -> None:
    rows = [acked(str(at), at, 0) for at in range(5)]

    assert outages(journal(*rows), partitions=PARTITIONS, faults=[(4.5, 10.0)]) == [6.0]


@pytest.mark.parametrize(("seen", "proof"), [(True, "another pid"), (False, None)])
def test_a_fault_that_was_not_seen_has_no_proof(*, seen: bool, proof: str | None) -> None:
    fault = FaultReport(
        kind="kill-leader", name="kafka", began_s=1, whole_s=2, seen={"another_pid": seen}, details={"pids": [1, 2]}
    )

    assert fault.proof == proof
    assert fault.facts(begun_s=0)["what"] == "kill-leader"


def test_the_whole_r2_kills_stops_and_restarts_as_often_as_promised() -> None:
    kinds = Counter(FULL.faults)

    assert kinds["kill-leader"] + kinds["kill-leader-ahead"] >= 6
    assert kinds["kill-controller"] >= 2
    assert kinds["stop-leader"] >= 2
    assert kinds["rolling-restart"] >= 1
    assert (FULL.acked, FULL.elections) >= (100_000, 6)


def seen(*, leader: int, epoch: int, in_sync: tuple[int, ...]) -> Partition:
    return Partition(topic=EVENTS_RAW, number=0, leader=leader, replicas=(1, 2, 3), in_sync=in_sync, epoch=epoch)


def test_a_zombie_leader_is_proven_by_who_led_meanwhile_and_by_how_it_came_back() -> None:
    watch, name = BrokerWatch({}, EVENTS_RAW), f"{EVENTS_RAW}-0"
    watch.note([seen(leader=1, epoch=1, in_sync=(1, 2, 3))])
    assert not watch.led_by_another(1, [name])

    watch.note([seen(leader=2, epoch=2, in_sync=(2, 3))])
    assert watch.led_by_another(1, [name])
    deposed_s = monotonic_s()
    assert not watch.came_back(1, [name], since_s=deposed_s)
    # Awake again, it still believes to lead: nobody takes its word.
    watch.note([seen(leader=1, epoch=1, in_sync=(1, 2, 3))])
    assert watch.led_by_another(1, [name])
    assert not watch.came_back(1, [name], since_s=deposed_s)

    watch.note([seen(leader=2, epoch=2, in_sync=(1, 2, 3))])
    assert watch.came_back(1, [name], since_s=deposed_s)
    assert not watch.came_back(1, [name, f"{EVENTS_RAW}-1"], since_s=deposed_s)
