"""A job's handler whose batches are counted by the meter of its window."""

from collections.abc import Sequence

from benchmarks.peers.meter import Meter
from headway.ports import Message, Record
from streaming.runtime import Handler


class Metered:
    """A handler that tells the meter what the batches before this one held."""

    def __init__(self, handler: Handler, meter: Meter) -> None:
        self.assigned, self.revoked = handler.assigned, handler.revoked
        self._handler, self._meter, self._last = handler, meter, 0

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """See `streaming.runtime.Handler`."""
        self._meter.done(self._last)
        self._last = len(batch)
        return self._handler.handle(batch)
