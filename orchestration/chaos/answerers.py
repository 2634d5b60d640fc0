"""The processes that answer predictions, by name: the supervisor's own, and what Ray runs below one of them.

A replica keeps the name of the place it fills (``replica``, ``replica-1``): the one that replaces a killed one stands at
its place. Ready means that the load balancer asks it. What bites: a place that nobody fills is told with no pid, since a
name that is gone would mean that it is no longer wanted.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.adapters.haproxy import HaproxyAdmin
from headway.errors import TransientFailure
from headway.local.processes import descendants
from headway.settings import Settings
from orchestration.chaos.stack import processes_of
from serving.balancer import load_balancer_table, replica_registry
from serving.replica import ReplicaRecord, read_records

# What the command line of a process below Ray begins with, or holds in its first word.
_BELOW_RAY = {"controller": "ray::ServeController", "raylet": "/raylet/raylet", "gcs": "/gcs/gcs_server"}
_TIMEOUT_S = 2.0


class Answerers:
    """What `orchestration.chaos.faults.Injector` asks; safe from several threads."""

    def __init__(self, settings: Settings, *, product: str, replicas: int) -> None:
        self._settings, self._product = settings, product
        table = load_balancer_table(settings, products=[product], states={}, records=lambda _: ())
        self._admin = HaproxyAdmin(table.admin_socket, timeout_s=_TIMEOUT_S)
        self._places: dict[str, int | None] = {
            "replica" if number == 0 else f"replica-{number}": None for number in range(replicas)
        }
        self._held = threading.Lock()

    def __call__(self) -> dict[str, Mapping[str, Any]]:
        """Return pid and state of each process, by name."""
        found: dict[str, Mapping[str, Any]] = dict(processes_of(self._settings))
        return found | self._below_ray(found["ray"]["pid"]) | self._replicas()

    def _below_ray(self, pid: int | None) -> dict[str, Mapping[str, Any]]:
        words = {each: _first_word(each) for each in (() if pid is None else descendants(pid))}
        pids = {
            name: next((each for each, word in words.items() if word.startswith(named) or word.endswith(named)), None)
            for name, named in _BELOW_RAY.items()
        }
        return {
            name: {"name": name, "pid": pid, "state": "gone" if pid is None else "ready"} for name, pid in pids.items()
        }

    def _replicas(self) -> dict[str, Mapping[str, Any]]:
        living = {record.pid: record for record in self._records() if Path(f"/proc/{record.pid}").exists()}
        asked = self._asked()
        with self._held:
            new = [pid for pid in sorted(living) if pid not in self._places.values()]
            for name, pid in self._places.items():
                if pid not in living:
                    self._places[name] = new.pop(0) if new else None
            places = dict(self._places)
        return {
            name: {
                "name": name,
                "pid": pid,
                "state": "ready" if pid is not None and living[pid].replica in asked else "starting",
            }
            for name, pid in places.items()
        }

    def _records(self) -> Sequence[ReplicaRecord]:
        folder = replica_registry(self._settings)
        names = sorted(path.name for path in folder.glob(f"{self._product}.v*"))
        return [record for name in names for record in read_records(folder, name)]

    def _asked(self) -> frozenset[str]:
        try:
            servers = self._admin.servers()
        except TransientFailure:
            return frozenset()
        return frozenset(s.server for s in servers if s.check == "L7OK" and s.status.startswith("UP") and s.weight > 0)


def _first_word(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
