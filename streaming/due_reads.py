"""The feature read of the stream scorer: the replica's own, for all questions of a batch at once, with more patience.

Nobody waits for a stream score by the clock, so watermarks are waited for longer than a request may, and a store that is
away holds the stream back for a while before answers are degraded to declared defaults (S10).

What bites: connections belong to the event loop of this object, which runs only inside a read.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec
import structlog

from headway.clock import MINUTE_US, monotonic_s
from headway.errors import DependencyDown, PermanentFailure, TransientFailure
from headway.features.online import FeatureReader
from headway.online_features import OnlineFeatures, ViewsRead
from headway.product import Product

# The feature job is a second or two behind the tick that makes a question due; a minute of it is an outage.
WAIT_S = 10.0
# A restart of the store takes a second, losing its machine a minute; alerts are out by then.
PATIENCE_S = 20.0
# How much later than asked an answer may be made without being degraded: one step of the replay's grid (S7).
LATE_US = 15 * MINUTE_US
# One question is some five entities: 2,500 replies, of which a small machine decodes as many in 50 ms.
ROWS_AT_ONCE = 500
_LOG = structlog.get_logger()


class DueReads(Protocol):
    """Gives the views of questions that fell due."""

    def read(self, requests: Sequence[msgspec.Struct], due_us: Sequence[int]) -> list[ViewsRead]:
        """Return the views of each question, as of its instant or shortly after it.

        Raises:
            DependencyDown: the store does not answer, and it may still come back.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class NoReads:
    """For a product whose features are all in the question."""

    def read(self, requests: Sequence[msgspec.Struct], due_us: Sequence[int]) -> list[ViewsRead]:  # noqa: ARG002
        """See `DueReads.read`."""
        return [
            ViewsRead(as_of_us=instant_us, views=(), watermark_us=None, stale=(), missing=(), degraded=False)
            for instant_us in due_us
        ]

    def close(self) -> None:
        """Return: there is nothing to release."""


class OnlineReads:
    """Reads the online store."""

    def __init__(
        self, product: Product, reader: FeatureReader, *, wait_s: float = WAIT_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._features = OnlineFeatures(product, reader)
        self._reader = reader
        self._wait_s, self._patience_s = wait_s, patience_s
        self._runner = asyncio.Runner()
        self._away_since_s: float | None = None
        # Where watermarks stood when waiting for them was in vain.
        self._stuck_us: frozenset[int | None] | None = None

    def read(self, requests: Sequence[msgspec.Struct], due_us: Sequence[int]) -> list[ViewsRead]:
        """See `DueReads.read`."""
        try:
            found = self._runner.run(self._waited(requests, due_us))
        except (TransientFailure, PermanentFailure) as failure:
            return self._without(failure, requests, due_us)
        self._away_since_s = None
        return found

    def close(self) -> None:
        """Release the connections, and end the loop they belong to."""
        self._runner.run(self._reader.close())
        self._runner.close()

    async def _waited(self, requests: Sequence[msgspec.Struct], due_us: Sequence[int]) -> list[ViewsRead]:
        """Wait for watermarks, but not again for those that stand still: a dead feature job must not slow this one."""
        wait_s = self._wait_s if self._stuck_us is None else 0.0
        found = await self._in_parts(requests, due_us, wait_s)
        stuck_us = _watermarks_if_stale(found)
        if stuck_us is not None and self._stuck_us is not None and stuck_us != self._stuck_us:
            found = await self._in_parts(requests, due_us, self._wait_s)
            stuck_us = _watermarks_if_stale(found)
        self._stuck_us = stuck_us
        return found

    async def _in_parts(
        self, requests: Sequence[msgspec.Struct], due_us: Sequence[int], wait_s: float
    ) -> list[ViewsRead]:
        until_s = monotonic_s() + wait_s
        found: list[ViewsRead] = []
        for at in range(0, len(requests), ROWS_AT_ONCE):
            until = at + ROWS_AT_ONCE
            found += await self._features.due(
                requests[at:until], due_us[at:until], wait_s=max(0.0, until_s - monotonic_s()), late_us=LATE_US
            )
        return found

    def _without(
        self, failure: Exception, requests: Sequence[msgspec.Struct], due_us: Sequence[int]
    ) -> list[ViewsRead]:
        now_s = monotonic_s()
        if self._away_since_s is None:
            self._away_since_s = now_s
        away_s = now_s - self._away_since_s
        if away_s < self._patience_s:
            raise DependencyDown("online store", str(failure)) from failure
        _LOG.warning("scored without features", away_s=round(away_s), questions=len(requests), reason=str(failure))
        return [self._features.unavailable(*each) for each in zip(requests, due_us, strict=True)]


def _watermarks_if_stale(found: Sequence[ViewsRead]) -> frozenset[int | None] | None:
    """Where the watermarks stand that were waited for in vain; None when all had come."""
    return frozenset(read.watermark_us for read in found) if any(read.stale for read in found) else None
