"""Reads of what is committed on Kafka, to the end as it is when the call is made, belonging to no group.

Offsets of transactional topics have gaps, so an end is known by the broker's end-of-partition event, never by counting.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from headway.adapters.kafka_client import READ_COMMITTED, REQUEST_TIMEOUT_S, as_message, client_settings, unreachable
from headway.errors import PermanentFailure, TransientFailure
from headway.ports import Message, TopicPartition, newest_by_key

logger = logging.getLogger(__name__)


class KafkaReader:
    """`headway.ports.LogReader` on Kafka: reads by assignment, joins no group, commits nothing.

    One consumer, opened anew for each read: two reads may run side by side.
    """

    def __init__(self, *, bootstrap: str, timeout_s: float = 30.0, security: Mapping[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._settings: dict[str, Any] = {
            **client_settings(bootstrap, security),
            **READ_COMMITTED,
            # Required by the SDK, used for nothing.
            "group.id": "headway.reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # A start that retention has deleted meanwhile becomes the first that is left; "latest" would skip all of it.
            "auto.offset.reset": "earliest",
            # How long the broker waits before it says "nothing more", which is how a read ends.
            "fetch.wait.max.ms": 20,
        }
        # Asked under read_committed, an end is the last *stable* offset, which still lies before transactions whose
        # commit has been answered already: their markers are written afterwards. Such a read missed what had just been
        # committed, a successor's restore of its state included.
        self._ends_settings: dict[str, Any] = {**self._settings, "isolation.level": "read_uncommitted"}

    def read(self, topic: str, *, partitions: Collection[int] | None = None) -> Iterator[Message]:
        """See `headway.ports.LogReader.read`. ``timeout_s`` bounds each wait for more, not the whole read."""
        ends = self._asked_ends(topic, partitions)
        return self._read_to(topic, ends, dict.fromkeys(ends, OFFSET_BEGINNING))

    def read_after(self, topic: str, partition: int, offset: int) -> Iterator[Message]:
        """See `headway.ports.LogReader.read_after`."""
        found = self._asked_ends(topic, [partition])
        # A start beyond the end would be reset to the beginning: a log that was made anew has lower offsets.
        ends = {where: end for where, end in found.items() if end > offset + 1}
        return self._read_to(topic, ends, dict.fromkeys(ends, offset + 1))

    def read_compacted(self, topic: str, partition: int) -> list[Message]:
        """See `headway.ports.LogReader.read_compacted`."""
        return newest_by_key(self.read(topic, partitions=[partition]))

    def close(self) -> None:
        """Return: each read closes its own connection."""

    def _asked_ends(self, topic: str, partitions: Collection[int] | None) -> dict[TopicPartition, int]:
        asking = Consumer(self._ends_settings, logger=logger)
        try:
            return self._ends(asking, topic, partitions)
        finally:
            asking.close()

    def _ends(self, consumer: Consumer, topic: str, partitions: Collection[int] | None) -> dict[TopicPartition, int]:
        """High watermarks, which count open transactions too: an instance that takes over must see how they ended."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._ends_now(consumer, topic, partitions)
            except KafkaException as error:
                # A partition whose leader has only just been elected answers that it is not the leader.
                if time.monotonic() > deadline:
                    raise unreachable(f"{topic}: its end could not be read", error) from error
                time.sleep(0.05)

    def _ends_now(
        self, consumer: Consumer, topic: str, partitions: Collection[int] | None
    ) -> dict[TopicPartition, int]:
        known = consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
        missing = known.error is not None or bool(set(partitions or ()) - known.partitions.keys())
        if missing:
            raise PermanentFailure(
                f"{topic}: no such topic or partition (asked for {sorted(partitions or ()) or 'all'}, found "
                f"{sorted(known.partitions)}). Apply the topic table first."
            )
        numbers = sorted(known.partitions) if partitions is None else sorted(partitions)
        ends = {}
        for number in numbers:
            low, high = consumer.get_watermark_offsets(KafkaTopicPartition(topic, number), timeout=REQUEST_TIMEOUT_S)
            if high > low:
                ends[TopicPartition(topic, number)] = high
        return ends

    def _read_to(
        self, topic: str, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int]
    ) -> Iterator[Message]:
        if not ends:
            return
        open_ends = dict(ends)
        consumer = Consumer(self._settings, logger=logger)
        try:
            # Assigned before it knows who leads, the client looks for the beginning again half a second later.
            consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S)
            consumer.assign([KafkaTopicPartition(*where, starts[where]) for where in open_ends])
            waited_from = time.monotonic()
            while open_ends:
                batch = consumer.consume(2000, 0.02)
                if batch:
                    waited_from = time.monotonic()
                elif time.monotonic() - waited_from > self._timeout_s:
                    raise TransientFailure(
                        f"{sorted(open_ends)}: the end was not reached within {self._timeout_s:.0f} s. A transaction "
                        "may be open there, or the broker is gone. Read again."
                    )
                for each in batch:
                    yield from _up_to_end(each, open_ends)
        except KafkaException as error:
            raise unreachable(f"{topic}: it could not be read", error) from error
        finally:
            consumer.close()


def _up_to_end(received: KafkaMessage, open_ends: dict[TopicPartition, int]) -> Iterator[Message]:
    """The message if it lies before its partition's end; takes the partition out of ``open_ends`` at the end."""
    where = TopicPartition(received.topic() or "", received.partition() or 0)
    error = received.error()
    end = open_ends.get(where)
    offset = received.offset()
    if end is None or offset is None:
        return
    if error is not None:
        # The end-of-partition event carries the next offset to fetch, which steps over markers as position() does not.
        if error.code() == KafkaError._PARTITION_EOF and offset >= end:  # noqa: SLF001 - the SDK's name for it
            del open_ends[where]
        return
    if offset < end:
        yield as_message(received)
    if offset >= end - 1:
        del open_ends[where]
