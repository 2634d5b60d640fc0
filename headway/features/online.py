"""What is asked of an online store and what it answers, whatever store it is.

A read takes rows of keys: each names one entity for every view, or none where a key is null. Views that share an entity
share its keys, and rows may name the same entity again; a store reads each once, and everything in one round trip.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from headway.features.columns import Value
from headway.features.readiness import ViewState

# The keys of one row by name; None where there is no such entity.
Keys = Mapping[str, str | None]


class OnlineView(msgspec.Struct, frozen=True, kw_only=True):
    """Features of one view: ``view`` is its name in the store, ``keys`` name its entity."""

    view: str
    keys: tuple[str, ...]
    features: tuple[str, ...]


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """What the store holds of one entity in one view.

    Attributes:
        values: aligned with the features asked for; None where there is no row.
        event_timestamp_us: of the row, microseconds UTC; None when the entity has none (S10: an empty window).
        revision: of the row, by which its cause is found (S4); None when the entity has none.
    """

    values: tuple[Value, ...]
    event_timestamp_us: int | None
    revision: int | None = None


class OnlineRows(msgspec.Struct, frozen=True):
    """The answer to one read.

    Attributes:
        states: of each view, as it was before any row was read: all up to its watermark is in the rows.
        rows: for each row asked for, aligned with the views; None where a key of the view is null.
    """

    states: tuple[ViewState, ...]
    rows: list[tuple[StoredRow | None, ...]]


# Raises TransientFailure when the store does not answer in time, PermanentFailure when it refuses.
ReadRows = Callable[[Sequence[Keys]], Awaitable[OnlineRows]]


class FeatureReader(Protocol):
    """Reads an online store; `headway.adapters.redis_online.OnlineReader` is one."""

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        """Return what reads these views, with everything prepared that does not depend on the rows."""
        ...

    async def close(self) -> None:
        """Release the connections, in the event loop that used them."""
        ...
