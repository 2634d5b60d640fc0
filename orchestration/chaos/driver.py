"""The ledger driver: sends on a fixed schedule whatever the answers, so that a stall cannot hide by slowing it down.

Nothing is retried by itself; a retry is a send of kind ``duplicate`` in the plan. Every event is in the journal before
it leaves, and again with what the client was told. A ticker tells the plane the time (S2) up to the oldest event whose
fate is still open, so no event is late for a reason of ours.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

import orjson

from headway.clock import MINUTE_US, floor_us, monotonic_s
from headway.errors import TransientFailure
from headway.ports import Publisher
from headway.ticks import tick_record
from headway.topics import EVENTS_RAW, PARTITIONS
from orchestration.chaos.door import Answer, Door, Unreachable
from orchestration.chaos.journal import Journal, Outcome
from orchestration.chaos.load import Send

PATH = "/v1/events"
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
# A client's patience, from the scheduled instant: twice what the Collector may wait for the log, and the balancer's
# second try.
TIMEOUT_S = 10.0
TICK_STEP_US = 15 * MINUTE_US
_TICK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Posts a second: ``batches`` of ``batch_size`` events, and ``singles``, spread evenly among them."""

    batches_per_s: float
    batch_size: int
    singles_per_s: float

    @property
    def events_per_s(self) -> float:
        """Events offered a second."""
        return self.batches_per_s * self.batch_size + self.singles_per_s

    def cut(self, sends: Sequence[Send]) -> list[Sequence[Send]]:
        """Cut sends into posts, in order."""
        share = self.batches_per_s / (self.batches_per_s + self.singles_per_s)
        posts, at, due = [], 0, 0.0
        while at < len(sends):
            due += share
            size = self.batch_size if due >= 1 else 1
            due -= 1 if due >= 1 else 0
            posts.append(sends[at : at + size])
            at += size
        return posts


class Driver:
    """One drive through one door (the load balancer's address, or a Collector's own).

    While it runs, ``acked`` counts the acknowledged sends, ``reached_us`` is the newest event time sent, and ``slip_s``
    how late the worst post left, which says whether this machine could offer the load at all.
    """

    def __init__(self, door: str, journal: Journal, *, ticker: Publisher | None) -> None:
        self._door = door
        self._journal = journal
        self._ticker = ticker
        self._open: dict[int, int] = {}  # earliest event time by post under way
        self._ticked_us = 0
        self.reached_us = 0
        self.acked = 0
        self.slip_s = 0.0

    def drive(self, sends: Sequence[Send], schedule: Schedule, *, stopped: Callable[[], bool]) -> None:
        """Send all of them at the schedule's rate, or until ``stopped``; return when the last post is settled."""
        asyncio.run(self._drive(schedule.cut(sends), schedule.batches_per_s + schedule.singles_per_s, stopped))

    def tick_to(self, instant_us: int, *, within_s: float) -> None:
        """Tell the plane that everything up to an instant has been sent.

        Raises:
            TransientFailure: the log did not take it in time.
        """
        deadline_s = monotonic_s() + within_s
        while True:
            try:
                self._tick(instant_us)
            except TransientFailure:
                if monotonic_s() > deadline_s:
                    raise
            else:
                return

    async def _drive(self, posts: Sequence[Sequence[Send]], posts_per_s: float, stopped: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        door = Door(self._door)
        with closing(door):
            ticking = loop.create_task(self._keep_ticking())
            begin = loop.time() + 0.01
            async with asyncio.TaskGroup() as under_way:
                for place, post in enumerate(posts):
                    due = begin + place / posts_per_s
                    if (wait_s := due - loop.time()) > 0:
                        await asyncio.sleep(wait_s)
                    if stopped():
                        break
                    self.slip_s = max(self.slip_s, loop.time() - due)
                    self._open[place] = min(send.time_us for send in post)
                    # A repeat's time lies behind.
                    self.reached_us = max(self.reached_us, *(send.time_us for send in post))
                    under_way.create_task(self._exchange(door, place, post, due=due))
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    async def _exchange(self, door: Door, place: int, post: Sequence[Send], *, due: float) -> None:
        batch = len(post) > 1
        sent_s = monotonic_s()
        numbers = [
            self._journal.intend(
                id=s.id, key=s.key, seq=s.seq, kind=s.kind, digest=s.digest, sent_s=sent_s, batch=batch
            )
            for s in post
        ]
        try:
            async with asyncio.timeout_at(due + TIMEOUT_S):
                body = b"[" + b",".join(send.body for send in post) + b"]" if batch else post[0].body
                answer = await door.post(PATH, body, content_type=BATCH if batch else SINGLE)
        except Unreachable:
            told: list[tuple[Outcome, int]] = [("refused", 0)] * len(post)
        except (OSError, EOFError, ValueError):
            told = [("unknown", 0)] * len(post)
        else:
            told = [(outcome_of(status), status) for status in statuses_of(answer, len(post), batch=batch)]
        finally:
            self._open.pop(place, None)
        answered_s = monotonic_s()
        for number, (outcome, status) in zip(numbers, told, strict=True):
            self._journal.told(number, outcome, status=status, answered_s=answered_s)
            self.acked += outcome == "acked"

    async def _keep_ticking(self) -> None:
        while self._ticker is not None:
            await asyncio.sleep(_TICK_EVERY_S)
            tick_us = floor_us(max(0, min([*self._open.values(), self.reached_us]) - 1), TICK_STEP_US)
            if tick_us > self._ticked_us:
                with suppress(TransientFailure):  # the log is down, as is the plane's time; the next one says more
                    await asyncio.to_thread(self._tick, tick_us)

    def _tick(self, tick_us: int) -> None:
        assert self._ticker is not None
        self._ticker.publish([tick_record(EVENTS_RAW, tick_us, partition=number) for number in range(PARTITIONS)])
        self._ticked_us = tick_us


def outcome_of(status: int) -> Outcome:
    """Return what a status promises: a 5xx promises nothing, either way."""
    if status < 300:
        return "acked"
    return "refused" if status < 500 else "unknown"


def statuses_of(answer: Answer, count: int, *, batch: bool) -> list[int]:
    """Return the status of each event of a post; without results per event the answer's own counts for all."""
    if batch and answer.content_type.startswith("application/json"):
        try:
            results = orjson.loads(answer.body)["results"]
            by_place = {int(result["index"]): int(result["status"]) for result in results}
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return [answer.status] * count
        # An event the answer does not speak of has been promised nothing.
        return [by_place.get(place, 500) for place in range(count)]
    return [answer.status] * count


class Drive:
    """A drive in a thread of its own; whoever ends it is told what went wrong in it, if anything."""

    def __init__(self, driver: Driver, sends: Sequence[Send], schedule: Schedule) -> None:
        self._driver, self._sends, self._schedule = driver, sends, schedule
        self._halt = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="drive")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def sending(self) -> bool:
        """Whether the plan is not through."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Send nothing more, wait for what is under way, and raise what the drive raised."""
        self._halt.set()
        self.finish()

    def finish(self) -> None:
        """Wait for the end of the plan, and raise what the drive raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._driver.drive(self._sends, self._schedule, stopped=self._halt.is_set)
        except BaseException as error:  # noqa: BLE001 - raised again where the drive is waited for
            self._error = error
