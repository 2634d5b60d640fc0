"""One transactional producer, and what becomes of it when a commit fails (SEMANTICS S14).

What bites: a commit or abort that timed out may have happened. Only a new producer with the same transactional id
settles that, so this one is thrown away, and nothing may be read again before its successor has started.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as KafkaTopicPartition

from headway.adapters.kafka_client import DURABLE, PERMANENT_CODES, hand_over_patiently, name_record, unreachable
from headway.errors import PermanentFailure, TransientFailure
from headway.ports import CommitCallback, Record, TopicPartition

logger = logging.getLogger(__name__)


class Transactions:
    """Writes records and offsets together, or neither. Connects at the first `ensure`."""

    def __init__(
        self, *, common: Mapping[str, Any], transactional_id: str, timeout_s: float, on_step: CommitCallback
    ) -> None:
        self._who = transactional_id
        self._timeout_s = timeout_s
        self._on_step = on_step
        self._producer: Producer | None = None
        self._undelivered: list[tuple[KafkaError, str]] = []
        self._settings: dict[str, Any] = {
            **common,
            **DURABLE,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(timeout_s * 1000),
            # A batch is handed over at once, so waiting for more only delays the commit.
            "linger.ms": 0,
            # While the broker still writes the last commit's markers it answers "try again", and this is the wait.
            "retry.backoff.ms": 5,
            # The default is 1 GiB. A full queue makes the handing over wait, which is all that is needed.
            "queue.buffering.max.kbytes": 64 * 1024,
            # Commit only says how many records failed; these calls, none for a delivered one, say which and why.
            "delivery.report.only.error": True,
            "on_delivery": self._note_undelivered,
        }

    def ensure(self) -> None:
        """Have a producer, which also ends any transaction its predecessor left open.

        Raises:
            TransientFailure: the coordinator does not answer.
        """
        if self._producer is not None:
            return
        producer = Producer(self._settings, logger=logger)
        try:
            producer.init_transactions(self._timeout_s)
        except KafkaException as error:
            raise unreachable(f"{self._who}: transactions could not be started", error) from error
        self._producer = producer

    def write(self, outputs: Sequence[Record], offsets: Mapping[TopicPartition, int], membership: object) -> None:
        """Write all of it in one transaction.

        Raises:
            TransientFailure: not written, or its outcome is unknown; call `ensure` before anything is read again.
            PermanentFailure: not written, as one record can never be.
        """
        producer = self._producer
        if producer is None:
            raise TransientFailure("there is no producer, as an earlier commit failed")
        sent = [KafkaTopicPartition(*where, offset) for where, offset in offsets.items()]
        self._undelivered.clear()
        try:
            self._on_step("before_produce")
            producer.begin_transaction()
            self._hand_over(producer, outputs)
            self._on_step("after_produce")
            if sent:
                producer.send_offsets_to_transaction(sent, membership, self._timeout_s)
            self._on_step("before_commit")
            producer.commit_transaction(self._timeout_s)
            self._on_step("after_commit")
        except KafkaException as error:
            cause, which = (self._undelivered or [(error.args[0], "the transaction")])[0]
            self._end_failed(producer, error.args[0])
            # The raised error keeps this frame, and would keep a replaced producer alive and connected with it.
            del producer
            if cause.code() in PERMANENT_CODES:
                raise PermanentFailure(
                    f"{self._who}: Kafka refuses {which} ({cause.str()}). Nothing was written. Retrying sends the same "
                    "record: fix its size, topic or permission."
                ) from error
            raise TransientFailure(f"{which}: {cause.str()}") from error
        except BaseException:
            # A fail-point, or a bug of ours, somewhere between begin and commit: nobody knows where.
            self.drop()
            del producer
            raise

    def drop(self) -> None:
        """Throw the producer away; what it left open ends with its successor's start, or by the broker's timeout."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _hand_over(self, producer: Producer, outputs: Sequence[Record]) -> None:
        for record in outputs:
            try:
                hand_over_patiently(producer, record)
            except KafkaException as error:
                self._undelivered.append((error.args[0], name_record(record.topic, record.key)))
                raise

    def _note_undelivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            self._undelivered.append((error, name_record(message.topic(), message.key())))

    def _end_failed(self, producer: Producer, cause: KafkaError) -> None:
        """Abort where the outcome is known, else throw the producer away."""
        # A record refused on the spot fails no transaction: nothing but the call itself says so.
        if cause.txn_requires_abort() or cause.code() in PERMANENT_CODES:
            try:
                producer.abort_transaction(self._timeout_s)
            except KafkaException as error:
                logger.warning("abort failed: %s", error, extra={"log": self._who})
            else:
                return
        # Timed out or fatal: only a new producer's start settles whether it was committed (S14).
        self.drop()
