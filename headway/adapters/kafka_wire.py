"""Two questions to a broker that librdkafka does not ask: who leads the quorum, and in which epoch each partition is led.

Speaks Kafka's own protocol over a plain socket, one connection a question, so that watching a cluster during a drill
costs microseconds and is not delayed by a client's caches and backoffs. What bites: no TLS and no SASL here; a cluster
that wants either is watched through librdkafka alone, and its quorum stays unknown.

Source: kafka.apache.org/protocol, Metadata version 9, DescribeQuorum version 1 (both "flexible": compact lengths, tags).
"""

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headway.errors import TransientFailure
from headway.kafka_health import Partition, Quorum, Voter

_METADATA, _METADATA_VERSION = 3, 9
_DESCRIBE_QUORUM, _DESCRIBE_QUORUM_VERSION = 55, 1
_ANY_ID = 1
_CLIENT = b"headway"
_QUORUM_TOPIC = "__cluster_metadata"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class View:
    """What one broker believes about the cluster at this moment."""

    brokers: tuple[int, ...]
    partitions: tuple[Partition, ...]


def ask_metadata(address: str, topics: Sequence[str], *, timeout_s: float) -> View:
    """Give one broker's view of these topics; those it does not know are left out.

    Raises:
        TransientFailure: nobody answers there in time.
    """
    body = _varint(len(topics) + 1) + b"".join(_text(name) + b"\0" for name in topics)
    # No topic is created by asking, and nobody's permissions are asked for.
    answer = _ask(address, _METADATA, _METADATA_VERSION, body + b"\0\0\0\0", timeout_s=timeout_s)
    answer.skip(4)
    brokers = answer.array(_read_broker)
    answer.text()
    answer.skip(4)
    found = answer.array(_read_topic)
    return View(brokers=tuple(sorted(brokers)), partitions=tuple(each for topic in found for each in topic))


def ask_quorum(address: str, *, timeout_s: float) -> Quorum:
    """Give the quorum as its leader describes it, through any broker.

    Raises:
        TransientFailure: nobody answers there in time, or there is no leader just now.
    """
    body = b"\2" + _text(_QUORUM_TOPIC) + b"\2" + struct.pack(">i", 0) + b"\0\0\0"
    answer = _ask(address, _DESCRIBE_QUORUM, _DESCRIBE_QUORUM_VERSION, body, timeout_s=timeout_s)
    error = answer.int16()
    found = [] if error else [each for topic in answer.array(_read_quorum_topic) for each in topic]
    if not found or found[0] is None:
        raise TransientFailure(f"{address}: the quorum has no leader just now (Kafka error {error}). Ask again.")
    return found[0]


def _read_broker(answer: "_Answer") -> int:
    node = answer.int32()
    answer.text()
    answer.skip(4)
    answer.text()
    answer.tags()
    return node


def _read_topic(answer: "_Answer") -> list[Partition]:
    error = answer.int16()
    name = answer.text() or ""
    answer.skip(1)
    partitions = answer.array(lambda each: _read_partition(each, name))
    answer.skip(4)
    answer.tags()
    return [] if error else partitions


def _read_partition(answer: "_Answer", topic: str) -> Partition:
    answer.skip(2)
    number, leader, epoch = answer.int32(), answer.int32(), answer.int32()
    replicas, in_sync = answer.array(_Answer.int32), answer.array(_Answer.int32)
    answer.array(_Answer.int32)
    answer.tags()
    return Partition(
        topic=topic,
        number=number,
        leader=None if leader < 0 else leader,
        epoch=epoch,
        replicas=tuple(replicas),
        in_sync=tuple(in_sync),
    )


def _read_quorum_topic(answer: "_Answer") -> list[Quorum | None]:
    answer.text()
    found = answer.array(_read_quorum)
    answer.tags()
    return found


def _read_quorum(answer: "_Answer") -> Quorum | None:
    answer.skip(4)
    error = answer.int16()
    leader, epoch = answer.int32(), answer.int32()
    answer.skip(8)
    voters, _observers = answer.array(_read_voter), answer.array(_read_voter)
    answer.tags()
    if error or leader < 0:
        return None
    # The leader's own last fetch is its clock's now, so no two clocks are compared.
    [now_ms] = [fetched_ms for node, _, fetched_ms in voters if node == leader]
    return Quorum(
        leader=leader,
        epoch=epoch,
        voters=tuple(
            Voter(node=node, end=end, silent_s=None if fetched_ms < 0 else max(0, now_ms - fetched_ms) / 1000)
            for node, end, fetched_ms in sorted(voters)
        ),
    )


def _read_voter(answer: "_Answer") -> tuple[int, int, int]:
    """Node, end of its log, and when it fetched last."""
    voter = answer.int32(), answer.int64(), answer.int64()
    answer.skip(8)
    answer.tags()
    return voter


class _Answer:
    """Reads a response from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def skip(self, count: int) -> None:
        self._at += count

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def int64(self) -> int:
        return int.from_bytes(self.take(8), "big", signed=True)

    def varint(self) -> int:
        value = shift = 0
        while True:
            [byte] = self.take(1)
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def text(self) -> str | None:
        length = self.varint()
        return None if length == 0 else self.take(length - 1).decode()

    def array(self, read: Callable[["_Answer"], T]) -> list[T]:
        return [read(self) for _ in range(self.varint() - 1)]

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())


def _ask(address: str, key: int, version: int, body: bytes, *, timeout_s: float) -> _Answer:
    head = struct.pack(">hhih", key, version, _ANY_ID, len(_CLIENT)) + _CLIENT + b"\0"
    request = head + body
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s) as line:
            line.settimeout(timeout_s)
            line.sendall(struct.pack(">i", len(request)) + request)
            size = int.from_bytes(_receive(line, 4), "big")
            answer = _Answer(_receive(line, size))
    except OSError as error:
        raise TransientFailure(
            f"{address}: no answer within {timeout_s:.1f} s ({error}). Is this broker up?"
        ) from error
    answer.skip(4)
    answer.tags()
    return answer


def _receive(line: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = line.recv(count - len(received))
        if not chunk:
            raise ConnectionResetError("closed in the middle of an answer")
        received += chunk
    return bytes(received)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _varint(len(encoded) + 1) + encoded


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
