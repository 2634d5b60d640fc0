"""What both workers share around a log: polling, committing, waiting, and giving a record up."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from headway.clock import monotonic_s
from headway.errors import Overtaken, PermanentFailure, TransientFailure
from headway.letter_causes import stack_digest
from headway.letters import LETTER_TOPICS, Letter, Reason, letter_about
from headway.ports import EventLog, Message, Record
from headway.topics import EVENTS_ENRICHED_LETTERS
from streaming.instruments import Instruments
from streaming.isolate import EverythingFails, Poison, everything_fails, work_through
from streaming.patience import NotCommitted, Patience, StateUnreadable

# Large enough to amortise a transaction (about 10 ms), small enough to bound what an abort repeats.
BATCH_LIMIT = 2000
# What a half open breaker risks.
PROBE_LIMIT = 100
POLL_TIMEOUT_S = 0.2
# A letter whose original does not fit beside its headers keeps this much; the rest stands where it came from.
CUT_ORIGINAL_BYTES = 64 * 1024
_LOG = structlog.get_logger()


class Loop:
    """One log with its instruments and its patience. ``on_rewound`` drops what was polled and not committed."""

    def __init__(
        self, log: EventLog, instruments: Instruments, *, on_rewound: Callable[[], None] = lambda: None
    ) -> None:
        self.log = log
        self._on_rewound = on_rewound
        self.instruments = instruments
        self.metrics = instruments.metrics
        self.patience = Patience(log, instruments)

    def poll(self) -> list[Message]:
        """The next batch; empty while held back, and when the log cannot be reached."""
        self.patience.go_on_when_due()
        self.instruments.observe_log(self.log)
        limit = PROBE_LIMIT if self.instruments.breaker.state == "half-open" else BATCH_LIMIT
        started_s = monotonic_s()
        try:
            batch = self.log.poll(limit, POLL_TIMEOUT_S)
        except TransientFailure as failure:
            self.metrics.count_error("not-reachable")
            _LOG.warning("log not reachable; polling again", job=self.instruments.job, reason=str(failure))
            self._on_rewound()
            return []
        if batch:
            self.metrics.observe("poll", monotonic_s() - started_s)
            self.instruments.note_polled(batch)
        return batch

    def commit(self, inputs: Sequence[Message], outputs: Sequence[Record]) -> None:
        """Write outputs and offsets in one transaction.

        Raises:
            NotCommitted: read again.
            Poison: one of the outputs can never be written.
        """
        letters = sum(record.topic in LETTER_TOPICS for record in outputs)
        if letters:
            self.instruments.hit("during_letter")
        try:
            with self.metrics.time("commit"), self.instruments.committing():
                self.log.commit(inputs, outputs)
        except TransientFailure as failure:
            raise NotCommitted(str(failure)) from failure
        except PermanentFailure as failure:
            raise Poison from failure
        self.metrics.records.inc(len(outputs))
        self.metrics.letters.inc(letters)
        self.patience.note_progress()

    def not_committed(self, failure: NotCommitted | Overtaken, *, messages: int) -> None:
        """Say that a batch is read again."""
        self.metrics.count_error("not-committed")
        _LOG.warning(
            "not committed; reading again",
            job=self.instruments.job,
            reason=str(failure),
            messages=messages,
        )

    def hold(self, failure: Exception, *, records: int) -> None:
        """Put the batch back and wait, for as long as the failure's kind says."""
        if isinstance(failure, StateUnreadable):
            self.metrics.count_error("not-restored")
            self.patience.hold(failure, cause="state", records=records)
        elif isinstance(failure, EverythingFails):
            self.patience.hold(failure, cause="handler", records=records)
        else:
            self.patience.hold(failure, cause="dependency", records=records)

    def work(
        self,
        batch: Sequence[Message],
        *,
        attempt: Callable[[Sequence[Message]], None],
        fails: Callable[[Message], bool],
        undo: Callable[[], None],
    ) -> None:
        """Do a batch as `streaming.isolate` says; one by one where the crash journal suspects it."""
        judged = False

        def give_up(message: Message, beside: Sequence[Message], error: Exception) -> None:
            nonlocal judged
            if not judged:
                self.patience.judge(beside, error, sample=lambda: everything_fails(message, beside, fails=fails))
                judged = True
                undo()
                try:
                    # Once more, as the others may pass only because a fault of ours has ended meanwhile.
                    attempt([message])
                except Poison:
                    undo()
                else:
                    return
            self._give_up(
                message,
                reason="handler-failed",
                detail=f"{type(error).__name__}: {error}",
                stack=stack_digest(error),
                attempts=self.patience.tries + 1,
            )

        quarantine = self.instruments.quarantine
        for part in [batch] if quarantine is None else quarantine.parts_of(batch):
            if quarantine is not None and len(part) == 1 and quarantine.is_condemned(part[0]):
                detail = "this process died or hung each time it had the record alone in hand"
                self._give_up(part[0], reason="crashed", detail=detail, stack=None, attempts=quarantine.deaths)
            else:
                work_through(part, attempt=attempt, undo=undo, give_up=give_up)

    def _give_up(self, message: Message, *, reason: Reason, detail: str, stack: str | None, attempts: int) -> None:
        """Commit a letter in the record's place; a failure of ours, so it counts for the breaker (S22)."""
        instruments = self.instruments
        letter = letter_about(
            message, reason=reason, detail=detail, stage=instruments.job, stack=stack, attempts=attempts
        )
        _LOG.error(
            "record given up", job=instruments.job, reason=reason, detail=detail, topic=message.topic,
            partition=message.partition, offset=message.offset, stack=stack,
        )  # fmt: skip
        with instruments.in_hand([message]):
            try:
                self.commit([message], [letter.to_record(EVENTS_ENRICHED_LETTERS)])
            except Poison:
                self.commit([message], [_cut(letter).to_record(EVENTS_ENRICHED_LETTERS)])
        instruments.note_given_up(message, reason=reason, detail=detail)
        if instruments.breaker.state == "open":
            raise EverythingFails(instruments.breaker.reason or detail)


def _cut(letter: Letter) -> Letter:
    """The letter with as much of the original as fits: as it came, it may fill a record to the last byte."""
    detail = f"{letter.detail} (original of {len(letter.original)} bytes is cut here; it stands in {letter.topic})"
    return replace(letter, original=letter.original[:CUT_ORIGINAL_BYTES], detail=detail[:4096], headers=())
