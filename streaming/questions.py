"""What a product is asked from the stream: events of one type, each a question that falls due at an instant (S7).

A question waits until time in its own partition has reached its instant: by a tick, by the tick before it, or by its own
time. Refuses to guess a request: what is none by the product's own type becomes a letter.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from headway.clock import to_us
from headway.events import TYPE_HEADER
from headway.letter_causes import failing_path
from headway.ports import Message, Record
from headway.product import Product
from headway.ticks import header, tick_before_us
from headway.topics import EVENTS_ENRICHED
from headway.validation import Rejected

KEY_PREFIX = b"asked/"
_OFFSET_HEADER = "asked_offset"


class Question(msgspec.Struct, frozen=True, gc=False):
    """One question.

    Attributes:
        message: the record that asked, as it came.
        request: an instance of the product's request.
        due_us: the instant it is asked for.
        now_us: how far time had surely come in its partition when it came.
    """

    message: Message
    event_id: str
    subject: str
    planted: str | None
    request: Any  # of the product's own type
    due_us: int
    now_us: int

    @property
    def is_due(self) -> bool:
        """Whether its instant had come when it came."""
        return self.due_us <= self.now_us


class Questions:
    """Finds the questions of one product among enriched events."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._type = (product.asked_by or "").encode()
        event = msgspec.defstruct(
            "AskingEvent",
            [
                ("id", str),
                ("subject", str),
                ("time", datetime),
                ("data", product.asking),
                ("planted", str | None, None),
            ],
            gc=False,
        )
        # Any: the struct is made here, of the product's own request type.
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(event).decode

    def asks(self, message: Message) -> bool:
        """Whether a record, by its header, is of the type that asks; what is not is not decoded."""
        for name, value in message.headers:
            if name == TYPE_HEADER:
                return value == self._type
        return False

    def question(self, message: Message) -> Question:
        """Return the question in a record that asks.

        Raises:
            Rejected: it is no request of this product; says where.
        """
        try:
            event = self._decode(message.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            path = failing_path(str(error)) or "$"
            detail = f"{self._product.name}: {error}; wanted a request"
            raise Rejected("schema-violation", detail, path=path, contract=self._product.asked_by) from error
        due_us, now_us = self._product.asked_at_us(event.data), tick_before_us(message) or 0
        if now_us < due_us:
            now_us = max(now_us, to_us(event.time))
        return Question(message, event.id, event.subject, event.planted, event.data, due_us, now_us)


def state_record(topic: str, question: Question) -> Record:
    """Return the record that keeps a waiting question: its event, and where that stands."""
    asked = question.message
    headers = (*asked.headers, (_OFFSET_HEADER, b"%d" % asked.offset))
    return Record(topic, _key(question.subject), asked.value, headers, asked.partition)


def forget_record(topic: str, question: Question) -> Record:
    """Return the record that ends the waiting of a question."""
    return Record(topic, _key(question.subject), None, (), question.message.partition)


def asked_message(kept: Message) -> Message:
    """Return the record that asked from the one that keeps it; its key and time are of no use any more."""
    offset = int(header(kept, _OFFSET_HEADER) or b"")
    headers = tuple(each for each in kept.headers if each[0] != _OFFSET_HEADER)
    key = (kept.key or b"").removeprefix(KEY_PREFIX)
    return Message(EVENTS_ENRICHED, kept.partition, offset, key, kept.value, headers, kept.timestamp_ms)


def _key(subject: str) -> bytes:
    return KEY_PREFIX + subject.encode()
