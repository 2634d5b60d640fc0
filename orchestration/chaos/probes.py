"""How long after its acceptance an event shows in the online store, seen from outside by asking for it.

A probe is an event of an aircraft of which no other is sent for a while: once the aircraft's row is of the event's
instant or later, the event is in it. What bites: asking takes part in the load, so only some events are probes, and all
that are under way are asked for in one round trip.
"""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from domains.flights.contracts import ARRIVED, DEPARTED
from domains.flights.views import AIRCRAFT_ARRIVAL, AIRCRAFT_DEPARTURE
from headway.adapters.redis_online import OnlineReader, OnlineRequest
from headway.clock import SystemClock, monotonic_s, to_us
from headway.errors import TransientFailure
from headway.features.definitions import FeatureView
from headway.settings import Settings
from orchestration.chaos.journal import Journal, Outcome
from orchestration.chaos.load import Send

_VIEWS = {ARRIVED: AIRCRAFT_ARRIVAL, DEPARTED: AIRCRAFT_DEPARTURE}
_ASK_EVERY_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An event to look for: it shows once the aircraft's row in a view is of ``time_us`` or later."""

    view: FeatureView
    tail: str
    time_us: int


def choose_probes(sends: Sequence[Send], *, alone_for: int, most: int) -> dict[str, Probe]:
    """Return probes by the ids of their events: none whose aircraft is sent again within ``alone_for`` sends.

    At most ``most``, spread evenly.
    """
    found: dict[str, Probe] = {}
    later: dict[tuple[str, str], int] = {}
    for place in range(len(sends) - 1, -1, -1):
        send = sends[place]
        document = orjson.loads(send.body)
        view, tail = _VIEWS.get(document["type"]), document["data"].get("tail")
        if view is None or tail is None or send.kind != "valid":
            continue
        next_place = later.get((view.name, tail))
        later[view.name, tail] = place
        if next_place is None or next_place - place > alone_for:
            found[send.id] = Probe(view=view, tail=tail, time_us=send.time_us)
    step = max(1, -(-len(found) // most))
    return dict(list(reversed(found.items()))[::step])


class ProbedJournal(Journal):
    """A journal that tells a watch when a probe was accepted."""

    def __init__(self, path: Path, watch: "Watch") -> None:
        super().__init__(path)
        self._watch = watch
        self._ids: dict[int, str] = {}

    def intend(self, *, id: str, key: str, seq: int, kind: str, digest: int, sent_s: float, batch: bool) -> int:  # noqa: A002  # the field's name
        """See `Journal.intend`."""
        number = super().intend(id=id, key=key, seq=seq, kind=kind, digest=digest, sent_s=sent_s, batch=batch)
        self._ids[number] = id
        return number

    def told(self, send: int, outcome: Outcome, *, status: int, answered_s: float) -> None:
        """See `Journal.told`."""
        super().told(send, outcome, status=status, answered_s=answered_s)
        name = self._ids.pop(send)
        if outcome == "acked":
            self._watch.accepted(name, answered_s)


class Watch:
    """Asks for accepted probes until each shows; a context, in whose thread the asking is done."""

    def __init__(self, settings: Settings, probes: dict[str, Probe]) -> None:
        self.waits_s: list[float] = []
        self.readable_ms: dict[str, float] = {}
        self._settings = settings
        self._probes = probes
        self._open: dict[str, float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._look()), name="probes")

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ask no more."""
        self._over.set()
        self._thread.join()

    def accepted(self, name: str, answered_s: float) -> None:
        """Look for an event from now on, if it is a probe."""
        if name in self._probes:
            with self._lock:
                self._open[name] = answered_s

    @property
    def missing(self) -> list[str]:
        """Probes that were accepted and do not show yet."""
        with self._lock:
            return sorted(self._open)

    async def _look(self) -> None:
        reader = OnlineReader(f"redis://{self._settings.online_store}", self._settings.feast_project)
        while not self._over.is_set():
            with self._lock:
                asked = list(self._open)
            if asked:
                await self._ask(reader, [(name, self._probes[name]) for name in asked])
            await asyncio.sleep(_ASK_EVERY_S)
        await reader.close()

    async def _ask(self, reader: OnlineReader, asked: Sequence[tuple[str, Probe]]) -> None:
        requests = [
            OnlineRequest(view=probe.view.online_name, keys={"tail": probe.tail}, features=()) for _, probe in asked
        ]
        try:
            answers = await reader.read(requests)
        except TransientFailure:  # busy; it is asked again
            return
        now_s, now_ms = monotonic_s(), to_us(SystemClock().now()) / 1000
        for (name, probe), answer in zip(asked, answers, strict=True):
            if answer.event_timestamp_us is not None and answer.event_timestamp_us >= probe.time_us:
                self.readable_ms[name] = now_ms
                with self._lock:
                    # Readable before its sender was told: no wait at all.
                    self.waits_s.append(max(0.0, now_s - self._open.pop(name)))
