"""What a sink letter's replay is: its record, as it stands in its topic, offered once more to the store that refused it.

The event itself is accepted (S12, S13): in events.raw it would be a duplicate, and other stores have it. So nothing is
put back into the log; the one store is asked again, under the names by which it knows a repeat (S14). Only then is the
letter's fate written: what is cut short between the two is offered once more, and the store has it already.
"""

from collections.abc import Callable, Mapping, Sequence

from headway.errors import ContractViolation
from headway.letter_replay import Filed
from headway.ports import Message

# Offers the records of letters to the store of the stage that wrote them; returns why it refused some again, by letter.
Offer = Callable[[Sequence[Filed]], Mapping[str, str]]


def refused_record(filed: Filed) -> Message:
    """Return the record that a letter was written about, as the stage read it, but for its time, which no letter keeps.

    Raises:
        ContractViolation: the letter's record never stood in a topic.
    """
    letter = filed.letter
    if letter.topic is None or letter.partition is None or letter.offset is None:
        raise ContractViolation(f"{filed.id}: a letter of the door is about no record of a topic")
    return Message(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        key=letter.key,
        value=letter.original,
        headers=letter.headers,
        timestamp_ms=filed.written_us // 1000,
    )
