"""What a sink holds between two writes: the records, their bytes, and since when.

What bites: an event may have 256 kB, so a bound on the number alone is none on memory; `Limits` has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from headway.clock import monotonic_s
from headway.ports import Message


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a buffer holds at most before it is due."""

    messages: int
    bytes: int
    age_s: float


class Buffer:
    """Records in the order they came; due when they are many, large or old enough."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._messages: list[Message] = []
        self._bytes = 0
        self._oldest_s: float | None = None

    @property
    def messages(self) -> Sequence[Message]:
        """What it holds."""
        return self._messages

    def add(self, batch: Sequence[Message]) -> None:
        """Take messages in; an empty buffer's age starts here."""
        if self._oldest_s is None:
            self._oldest_s = monotonic_s()
        self._messages.extend(batch)
        self._bytes += sum(len(message.value or b"") for message in batch)

    def due(self, now_s: float) -> bool:
        """Whether it reached one of its limits."""
        return self._oldest_s is not None and (
            len(self._messages) >= self._limits.messages
            or self._bytes >= self._limits.bytes
            or now_s - self._oldest_s >= self._limits.age_s
        )

    def clear(self) -> list[Message]:
        """Forget what it holds, and return it."""
        held, self._messages, self._bytes, self._oldest_s = self._messages, [], 0, None
        return held
