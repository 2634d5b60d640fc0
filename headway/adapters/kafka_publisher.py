"""Acknowledged publishing to Kafka outside any transaction, for callers that wait and for event loops."""

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from headway.adapters.kafka_client import (
    DURABLE,
    PERMANENT_CODES,
    OnDelivery,
    client_settings,
    hand_over,
    name_record,
)
from headway.errors import HeadwayError, PermanentFailure, TransientFailure
from headway.ports import Position, Record

logger = logging.getLogger(__name__)

# Longer than any election, restart or upgrade of a broker; what is not written by then is an outage people know of.
_GIVE_UP_MS = 120_000
# What an outage may hold in memory; beyond it records are refused on the spot.
_QUEUE_KBYTES = 64 * 1024
_ANSWER_WITHIN_MS = 4_000
# A future and what it gets: a result, or the exception to raise. Any: futures of two kinds share one queue.
_Settled = tuple["asyncio.Future[Any]", object]


class KafkaPublisher:
    """`headway.ports.Publisher` on Kafka: acks=all, idempotent, no transaction. Safe from several threads.

    ``linger_ms`` trades latency for batch size; ``delivery_timeout_s`` is how long `publish` and `close` wait. Not
    waiting any longer says nothing about whether a record was written, or will be. One background thread serves
    acknowledgements.

    What bites: the producer itself must not give up in an outage. A record that librdkafka times out leaves a gap in
    the sequence numbers, for which it takes a new epoch, and what was on its way is sent again under that: with a
    limit of 3 s, one killed leader of three brokers made 556 of 14,000 records stand in the log twice.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        linger_ms: float = 1.0,
        delivery_timeout_s: float = 10.0,
        security: Mapping[str, str] | None = None,
    ) -> None:
        self._delivery_timeout_s = delivery_timeout_s
        self._acknowledged: deque[_Settled] = deque()
        self._producer = Producer(
            {
                **client_settings(bootstrap, security),
                **DURABLE,
                "linger.ms": linger_ms,
                "delivery.timeout.ms": _GIVE_UP_MS,
                "queue.buffering.max.kbytes": _QUEUE_KBYTES,
                # A stopped broker takes requests and answers none; after this they go to the leader there is by then.
                "socket.timeout.ms": _ANSWER_WITHIN_MS,
                "request.timeout.ms": _ANSWER_WITHIN_MS,
            },
            logger=logger,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="kafka-publisher", daemon=True)
        self._thread.start()

    def publish(self, records: Sequence[Record]) -> None:
        """See `headway.ports.Publisher.publish`."""
        failures: list[tuple[Record, KafkaError]] = []
        unsettled = _Countdown(len(records))

        def settle(record: Record) -> OnDelivery:
            def on_delivery(error: KafkaError | None, _: KafkaMessage) -> None:
                if error is not None:
                    failures.append((record, error))
                unsettled.down()

            return on_delivery

        for record in records:
            self._hand_over_patiently(record, on_delivery=settle(record))
        # librdkafka settles every record within its own timeout; the extra second is for the callback to get here.
        if not unsettled.wait(self._delivery_timeout_s + 1.0):
            raise TransientFailure(
                f"{len(records)} records: not all acknowledged in {self._delivery_timeout_s:.0f} s. Retry."
            )
        if failures:
            raise self._refused(*failures[0])

    def publish_async(self, record: Record) -> asyncio.Future[Position]:
        """See `headway.ports.Publisher.publish_async`. A full local queue fails the future at once."""
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def on_delivery(error: KafkaError | None, message: KafkaMessage) -> None:
            outcome = self._refused(record, error) if error is not None else _position(message)
            self._acknowledged.append((future, outcome))

        try:
            hand_over(self._producer, record, on_delivery=on_delivery)
        except BufferError:
            future.set_exception(self._queue_full(record))
        except KafkaException as error:
            future.set_exception(self._refused(record, error.args[0]))
        return future

    def publish_each_async(self, records: Sequence[Record]) -> asyncio.Future[Mapping[int, HeadwayError]]:
        """See `headway.ports.Publisher.publish_each_async`. What a full local queue does not take fails at once."""
        future: asyncio.Future[Mapping[int, HeadwayError]] = asyncio.get_running_loop().create_future()
        failures: dict[int, HeadwayError] = {}
        if not records:
            future.set_result(failures)
            return future
        # Counted by one C call, since close() and the background thread may both run callbacks.
        settled, last = itertools.count(1).__next__, len(records)

        def settle(place: int, error: KafkaError | None, _: KafkaMessage | None) -> None:
            if error is not None:
                failures[place] = self._refused(records[place], error)
            if settled() == last:
                self._acknowledged.append((future, failures))

        for place, record in enumerate(records):
            on_delivery = partial(settle, place)
            try:
                hand_over(self._producer, record, on_delivery=on_delivery)
            except BufferError:
                failures[place] = self._queue_full(record)
                on_delivery(None, None)
            except KafkaException as error:
                on_delivery(error.args[0], None)
        return future

    def flush(self, timeout_s: float) -> None:
        """See `headway.ports.Publisher.flush`."""
        remaining = self._producer.flush(timeout_s)
        self._resolve_futures()
        if remaining:
            raise TransientFailure(
                f"{remaining} records are not acknowledged after {timeout_s:.1f} s. Is the broker up? Flush again."
            )

    def close(self) -> None:
        """See `headway.ports.Publisher.close`; waits at most the delivery timeout."""
        self._producer.flush(self._delivery_timeout_s)
        self._closing.set()
        self._thread.join()
        self._resolve_futures()

    def _hand_over_patiently(self, record: Record, *, on_delivery: OnDelivery) -> None:
        deadline = time.monotonic() + self._delivery_timeout_s
        while True:
            try:
                return hand_over(self._producer, record, on_delivery=on_delivery)
            except BufferError as error:
                if time.monotonic() > deadline:
                    raise self._queue_full(record) from error
                # The background thread makes room as acknowledgements come.
                time.sleep(0.005)
            except KafkaException as error:
                raise self._refused(record, error.args[0]) from error

    def _serve(self) -> None:
        while not self._closing.is_set():
            # Returns at the first acknowledgement; the bound is only how long close() may wait for the thread.
            self._producer.poll(0.2)
            self._resolve_futures()

    def _resolve_futures(self) -> None:
        """Wake each event loop once for all that arrived: waking it per record costs more than the record."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Settled]] = {}
        while self._acknowledged:
            try:
                settled = self._acknowledged.popleft()
            except IndexError:
                # Another thread, in flush or close, took the last one.
                break
            by_loop.setdefault(settled[0].get_loop(), []).append(settled)
        for loop, batch in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, batch)
            except RuntimeError:
                logger.warning("event loop closed with %d acknowledgements on their way", len(batch))

    def _refused(self, record: Record, error: KafkaError) -> PermanentFailure | TransientFailure:
        what = f"{name_record(record.topic, record.key)} was not acknowledged ({error.str()})"
        if error.code() in PERMANENT_CODES:
            return PermanentFailure(f"{what}. The same record will be refused again.")
        return TransientFailure(f"{what}. It may or may not have been written; publish it again, readers drop repeats.")

    def _queue_full(self, record: Record) -> TransientFailure:
        return TransientFailure(
            f"{name_record(record.topic, record.key)} was not sent, the local queue is full. The broker is slower than the "
            "producer; slow down or retry later."
        )


class _Countdown:
    """Lets one thread wait for a number of callbacks in another."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()

    def down(self) -> None:
        with self._changed:
            self._count -= 1
            if self._count <= 0:
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count <= 0, timeout_s)


def _settle(batch: Sequence[_Settled]) -> None:
    for future, outcome in batch:
        if future.done():
            # Whoever waited has gone (a client that hung up); the record is written all the same.
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _position(message: KafkaMessage) -> Position:
    return Position(message.topic() or "", message.partition() or 0, message.offset() or 0)
