"""What happened to a cluster's leaders while it was being hurt: every election and every change of who is in sync.

Asks each broker several times a second what it believes, in threads of its own, since a stopped broker takes a question
and never answers it. The newest epoch wins: a broker that was stopped wakes up believing the past.
"""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headway.adapters.kafka_wire import ask_metadata, ask_quorum
from headway.clock import monotonic_s
from headway.errors import TransientFailure
from headway.kafka_health import Partition

_EVERY_S = 0.1
_TIMEOUT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Election:
    """One change of a leader; ``of`` is a partition's name, or ``controller``."""

    of: str
    epoch: int
    leader: int
    seen_s: float


class BrokerWatch:
    """Watches one topic's partitions and the quorum until closed; times are of the monotonic clock."""

    def __init__(self, addresses: Mapping[int, str], topic: str) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._partitions: dict[str, Partition] = {}
        self._controller: tuple[int, int] = (-1, -1)
        self._elections: list[Election] = []
        self._in_sync: list[tuple[float, Partition]] = []
        self._threads = [
            threading.Thread(target=self._watch, args=(address,), name=f"watch-{node}", daemon=True)
            for node, address in addresses.items()
        ]
        for thread in self._threads:
            thread.start()

    def partitions(self) -> tuple[Partition, ...]:
        """Give each partition as last seen."""
        with self._lock:
            return tuple(self._partitions[name] for name in sorted(self._partitions))

    def controller(self) -> int:
        """Give the node that leads the quorum, as last seen."""
        with self._lock:
            return self._controller[1]

    def elections(self, *, since_s: float = 0.0) -> tuple[Election, ...]:
        """Give the elections seen since an instant, the first sight of each partition not counted."""
        with self._lock:
            return tuple(each for each in self._elections if each.seen_s >= since_s)

    def fewest_in_sync(self, *, since_s: float) -> int | None:
        """Give the smallest number of copies in sync that any partition was seen with since an instant."""
        with self._lock:
            return min((len(part.in_sync) for at_s, part in self._in_sync if at_s >= since_s), default=None)

    def left_sync(self, node: int, *, since_s: float) -> bool:
        """Whether a broker was seen out of step in any partition since an instant."""
        with self._lock:
            return any(node not in part.in_sync for at_s, part in self._in_sync if at_s >= since_s)

    def led_by_another(self, node: int, names: Collection[str]) -> bool:
        """Whether all these partitions have a leader now, and none of them this broker."""
        with self._lock:
            return all(self._partitions[name].leader not in (node, None) for name in names)

    def came_back(self, node: int, names: Collection[str], *, since_s: float) -> bool:
        """Whether a broker was seen in sync in each of these partitions since an instant.

        After another was elected that means it followed: no epoch but the newest counts, and a copy gets into sync only
        behind a leader. It may lead again by the time anybody looks, so who leads is not asked.
        """
        with self._lock:
            return {str(part) for at_s, part in self._in_sync if at_s >= since_s and node in part.in_sync} >= set(names)

    def note(self, seen: Iterable[Partition]) -> None:
        """Take one broker's view; what is older than another's is left aside."""
        now_s = monotonic_s()
        with self._lock:
            for part in seen:
                known = self._partitions.get(str(part))
                if part.leader is None or part.epoch is None or (known and (known.epoch or 0) > part.epoch):
                    continue
                if known is not None and part.epoch > (known.epoch or 0):
                    self._elections.append(Election(of=str(part), epoch=part.epoch, leader=part.leader, seen_s=now_s))
                if known is None or known.in_sync != part.in_sync or known.epoch != part.epoch:
                    self._in_sync.append((now_s, part))
                self._partitions[str(part)] = part

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, address: str) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                partitions = ask_metadata(address, [self._topic], timeout_s=_TIMEOUT_S).partitions
                self.note(partitions)
                quorum = ask_quorum(address, timeout_s=_TIMEOUT_S)
            except TransientFailure:
                continue
            if quorum.leader is not None:
                self._note_controller(quorum.epoch, quorum.leader)

    def _note_controller(self, epoch: int, leader: int) -> None:
        now_s = monotonic_s()
        with self._lock:
            if epoch > self._controller[0]:
                if self._controller[0] >= 0:
                    self._elections.append(Election(of="controller", epoch=epoch, leader=leader, seen_s=now_s))
                self._controller = (epoch, leader)


def whole(partitions: Sequence[Partition]) -> bool:
    """Whether every partition has a leader and all its copies in sync."""
    return bool(partitions) and not any(part.leader is None or part.under_replicated for part in partitions)
