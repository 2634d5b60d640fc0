"""What became of a letter: every step somebody took, kept in one compacted record per letter.

A letter without a record is open. Each record carries the letter's whole history, so that compaction, which leaves the
newest one, loses no step; the bytes of a repair are in it only until they are replayed (then they are in events.raw).
The record of a replay is written in the same transaction as the event it puts back, so that a repeat finds it.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from headway.errors import ContractViolation, InputRejected
from headway.ports import LogReader, Message, Record
from headway.topics import LETTERS_FATE

State = Literal["open", "fixed", "replayed", "discarded"]
# What may be done to a letter in a state. Replayed is final: if the event fails again it comes back as another letter.
_ALLOWED: Mapping[State, frozenset[State]] = {
    "open": frozenset({"fixed", "replayed", "discarded"}),
    "fixed": frozenset({"fixed", "replayed", "discarded"}),
    "discarded": frozenset({"fixed"}),
    "replayed": frozenset(),
}


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was done to a letter.

    Attributes:
        at: when, RFC 3339.
        sha256: of the bytes that were fixed or replayed.
        event: (source, id) of the event that was put back; what to look for in the lake.
    """

    state: State
    by: str
    at: str
    note: str = ""
    sha256: str | None = None
    event: tuple[str, str] | None = None


class Fate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that was done to one letter, oldest first; ``body`` holds the repair that waits to be replayed."""

    letter: str
    steps: tuple[Step, ...] = ()
    body: bytes | None = None

    @property
    def state(self) -> State:
        """What the letter is now."""
        return self.steps[-1].state if self.steps else "open"

    def then(self, step: Step, *, body: bytes | None = None) -> "Fate":
        """Return the fate after one more step.

        Raises:
            InputRejected: that cannot be done to a letter in this state.
        """
        if step.state not in _ALLOWED[self.state]:
            last = self.steps[-1]
            raise InputRejected(
                f"{self.letter}: {last.state} by {last.by} at {last.at}; it cannot become {step.state} any more. "
                "A replayed event that failed again is another letter: `headway letters show` names it"
            )
        return Fate(letter=self.letter, steps=(*self.steps, step), body=body)

    def to_record(self) -> Record:
        """Return the record that makes this the letter's fate."""
        return Record(topic=LETTERS_FATE, key=self.letter.encode(), value=msgspec.json.encode(self))


def fate_of(message: Message) -> Fate:
    """Return the fate kept in a record of ``letters.fate``.

    Raises:
        ContractViolation: the record is none of ours.
    """
    try:
        return msgspec.json.decode(message.value or b"", type=Fate)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"{message.topic}[{message.partition}]@{message.offset}: no fate ({error})") from error


def read_fates(reader: LogReader) -> dict[str, Fate]:
    """Return the fate of every letter somebody dealt with, by letter id."""
    return newest_fates(reader.read(LETTERS_FATE))


def newest_fates(messages: Iterable[Message]) -> dict[str, Fate]:
    """Return the newest fate of each letter; ``messages`` hold each partition in order."""
    return {fate.letter: fate for fate in (fate_of(message) for message in messages)}
