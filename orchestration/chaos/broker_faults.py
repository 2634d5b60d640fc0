"""Hurting one broker of a local cluster, and the proof that it was hurt.

Every fault ends when the cluster is whole again: each partition led, each copy in sync. A fault without its proof has
not happened (a test that injects nothing passes), so each report says what was seen: pids, epochs, copies in sync.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.local import lifecycle
from headway.local.kafka import local_brokers
from headway.settings import Settings
from orchestration.chaos.broker_watch import BrokerWatch, whole
from orchestration.chaos.faults import process_state
from orchestration.chaos.stack import processes_of

Kind = Literal["kill-leader", "kill-leader-ahead", "kill-controller", "stop-leader", "stop-follower", "rolling-restart"]

# A broker that was killed starts again within 15 s on a busy machine, and then copies what it missed.
_WHOLE_WITHIN_S = 90.0
# Views of three brokers differ for a moment: whole is what stays whole.
_STAYS_WHOLE_S = 1.5
# The session of a broker lasts 5 s; a stop that is to be noticed lasts longer.
_STOPPED_S = 9.0
# Long enough for a leader to get ahead of its followers, and short of the 2 s after which controllers hold an election.
_STALLED_S = 0.8
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class FaultReport:
    """One fault: when it began and when the cluster was whole again (monotonic), and what proves it."""

    kind: Kind
    name: str
    began_s: float
    whole_s: float
    seen: Mapping[str, bool]
    details: Mapping[str, Any]  # Any: JSON

    @property
    def proof(self) -> str | None:
        """What proves it; None when something that belongs to it was not seen."""
        return ", ".join(self.seen).replace("_", " ") if all(self.seen.values()) else None

    def facts(self, *, begun_s: float) -> dict[str, Any]:
        """Return it as plain values, its time from the start of the trial."""
        return {
            "at_s": round(self.began_s - begun_s, 2),
            "process": self.name,
            "what": self.kind,
            "whole_after_s": round(self.whole_s - self.began_s, 2),
            "proof": self.proof,
            "seen": dict(self.seen),
            **self.details,
        }


class BrokerCluster:
    """A cluster of the local supervisor, seen and hurt by node number."""

    def __init__(self, settings: Settings, *, topic: str) -> None:
        self.settings = settings
        brokers = local_brokers(
            settings.state,
            port=settings.ports.kafka,
            controller_port=settings.ports.kafka_controller,
            count=settings.brokers,
        )
        self._names = {broker.node_id: broker.data_dir.name for broker in brokers}
        self.watch = BrokerWatch({broker.node_id: broker.bootstrap for broker in brokers}, topic)

    @property
    def nodes(self) -> tuple[int, ...]:
        """Every broker's number."""
        return tuple(self._names)

    def name(self, node: int) -> str:
        """Give the supervisor's name for a broker."""
        return self._names[node]

    def pid(self, node: int) -> int | None:
        """Give a broker's process now; None while it has none."""
        pid = processes_of(self.settings)[self._names[node]]["pid"]
        return None if pid is None else int(pid)

    def leads_most(self, *, but: Iterable[int] = ()) -> int:
        """Give the broker that leads most partitions of the topic."""
        led = [part.leader for part in self.watch.partitions()]
        return max((node for node in self.nodes if node not in set(but)), key=lambda node: (led.count(node), -node))

    def wait_whole(self, *, within_s: float = _WHOLE_WITHIN_S) -> float:
        """Wait until every copy has been in sync for a moment; return since when.

        Raises:
            TransientFailure: it took too long.
        """
        deadline_s = monotonic_s() + within_s
        since_s: float | None = None
        while True:
            now_s = monotonic_s()
            if not whole(self.watch.partitions()):
                since_s = None
            elif since_s is None:
                since_s = now_s
            elif now_s - since_s >= _STAYS_WHOLE_S:
                return since_s
            if now_s > deadline_s:
                seen = ", ".join(f"{part} {part.in_sync}" for part in self.watch.partitions())
                raise TransientFailure(f"kafka: not every copy is in sync after {within_s:.0f} s ({seen}). See log/.")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop watching."""
        self.watch.close()


def hurt(cluster: BrokerCluster, kind: Kind) -> FaultReport:
    """Do one fault to a whole cluster and wait until it is whole again.

    Raises:
        TransientFailure: the cluster was not whole before, or did not become so afterwards.
    """
    cluster.wait_whole()
    match kind:
        case "kill-leader":
            return _kill(cluster, kind, cluster.leads_most())
        case "kill-leader-ahead":
            return _kill(cluster, kind, cluster.leads_most(), ahead=True)
        case "kill-controller":
            return _kill(cluster, kind, cluster.watch.controller())
        case "stop-leader":
            return _stop(cluster, kind, cluster.leads_most())
        case "stop-follower":
            led = [part.leader for part in cluster.watch.partitions()]
            others = [node for node in cluster.nodes if node != cluster.watch.controller()]
            return _stop(cluster, kind, min(others, key=lambda node: (led.count(node), node)))
        case "rolling-restart":
            return _restart_all(cluster, kind)


def _kill(cluster: BrokerCluster, kind: Kind, node: int, *, ahead: bool = False) -> FaultReport:
    before = cluster.pid(node)
    assert before is not None, f"broker {node} is not running"
    led = sum(part.leader == node for part in cluster.watch.partitions())
    began_s = monotonic_s()
    if ahead:
        # What the leader takes now, only it has: acknowledged already, it would be lost with it.
        with _stopped(cluster, [other for other in cluster.nodes if other != node]):
            time.sleep(_STALLED_S)
            os.kill(before, signal.SIGKILL)
    else:
        os.kill(before, signal.SIGKILL)
    _await(lambda: cluster.watch.left_sync(node, since_s=began_s))
    whole_s = cluster.wait_whole()
    after = cluster.pid(node)
    seen = {"another_pid": after not in (before, None), "left_sync": cluster.watch.left_sync(node, since_s=began_s)}
    return _report(cluster, kind, node, began_s, whole_s, seen=seen, pids=[before, after], led=led)


def _stop(cluster: BrokerCluster, kind: Kind, node: int) -> FaultReport:
    pid = cluster.pid(node)
    assert pid is not None, f"broker {node} is not running"
    led = [str(part) for part in cluster.watch.partitions() if part.leader == node]
    began_s = monotonic_s()
    with _stopped(cluster, [node]):
        time.sleep(_STOPPED_S)
        _await(lambda: cluster.watch.left_sync(node, since_s=began_s) and cluster.watch.led_by_another(node, led))
        held, deposed = process_state(pid), cluster.watch.led_by_another(node, led)
        went_on_s = monotonic_s()
    whole_s = cluster.wait_whole()
    # The same process all along: what came back is the zombie itself and no fresh start.
    left = cluster.watch.left_sync(node, since_s=began_s)
    seen = {"kernel_state_T": held == "T", "same_pid": cluster.pid(node) == pid, "left_sync": left}
    if kind == "stop-leader":
        seen["another_led_meanwhile"] = bool(led) and deposed
        seen["came_back_as_follower"] = cluster.watch.came_back(node, led, since_s=went_on_s)
    return _report(cluster, kind, node, began_s, whole_s, seen=seen, pids=[pid], led=len(led))


@contextmanager
def _stopped(cluster: BrokerCluster, nodes: Iterable[int]) -> Iterator[None]:
    """SIGSTOP these brokers, and SIGCONT them at the end whatever happens."""
    pids = [pid for node in nodes if (pid := cluster.pid(node)) is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _restart_all(cluster: BrokerCluster, kind: Kind) -> FaultReport:
    before = {node: cluster.pid(node) for node in cluster.nodes}
    led = len(cluster.watch.partitions())
    began_s = whole_s = monotonic_s()
    for node in cluster.nodes:
        lifecycle.direct(cluster.settings, "restart", cluster.name(node), within_s=_WHOLE_WITHIN_S)
        whole_s = cluster.wait_whole()
    after = {node: cluster.pid(node) for node in cluster.nodes}
    seen = {f"another_pid_{node}": after[node] not in (before[node], None) for node in cluster.nodes}
    return _report(cluster, kind, 0, began_s, whole_s, seen=seen, pids=[*before.values(), *after.values()], led=led)


def _report(
    cluster: BrokerCluster,
    kind: Kind,
    node: int,
    began_s: float,
    whole_s: float,
    *,
    seen: dict[str, bool],
    pids: list[int | None],
    led: int,
) -> FaultReport:
    elections = cluster.watch.elections(since_s=began_s)
    of_partitions = [each for each in elections if each.of != "controller"]
    if led and kind != "stop-follower":
        seen = {**seen, "leader_epoch_moved": bool(of_partitions)}
    if kind == "kill-controller":
        seen = {**seen, "controller_epoch_moved": any(each.of == "controller" for each in elections)}
    return FaultReport(
        kind=kind,
        name="all in turn" if node == 0 else cluster.name(node),
        began_s=began_s,
        whole_s=whole_s,
        seen=seen,
        details={
            "pids": pids,
            "partitions_led": led,
            "fewest_in_sync": cluster.watch.fewest_in_sync(since_s=began_s),
            "elections": [
                {"of": each.of, "epoch": each.epoch, "leader": each.leader, "after_s": round(each.seen_s - began_s, 2)}
                for each in elections
            ],
        },
    )


def _await(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait for a condition; what did not come is missing in the proof."""
    deadline_s = monotonic_s() + within_s
    while not condition() and monotonic_s() < deadline_s:
        time.sleep(_POLL_S)
