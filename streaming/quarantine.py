"""The crash journal: which records were in hand when a process died, so that one that kills cannot kill for ever.

A record that segfaults, exhausts memory or hangs cannot be caught. So what is in hand is noted before it is handled and
struck out before its commit, of whose end no record is guilty. A process that finds its predecessor's note goes on; after two deaths over the same records
it takes them one by one, and a record that was alone in hand at two deaths becomes a letter. A kill from outside (an
operator, a drill) strikes at random: to condemn an innocent record it has to hit four times in a row, twice within the
milliseconds of that one record.

One small file per instance, written in place and not flushed to the disk: what a dead process wrote, the kernel still
has. Only a power cut loses it, and that is no record's doing. What bites: the file belongs to the instance, so when a
partition moves the deaths are counted anew there.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import msgspec
import structlog

from headway.ports import Message

# Deaths over the same records before they are taken one by one, and over one record before it is given up.
DEATHS_OF_BATCH = 2
DEATHS_OF_RECORD = 2
# A hang ends by our own watchdog, which no accident imitates: it counts as two.
_WEIGHT_OF_HANG = 2
_LOG = structlog.get_logger()

Ranges = dict[str, tuple[int, int]]


class Note(msgspec.Struct, kw_only=True):
    """The journal's content. Ranges are inclusive offsets by ``topic/partition``."""

    in_hand: Ranges = {}
    alone: bool = False
    hung: bool = False
    suspects: Ranges = {}
    deaths: int = 0
    record: Ranges = {}
    record_deaths: int = 0


class Quarantine:
    """The crash journal of one job instance."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._note = _learn_from(self._read())
        self._write()
        if self._note.deaths:
            _LOG.warning(
                "died with records in hand",
                deaths=self._note.deaths,
                records=self._note.suspects,
                next="one by one" if self._note.deaths >= DEATHS_OF_BATCH else "as usual",
            )

    def is_suspect(self, batch: Sequence[Message]) -> bool:
        """Whether the batch holds records that were in hand at two deaths: take it one by one."""
        return self._note.deaths >= DEATHS_OF_BATCH and any(_within(m, self._note.suspects) for m in batch)

    def parts_of(self, batch: Sequence[Message]) -> list[Sequence[Message]]:
        """Return the batch in parts to handle one after the other: each suspect alone, the others together."""
        if not self.is_suspect(batch):
            return [batch]
        parts: list[Sequence[Message]] = []
        for suspected, messages in groupby(batch, key=lambda message: _within(message, self._note.suspects)):
            together = list(messages)
            parts.extend([[message] for message in together] if suspected else [together])
        return parts

    @property
    def deaths(self) -> int:
        """Deaths over the records that were last in hand."""
        return self._note.deaths

    def is_condemned(self, message: Message) -> bool:
        """Whether this record was alone in hand at two deaths."""
        return self._note.record_deaths >= DEATHS_OF_RECORD and _within(message, self._note.record)

    @contextmanager
    def in_hand(self, batch: Sequence[Message]) -> Iterator[None]:
        """Note the records while the body runs; an exception strikes them out as success does: only death leaves them."""
        ranges = _ranges(batch)
        self._note.in_hand, self._note.alone = ranges, len(batch) == 1
        self._write()
        try:
            yield
        finally:
            self._note.in_hand = {}
            self._write()

    def note_done(self, batch: Sequence[Message]) -> None:
        """Acquit what was committed."""
        if not self._note.suspects:
            return
        for place, (_, last) in _ranges(batch).items():
            if place in self._note.suspects and self._note.suspects[place][1] <= last:
                del self._note.suspects[place]
        if not self._note.suspects:
            self._note = Note(in_hand=self._note.in_hand, alone=self._note.alone)
        self._write()

    def note_hang(self) -> None:
        """Say that the process is about to end because of what is in hand, if anything; the only call from another thread."""
        self._note.hung = bool(self._note.in_hand)
        self._write()

    def close(self) -> None:
        """Close the file; it stays, empty of what is in hand."""
        os.close(self._file)

    def _read(self) -> Note:
        try:
            content = os.pread(self._file, os.fstat(self._file).st_size, 0)
            return msgspec.json.decode(content.partition(b"\n")[0], type=Note)
        except msgspec.DecodeError:
            # New, or torn by a power cut: no evidence.
            return Note()

    def _write(self) -> None:
        # One line; what a longer note left behind it is never read.
        os.pwrite(self._file, msgspec.json.encode(self._note) + b"\n", 0)


def _learn_from(note: Note) -> Note:
    """Return what a new process believes, given what its predecessor left."""
    if not note.in_hand:
        return note
    weight = _WEIGHT_OF_HANG if note.hung else 1
    again = any(_overlap(span, note.suspects.get(place)) for place, span in note.in_hand.items())
    learned = Note(
        suspects=note.in_hand,
        deaths=weight + (note.deaths if again else 0),
        record=note.record,
        record_deaths=note.record_deaths,
    )
    if note.alone:
        learned.record = note.in_hand
        learned.record_deaths = weight + (note.record_deaths if note.record == note.in_hand else 0)
    return learned


def _ranges(batch: Sequence[Message]) -> Ranges:
    ranges: dict[tuple[str, int], tuple[int, int]] = {}
    for message in batch:
        place = (message.topic, message.partition)
        known = ranges.get(place)
        ranges[place] = (message.offset if known is None else known[0], message.offset)
    return {f"{topic}/{partition}": span for (topic, partition), span in ranges.items()}


def _within(message: Message, ranges: Ranges) -> bool:
    span = ranges.get(f"{message.topic}/{message.partition}")
    return span is not None and span[0] <= message.offset <= span[1]


def _overlap(one: tuple[int, int], other: tuple[int, int] | None) -> bool:
    return other is not None and one[0] <= other[1] and other[0] <= one[1]
