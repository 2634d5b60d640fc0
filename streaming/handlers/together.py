"""Several handlers over the same records as one: each sees every batch, and what all return is one transaction."""

from collections.abc import Sequence

from headway.ports import Message, Record
from streaming.runtime import Handler


class Together:
    """Runs handlers one after the other, in the order given."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = tuple(handlers)

    def assigned(self, partitions: Sequence[int]) -> None:
        """Have each load its state."""
        for handler in self._handlers:
            handler.assigned(partitions)

    def revoked(self, partitions: Sequence[int]) -> None:
        """Have each forget its state."""
        for handler in self._handlers:
            handler.revoked(partitions)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return what each makes of the batch."""
        return [record for handler in self._handlers for record in handler.handle(batch)]
