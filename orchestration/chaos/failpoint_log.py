"""Fail-points that killed a process or hung it, taken from its log as they happen and handed over as faults to be proven."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import orjson

from headway.clock import SystemClock, monotonic_s
from orchestration.chaos.faults import Fault, Injector

_EVERY_S = 0.2


class FailPointLog:
    """The log of one process; lines that were there before are not read."""

    def __init__(self, path: Path, *, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._read = path.stat().st_size if path.exists() else 0

    @contextmanager
    def watched(self, injector: Injector) -> Iterator[None]:
        """Hand every kill and hang to the injector while the body runs, and those of the last moment after it."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_EVERY_S):
                self._hand_over(injector)

        watcher = threading.Thread(target=watch, name="failpoint-log")
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self._hand_over(injector)

    def _hand_over(self, injector: Injector) -> None:
        for fault in self._new_faults():
            injector.adopt(fault)

    def _new_faults(self) -> list[Fault]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as log:
            log.seek(self._read)
            new, end, _ = log.read().rpartition(b"\n")
        self._read += len(new) + len(end)
        return [fault for line in new.splitlines() if (fault := self._fault(line)) is not None]

    def _fault(self, line: bytes) -> Fault | None:
        if b'"failpoint"' not in line:
            return None
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            return None
        if said.get("event") != "failpoint" or said.get("action") not in ("kill", "hang"):
            return None
        ago_s = (SystemClock().now() - datetime.fromisoformat(said["timestamp"])).total_seconds()
        return Fault(
            kind=self._kind,
            name=self._kind,
            what=said["action"],
            at_s=monotonic_s() - ago_s,
            pid=said["pid"],
            point=said["name"].partition(".")[2],
        )
