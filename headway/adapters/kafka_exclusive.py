"""A writer that is alone of its name: a transactional producer with a fixed transactional id (SEMANTICS S14).

Kafka fences by that id: whoever starts its transactions last is the only one whose commits are taken. What bites: a
commit whose answer did not come may have happened, so this writer then refuses everything until it is claimed again.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from headway.adapters.kafka_client import (
    DURABLE,
    PERMANENT_CODES,
    client_settings,
    hand_over_patiently,
    unreachable,
)
from headway.errors import PermanentFailure, TransientFailure
from headway.failpoints import hit
from headway.ports import Record

logger = logging.getLogger(__name__)

_FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - the SDK's public name for a client-side code


class KafkaExclusiveWriter:
    """`headway.ports.ExclusiveWriter` on Kafka. ``name`` is the transactional id; connects at `claim`.

    Fail-points: ``<name>.before_commit``, hit with every record of the transaction acknowledged, and
    ``<name>.after_commit``.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        name: str,
        transaction_timeout_s: float = 20.0,
        security: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._timeout_s = transaction_timeout_s
        self._producer: Producer | None = None
        self._settings: dict[str, Any] = {
            **client_settings(bootstrap, security),
            **DURABLE,
            "transactional.id": name,
            "transaction.timeout.ms": int(transaction_timeout_s * 1000),
        }

    def claim(self) -> None:
        """See `headway.ports.ExclusiveWriter.claim`."""
        self.close()
        producer = Producer(self._settings, logger=logger)
        try:
            producer.init_transactions(self._timeout_s)
        except KafkaException as error:
            raise unreachable(f"{self._name}: transactions could not be started", error) from error
        self._producer = producer

    def write(self, records: Sequence[Record]) -> None:
        """See `headway.ports.ExclusiveWriter.write`."""
        producer = self._producer
        if producer is None:
            raise PermanentFailure(f"{self._name}: not claimed, or the last write failed; claim it first.")
        try:
            producer.begin_transaction()
            for record in records:
                hand_over_patiently(producer, record)
            # No delivery callbacks: when fenced, the SDK raises in here and would run them with that error set.
            producer.flush(self._timeout_s)
            hit(f"{self._name}.before_commit")
            producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            failure = self._explained(error.args[0])
            del producer
            self.close()
            raise failure from error
        hit(f"{self._name}.after_commit")

    def close(self) -> None:
        """See `headway.ports.ExclusiveWriter.close`."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _explained(self, error: KafkaError) -> PermanentFailure | TransientFailure:
        if error.code() in _FENCED:
            return PermanentFailure(
                f"{self._name}: another process has claimed this name since; nothing of this write was kept. "
                "Two of them must not decide at once: let the other finish, then run this again."
            )
        if error.code() in PERMANENT_CODES:
            return PermanentFailure(
                f"{self._name}: Kafka refuses a record ({error.str()}). Nothing was written. Retrying sends the same: "
                "fix its size, topic or permission."
            )
        return TransientFailure(
            f"{self._name}: {error.str()}. Whether it was written is not known: run the same again, which "
            "reads what is there first."
        )
