"""`headway replay`: play a domain's history through the Collector in lock-step, and ask for predictions on the way (S7).

Each 15-minute step sends every event up to T, ticks T, waits until all view watermarks have reached T, and only then
asks, so every answer is exact as of T. It never predicts itself: asks go through the load balancer like any
client's, on an open-loop schedule, without retries.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from headway.clock import MINUTE_US, floor_us, format_us, monotonic_s
from headway.errors import PermanentFailure, TransientFailure
from headway.events import Event, encode_event
from headway.openloop import HttpRequest, LoadReport, offer_load
from headway.ports import Publisher
from headway.ticks import tick_record
from headway.topics import EVENTS_RAW, PARTITIONS

STEP_US = 15 * MINUTE_US
EVENTS_PER_POST = 500
ASKS_PER_S = 200.0
# Generous against a busy two-core machine; a step normally takes a fraction of a second.
WATERMARK_TIMEOUT_S = 60.0
ASK_TIMEOUT_S = 10.0
# A poll costs a round trip on the machine whose speed it waits for.
_POLL_S = 0.02

Watermark = Callable[[], int | None]  # the least watermark over all views, microseconds


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question of a product application: a request body, asked as of an instant."""

    as_of_us: int
    body: Mapping[str, Any]


@dataclass
class ReplayReport:
    """What a replay sent and got."""

    events_sent: int = 0
    events_accepted: int = 0
    events_refused: int = 0
    asked: int = 0
    failed: int = 0
    by_status: dict[int, int] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0

    def add_load(self, load: LoadReport) -> None:
        """Count the answers of one step."""
        self.asked += load.offered
        self.failed += load.failed
        for status, n in load.by_status.items():
            self.by_status[status] = self.by_status.get(status, 0) + n


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a replay sends events and asks; addresses are loopback on one machine."""

    host: str
    port: int
    product: str | None


class Replayer:
    """Plays events between two instants."""

    def __init__(self, *, target: Target, ticker: Publisher, watermark: Watermark, speed: float | None) -> None:
        """``speed`` is event seconds per wall second, an upper bound; None plays as fast as the plane keeps up."""
        self._target = target
        self._ticker = ticker
        self._watermark = watermark
        self._speed = speed

    async def play(self, events: Iterable[Event], asks: Sequence[Ask], *, start_us: int, end_us: int) -> ReplayReport:
        """Play all events in (start, end] and put every ask at its instant; both bounds are multiples of 15 minutes.

        Raises:
            TransientFailure: the watermark did not reach a step in time; says how far it came.
            PermanentFailure: the Collector refused an event for a reason that is ours.
        """
        report = ReplayReport()
        begun = monotonic_s()
        waiting = _by_instant(asks)
        stream = _Lookahead(events)
        async with httpx.AsyncClient(base_url=f"http://{self._target.host}:{self._target.port}", timeout=30) as client:
            for step_us in range(start_us + STEP_US, end_us + 1, STEP_US):
                await self._send(client, list(stream.until(step_us)), report)
                await asyncio.to_thread(self._tick, step_us)
                await self._await_watermark(step_us, report)
                await self._ask(waiting.pop(step_us, []), report)
                report.steps += 1
                await self._pace(begun, step_us - start_us)
        report.seconds = monotonic_s() - begun
        return report

    async def _send(self, client: httpx.AsyncClient, events: Sequence[Event], report: ReplayReport) -> None:
        for at in range(0, len(events), EVENTS_PER_POST):
            chunk = events[at : at + EVENTS_PER_POST]
            body = b"[" + b",".join(map(encode_event, chunk)) + b"]"
            answer = await client.post(
                "/v1/events", content=body, headers={"content-type": "application/cloudevents-batch+json"}
            )
            if answer.status_code not in (200, 207):
                raise PermanentFailure(
                    f"POST /v1/events: got {answer.status_code} {answer.text[:300]}; is the Collector up (headway status)?"
                )
            accepted = sum(result["status"] < 300 for result in answer.json()["results"])
            report.events_sent += len(chunk)
            report.events_accepted += accepted
            report.events_refused += len(chunk) - accepted

    def _tick(self, tick_us: int) -> None:
        self._ticker.publish([tick_record(EVENTS_RAW, tick_us, partition=p) for p in range(PARTITIONS)])

    async def _await_watermark(self, wanted_us: int, report: ReplayReport) -> None:
        begun = monotonic_s()
        while True:
            reached = await asyncio.to_thread(self._watermark)
            if reached is not None and reached >= wanted_us:
                report.waited_s += monotonic_s() - begun
                return
            if monotonic_s() - begun > WATERMARK_TIMEOUT_S:
                shown = format_us(reached) if reached is not None else "none"
                raise TransientFailure(
                    f"watermark: got {shown}, wanted {format_us(wanted_us)} within {WATERMARK_TIMEOUT_S:.0f} s; "
                    "look at the stream jobs (headway status)"
                )
            await asyncio.sleep(_POLL_S)

    async def _ask(self, asks: Sequence[Ask], report: ReplayReport) -> None:
        if not asks or self._target.product is None:
            return
        requests = [prediction_request(self._target.product, ask) for ask in asks]
        load = await offer_load(
            lambda place: requests[place],
            host=self._target.host,
            port=self._target.port,
            rate_per_s=ASKS_PER_S,
            duration_s=len(requests) / ASKS_PER_S,
            timeout_s=ASK_TIMEOUT_S,
            tag_header="x-headway-version",
        )
        report.add_load(load)

    async def _pace(self, begun: float, played_us: int) -> None:
        if self._speed is not None:
            await asyncio.sleep(max(0.0, begun + played_us / 1e6 / self._speed - monotonic_s()))


def prediction_request(product: str, ask: Ask) -> HttpRequest:
    """Return the HTTP request of one ask."""
    body = orjson.dumps({**ask.body, "as_of": format_us(ask.as_of_us)})
    return HttpRequest(
        method="POST", path=f"/v1/{product}/predict", headers={"content-type": "application/json"}, body=body
    )


def _by_instant(asks: Sequence[Ask]) -> dict[int, list[Ask]]:
    grouped: dict[int, list[Ask]] = {}
    for ask in asks:
        grouped.setdefault(floor_us(ask.as_of_us, STEP_US), []).append(ask)
    return grouped


class _Lookahead:
    """An iterator that can be asked for everything up to an instant."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events: Iterator[Event] = iter(events)
        self._next: Event | None = next(self._events, None)

    def until(self, instant_us: int) -> Iterator[Event]:
        while self._next is not None and self._next.time_us <= instant_us:
            yield self._next
            self._next = next(self._events, None)
