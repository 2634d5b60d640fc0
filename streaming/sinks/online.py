"""Online writer: committed changelog rows -> Feast's online store, under the atomic guard (S4, S14).

Rows of a batch are written before the watermarks that cover them, so a reader that sees a watermark sees its rows.
What the store says of the watermarks afterwards is what the freshness metrics show.
"""

from collections.abc import Sequence
from typing import Protocol

from headway.adapters.redis_online import OnlineRow
from headway.contracts import Domain
from headway.features.definitions import FeatureView
from headway.features.windows import Row
from headway.features.wire import decode_row
from headway.ports import Message
from headway.ticks import is_watermark, tick_us_of
from headway.topics import PARTITIONS, features_topic
from streaming.bootstrap import Rows
from streaming.freshness import ViewFreshness
from streaming.runtime import Flushed


class Store(Rows, Protocol):
    """The online store, which tells the watermarks it holds."""

    def read_watermarks_us(self, views: Sequence[str]) -> dict[str, int | None]:
        """Return the views' watermarks in microseconds UTC; None until every partition has reported."""
        ...


class OnlineSink:
    """Applies changelog topics to the online store; writes whatever a poll brings, at once."""

    def __init__(self, domain: Domain, writer: Store, freshness: ViewFreshness) -> None:
        self._views = {features_topic(view.qualified): view for view in domain.views}
        self._writer = writer
        self._freshness = freshness
        self._buffer: list[Message] = []

    @property
    def topics(self) -> list[str]:
        """The changelog topics it reads."""
        return list(self._views)

    def offer(self, batch: Sequence[Message]) -> None:
        """Take messages into the buffer."""
        self._buffer.extend(batch)

    def due(self, now_s: float) -> bool:  # noqa: ARG002  # freshness is the point: never wait
        """Whether anything waits to be written."""
        return bool(self._buffer)

    def flush(self) -> Flushed:
        """Write rows, then watermarks; return the messages written."""
        newest: dict[tuple[str, bytes | None], Row] = {}
        watermarks: dict[str, dict[int, int]] = {}
        for message in self._buffer:
            if is_watermark(message):
                partitions = watermarks.setdefault(self._views[message.topic].online_name, {})
                partitions[message.partition] = max(partitions.get(message.partition, 0), tick_us_of(message) // 1000)
                continue
            # A busy entity has many rows in a batch, and the store would keep one.
            row, place = decode_row(message.value or b""), (message.topic, message.key)
            seen = newest.get(place)
            if seen is None or row.version > seen.version:
                newest[place] = row
        if newest:
            self._writer.write([online_row(self._views[topic], row) for (topic, _), row in newest.items()])
        for name, partitions in watermarks.items():
            self._writer.write_watermarks(name, partitions, PARTITIONS)
        if watermarks:
            self._freshness.show(self._writer.read_watermarks_us(self._freshness.names))
        written, self._buffer = self._buffer, []
        return Flushed(messages=written)

    def drop(self) -> None:
        """Forget the buffer."""
        self._buffer = []


def online_row(view: FeatureView, row: Row) -> OnlineRow:
    """Return a changelog row as the online store keeps it."""
    return OnlineRow(
        view=view.online_name,
        keys=dict(zip(view.keys, row.key, strict=True)),
        event_timestamp_us=row.event_time_us,
        revision=row.revision,
        values=row.values,
    )
