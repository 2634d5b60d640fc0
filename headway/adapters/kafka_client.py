"""What the Kafka adapters share: settings, the two conversions, and how failures are told.

Keys go to partitions as Java's clients send them, so that a Spark or Java producer agrees with us.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from headway.errors import TransientFailure
from headway.ports import Message, Record
from headway.topics import LETTER_MAX_BYTES

OnDelivery = Callable[[KafkaError | None, KafkaMessage], None]

# What the SDK takes for "no time given"; it then takes the current one.
_NOW = 0
# Long enough for a broker to restart under a request, short enough for a person who waits.
REQUEST_TIMEOUT_S = 10.0

# Refusals that repeat for as long as the record or the permissions are what they are.
PERMANENT_CODES = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - the SDK's public name for a client-side code
    }
)

DURABLE: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    # The default is below what a broker takes from others, and a letter holds what others wrote.
    "message.max.bytes": LETTER_MAX_BYTES,
    # Java's and Spark's default; librdkafka's own differs, and two producers must agree where a key lives.
    "partitioner": "murmur2_random",
}

READ_COMMITTED: Mapping[str, Any] = {
    "isolation.level": "read_committed",
    # The defaults prefetch 64 MB, then pause for a second when that is full.
    "queued.max.messages.kbytes": 16 * 1024,
    # One answer of one broker, which may come on top of that; the default is 50 MB.
    "fetch.max.bytes": 16 * 1024 * 1024,
    "fetch.queue.backoff.ms": 10,
    # How long the broker keeps a fetch that finds nothing. Whatever is committed ends the wait at once; only a partition
    # that comes, or is sought anew, has to let it pass, and so does the news that a partition's end is reached. At 20 ms
    # seven idle jobs asked 350 times a second, which was half of what an idle stack cost.
    "fetch.wait.max.ms": 100,
}


def client_settings(bootstrap: str, security: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the settings every client shares; ``security`` holds librdkafka's SASL and TLS settings."""
    return {
        **(security or {}),
        "bootstrap.servers": bootstrap,
        "socket.nagle.disable": True,
        # The default backs off to 10 s, which is what a broker's restart would then cost every client.
        "reconnect.backoff.max.ms": 1000,
    }


def hand_over(producer: Producer, record: Record, *, on_delivery: OnDelivery | None = None) -> None:
    """Give a record to a producer's queue; raises BufferError when that is full."""
    partition = -1 if record.partition is None else record.partition
    headers: list[tuple[str, str | bytes | None]] | None = [*record.headers] or None
    # All by position, the alias of ``on_delivery`` and the time among them: matching names costs as much as the rest.
    producer.produce(record.topic, record.value, record.key, partition, on_delivery, None, _NOW, headers)


def hand_over_patiently(producer: Producer, record: Record) -> None:
    """Give a record to a producer's queue; a full one is waited for, as acknowledgements make room."""
    while True:
        try:
            return hand_over(producer, record)
        except BufferError:
            producer.poll(0.05)


def name_record(topic: str | None, key: str | bytes | None) -> str:
    """Return how an error names a record."""
    return f"{topic}: record with key {key!r}"


def as_message(message: KafkaMessage) -> Message:
    """Return a received message as the port's value."""
    headers = message.headers()
    return Message(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        _headers(headers) if headers else (),
        message.timestamp()[1],
    )


def _headers(received: Any) -> tuple[tuple[str, bytes], ...]:  # Any: the hint also allows what only producers may pass
    """Return headers without None; almost always there is none, and the list is taken as it is."""
    headers = tuple(received)
    for _, value in headers:
        if value is None:
            return tuple((name, value or b"") for name, value in headers)
    return cast("tuple[tuple[str, bytes], ...]", headers)


def unreachable(what: str, error: KafkaException) -> TransientFailure:
    """Return the failure of a request that was not answered."""
    return TransientFailure(f"{what} ({error.args[0].str()}). Is the broker up, and is its address right? Retry.")
