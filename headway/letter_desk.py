"""Where people work on letters: find them, repair them, put them back, or let them go; on a log reader and one writer.

Each change first claims the writer's name and then reads what has been decided, so two people cannot decide about a
letter at once: the one who came later goes on, the other is told.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.contracts import Domain
from headway.errors import InputRejected
from headway.features.windows import is_too_late
from headway.letter_fates import Fate, State, read_fates
from headway.letter_offers import Offer
from headway.letter_repair import Key, repaired
from headway.letter_replay import (
    Filed,
    Judges,
    Signature,
    Verdict,
    discard,
    file_letters,
    fix,
    grouped,
    offered,
    plan_replay,
)
from headway.letters import LETTER_TOPICS, Reason, parse_letter_id
from headway.ports import ExclusiveWriter, LogReader, Record
from headway.topics import PARTITIONS

# The name under which decisions are written; on Kafka the transactional id.
DESK = "letters"
_SHOWN = 20
# A store is asked about so many at once: fewer than the 500 from which a loader takes refusals for a broken template.
OFFER_LETTERS = 400
Repair = Callable[[Filed], bytes]
Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which letters are meant; what is not given does not narrow."""

    ids: Collection[str] = ()
    fingerprint: str | None = None
    reason: Reason | None = None
    state: State | None = None
    since_us: int | None = None

    def takes(self, filed: Filed) -> bool:
        """Whether a letter is meant."""
        return (
            (not self.ids or filed.id in self.ids)
            and (self.reason is None or filed.letter.reason == self.reason)
            and (self.state is None or filed.fate.state == self.state)
            and (self.since_us is None or filed.written_us >= self.since_us)
            and (self.fingerprint is None or filed.letter.fingerprint == self.fingerprint)
        )


@dataclass
class Done:
    """What became of the selected letters.

    Attributes:
        verdicts: how many letters met which.
        why: of the first letters that were left as they are, by id.
        too_late: how many of the replayed are too old to change a feature (S6); None when no watermark is known.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)
    too_late: int | None = None

    def note(self, letter: str, verdict: Verdict | State, why: str = "") -> None:
        """Count one letter."""
        self.verdicts[verdict] += 1
        if why and len(self.why) < _SHOWN:
            self.why[letter] = why


class LetterDesk:
    """The desk of all letters of a log; ``offers`` has the stages whose sink letters may be offered again."""

    def __init__(
        self, reader: LogReader, writer: ExclusiveWriter, domains: Iterable[Domain], offers: Mapping[str, Offer]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._offers = offers
        self._domains = tuple(domains)
        self._judges = Judges(self._domains)

    def letters(self, selection: Selection) -> Iterator[Filed]:
        """Yield the selected letters, each partition's in the order they were written.

        Raises:
            InputRejected: an id is none, or names no letter that is still kept.
        """
        return self._filed(selection, read_fates(self._reader))

    def fix(self, selection: Selection, repair: Repair, signature: Signature, *, progress: Progress) -> Done:
        """Repair the selected letters; one that would be refused again stays as it is."""
        done = Done()

        def changes(fates: Mapping[str, Fate]) -> Iterator[tuple[Record, ...]]:
            for filed in self._filed(selection, fates):
                if filed.fate.state == "replayed":
                    done.note(filed.id, "replayed-before")
                    continue
                try:
                    fate = fix(filed, repair(filed), self._judges, signature)
                except InputRejected as refusal:
                    done.note(filed.id, "needs-fix", str(refusal))
                else:
                    done.note(filed.id, "fixed")
                    yield (fate.to_record(),)

        self._write(changes, progress)
        return done

    def discard(self, selection: Selection, signature: Signature, *, progress: Progress) -> Done:
        """Close the selected letters without a replay; those that are closed stay as they are."""
        done = Done()

        def changes(fates: Mapping[str, Fate]) -> Iterator[tuple[Record, ...]]:
            for filed in self._filed(selection, fates):
                if filed.fate.state in ("replayed", "discarded"):
                    done.note(filed.id, "replayed-before" if filed.fate.state == "replayed" else "discarded")
                else:
                    done.note(filed.id, "discarded")
                    yield (discard(filed, signature).to_record(),)

        self._write(changes, progress)
        return done

    def replay(
        self, selection: Selection, signature: Signature, *, watermark_us: int | None, progress: Progress
    ) -> Done:
        """Put the selected letters' events back, each once, however often this is called and cut short.

        Raises:
            TransientFailure: the log or the store of a sink letter is not reachable; what is done stays done.
        """
        done = Done()
        waiting: list[Filed] = []

        def changes(fates: Mapping[str, Fate]) -> Iterator[tuple[Record, ...]]:
            yield from self._replays(selection, fates, signature, watermark_us=watermark_us, done=done, waiting=waiting)
            yield from self._offered(waiting, signature, done)

        self._write(changes, progress)
        return done

    def plan(self, selection: Selection, signature: Signature, *, watermark_us: int | None) -> Done:
        """Return what a replay would do; writes nothing and claims nothing."""
        done = Done()
        waiting: list[Filed] = []
        fates = read_fates(self._reader)
        for _ in self._replays(selection, fates, signature, watermark_us=watermark_us, done=done, waiting=waiting):
            pass
        for filed in waiting:
            done.note(filed.id, "offer")
        return done

    def _replays(
        self,
        selection: Selection,
        fates: Mapping[str, Fate],
        signature: Signature,
        *,
        watermark_us: int | None,
        done: Done,
        waiting: list[Filed],
    ) -> Iterator[tuple[Record, ...]]:
        """Yield what puts events back; ``waiting`` gets the sink letters that a store may be offered."""
        lateness = {c.event_type: c.lateness_us for domain in self._domains for c in domain.contracts}
        late = 0
        for filed in self._as_written(selection, fates):
            replay = plan_replay(filed, self._judges, signature)
            if replay.verdict == "sink" and filed.letter.stage in self._offers:
                waiting.append(filed)
            elif replay.verdict == "sink":
                done.note(filed.id, "no-offer", _no_offer(filed.letter.stage))
            else:
                done.note(replay.id, replay.verdict, replay.why)
            if replay.event is not None:
                allowed_us = lateness[replay.event.type]
                late += is_too_late(replay.event.time_us, tick_before_us=watermark_us, lateness_us=allowed_us)
                yield replay.records
        done.too_late = None if watermark_us is None else late

    def _offered(self, letters: Sequence[Filed], signature: Signature, done: Done) -> Iterator[tuple[Record, ...]]:
        for stage in sorted({filed.letter.stage for filed in letters}):
            of_stage = [filed for filed in letters if filed.letter.stage == stage]
            for start in range(0, len(of_stage), OFFER_LETTERS):
                part = of_stage[start : start + OFFER_LETTERS]
                refused = self._offers[stage](part)
                for filed in part:
                    if filed.id in refused:
                        done.note(filed.id, "refused-again", refused[filed.id])
                    else:
                        done.note(filed.id, "offer")
                        yield (offered(filed, signature).to_record(),)

    def _write(self, changes: Callable[[Mapping[str, Fate]], Iterable[tuple[Record, ...]]], progress: Progress) -> None:
        self._writer.claim()
        written = 0
        for group in grouped(changes(read_fates(self._reader))):
            self._writer.write([record for change in group for record in change])
            written += len(group)
            progress(written)

    def _as_written(self, selection: Selection, fates: Mapping[str, Fate]) -> Iterator[Filed]:
        """The selected letters in the order they were written, partitions merged.

        Put back partition by partition, the events of one would be late for those of the one before, and every row of
        an entity after them computed anew (S6): 2,000 letters made 37,000 feature rows that way, and 5,500 in order.
        """
        if selection.ids:
            return iter(sorted(self._named(selection, fates), key=_written_us))
        places = [(topic, number) for topic in LETTER_TOPICS for number in range(PARTITIONS)]
        logs = [file_letters(self._reader.read(topic, partitions=[number]), fates) for topic, number in places]
        return filter(selection.takes, heapq.merge(*logs, key=_written_us))

    def _filed(self, selection: Selection, fates: Mapping[str, Fate]) -> Iterator[Filed]:
        if selection.ids:
            return iter(self._named(selection, fates))
        messages = (message for topic in LETTER_TOPICS for message in self._reader.read(topic))
        return filter(selection.takes, file_letters(messages, fates))

    def _named(self, selection: Selection, fates: Mapping[str, Fate]) -> list[Filed]:
        """All of them, or an error before anything is done to one."""
        places: dict[str, set[int]] = {}
        for each in selection.ids:
            place = parse_letter_id(each)
            places.setdefault(place.topic, set()).add(place.partition)
        messages = (m for topic in sorted(places) for m in self._reader.read(topic, partitions=places[topic]))
        found = [filed for filed in file_letters(messages, fates) if selection.takes(filed)]
        missing = sorted(set(selection.ids) - {filed.id for filed in found})
        if missing:
            raise InputRejected(
                f"letter id: no letter {missing} among those selected; letters are kept for 30 days, and in the lake's "
                "table `letters` for good"
            )
        return found


def _written_us(filed: Filed) -> int:
    return filed.written_us


def _no_offer(stage: str) -> str:
    return (
        f"its event is accepted, and {stage} cannot be offered a single record again. Mend it; what features missed, "
        "a backfill from the lake has. Then `discard` the letter"
    )


def setting_repair(settings: Sequence[tuple[tuple[Key, ...], Any]], removals: Sequence[tuple[Key, ...]]) -> Repair:
    """Return the repair that sets and removes by path, on top of an earlier repair; values are whatever JSON holds."""
    return lambda filed: repaired(filed.body, settings=settings, removals=removals)
