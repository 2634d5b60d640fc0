"""The Collector's side of the event log: written and acknowledged, or a reason within the deadline; and whether it is there.

One acknowledgement is the proof that the log takes records, so traffic is the probe while there is traffic. Without any
for a moment, and after a failure, a probe record in a topic of its own asks. While the log is known to be away requests
are refused at once and nothing is handed over, so that memory stays flat and the refusal is certain.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from headway.clock import monotonic_s
from headway.errors import HeadwayError, TransientFailure
from headway.ports import Publisher, Record
from headway.topics import COLLECTOR_PROBE

# A client would rather retry than hang (RELIABILITY R3: refuse in <= 3 s), and the sweep below adds a tenth.
ACKNOWLEDGE_TIMEOUT_S = 2.5
_SWEEP_S = 0.1
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 2.0
_LOG = structlog.get_logger()


class LogAway(TransientFailure):
    """The log is known not to take records; this one was not handed over."""


class AcknowledgedLog:
    """Writes records and tells how the log fares. For one event loop."""

    def __init__(self, publisher: Publisher, *, acknowledge_timeout_s: float = ACKNOWLEDGE_TIMEOUT_S) -> None:
        self._publisher = publisher
        self._timeout_s = acknowledge_timeout_s
        # Waiting futures by deadline, which is the order they came in: cheaper than a timer for each.
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._acknowledged_at = 0.0
        self._probed = asyncio.Event()
        # Why the log takes no records, while it does not.
        self.away: str | None = None

    async def start(self) -> None:
        """Begin to sweep and to probe, in the running loop; return when the first probe has said how the log fares.

        Until then the log counts as away. A Collector that listened before that refused 65 of the load balancer's
        requests with 503 after a restart, as its check passed 0.7 s before the first acknowledgement.
        """
        self.away = "no record was acknowledged yet"
        self._tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._probe())]
        await self._probed.wait()

    async def stop(self) -> None:
        """Stop both, then wait for what is under way as long as a request would.

        Raises:
            TransientFailure: something is still not acknowledged.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._publisher.flush, self._timeout_s)

    async def write(self, record: Record) -> None:
        """Return when the record is acknowledged.

        Raises:
            LogAway: nothing was handed over.
            TransientFailure: not acknowledged in time; it may or may not have been written.
            PermanentFailure: the log refuses the record for what it is.
        """
        self._check_there()
        try:
            await self._in_time(self._publisher.publish_async(record))
        except TransientFailure as failure:
            self._failed(failure)
            raise
        self._acknowledged()

    async def write_each(self, records: Sequence[Record]) -> Mapping[int, HeadwayError]:
        """Return the failures by place when all records are settled.

        Raises:
            LogAway: nothing was handed over.
            TransientFailure: not all settled in time; each may or may not have been written.
        """
        self._check_there()
        try:
            failures: Mapping[int, HeadwayError] = await self._in_time(self._publisher.publish_each_async(records))
        except TransientFailure as failure:
            self._failed(failure)
            raise
        if len(failures) < len(records):
            self._acknowledged()
        elif failures and isinstance(failures[0], TransientFailure):
            self._failed(failures[0])
        return failures

    def _check_there(self) -> None:
        if self.away is not None:
            raise LogAway(f"the event log takes no records now ({self.away})")

    def _in_time(self, future: "asyncio.Future[Any]") -> "asyncio.Future[Any]":
        self._waiting.append((monotonic_s() + self._timeout_s, future))
        return future

    def _acknowledged(self) -> None:
        self._acknowledged_at = monotonic_s()
        if self.away is not None:
            _LOG.info("the event log takes records again", before=self.away)
            self.away = None

    def _failed(self, failure: TransientFailure) -> None:
        if self.away is None:
            _LOG.warning("the event log takes no records", reason=str(failure))
        self.away = str(failure)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = monotonic_s()
            while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= now):
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_exception(TransientFailure(f"not acknowledged within {self._timeout_s} s"))

    async def _probe(self) -> None:
        record = Record(topic=COLLECTOR_PROBE, key=None, value=b"")
        while True:
            if self.away is not None or monotonic_s() - self._acknowledged_at > _PROBE_EVERY_S:
                try:
                    await asyncio.wait_for(self._publisher.publish_async(record), _PROBE_TIMEOUT_S)
                    self._acknowledged()
                except TimeoutError:
                    self._failed(TransientFailure(f"a probe was not acknowledged within {_PROBE_TIMEOUT_S} s"))
                except HeadwayError as failure:
                    self._failed(TransientFailure(str(failure)))
                self._probed.set()
            await asyncio.sleep(_PROBE_EVERY_S / 2)
