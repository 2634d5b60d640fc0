"""Stream scorer: events.enriched -> scores.<product>, one score per question, or a letter that says why not.

What asks is declared by the product; when it is due is told by ticks alone (S2). All that falls due in a batch is read in
one go, predicted in one call, and written in the transaction of the offsets, with the plan of versions and the questions
that still wait. The answer is the replica's bit for bit, as read, features, vector and model are its code.

What bites: of several questions about one subject that wait, the newest counts, as in training. Before the first version
is live nobody answers, and what falls due then is counted and gone, as a request would have been.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from headway.clock import Clock
from headway.contracts import Reference
from headway.errors import ContractViolation
from headway.ports import Message, Record
from headway.product import Product
from headway.scores import Plan, decode_plan, encode_plan
from headway.ticks import is_tick, tick_us_of
from headway.topics import scores_state_topic
from headway.validation import Rejected
from streaming.answers import Answers, Due, letter
from streaming.due_reads import DueReads
from streaming.live_models import LiveModels
from streaming.questions import KEY_PREFIX, Question, Questions, asked_message, forget_record, state_record
from streaming.runtime import Restore

PLAN_KEY = b"plan"
_LOG = structlog.get_logger()


@dataclass
class _Partition:
    """What one partition remembers: who answers, who waits by subject, and what was kept and is no question any more."""

    plan: Plan = field(default_factory=Plan)
    waiting: dict[str, Question] = field(default_factory=dict)
    spoiled: list[tuple[Message, Rejected]] = field(default_factory=list)


class ScoreHandler:
    """The stream scorer of one product. ``commit`` is of this code, if known."""

    def __init__(
        self,
        product: Product,
        *,
        models: LiveModels,
        reads: DueReads,
        reference: Reference,
        restore: Restore,
        clock: Clock,
        commit: str | None = None,
    ) -> None:
        self._models, self._restore = models, restore
        self._answers = Answers(product, models=models, reads=reads, reference=reference, clock=clock, commit=commit)
        self._questions = Questions(product)
        self._state_topic = scores_state_topic(product.name)
        self._partitions: dict[int, _Partition] = {}

    def assigned(self, partitions: Sequence[int]) -> None:
        """Load plan and waiting questions of each partition."""
        for partition in partitions:
            self._partitions[partition] = self._restored(self._restore(self._state_topic, partition))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Forget the partitions."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    def handle(self, batch: Sequence[Message]) -> list[Record]:
        """Return scores, letters and state for a batch.

        Raises:
            DependencyDown: registry or online store does not answer; the batch may be tried again.
        """
        outputs: list[Record] = []
        due: list[Due] = []
        by_partition: dict[int, list[Message]] = {}
        for message in batch:
            by_partition.setdefault(message.partition, []).append(message)
        for partition, messages in by_partition.items():
            state = self._partitions[partition]
            self._take_over(state, messages[0])
            outputs += self._given_up(state)
            for message in messages:
                self._take(state, message, due=due, outputs=outputs)
            state.plan = state.plan.reached(messages[-1].offset)
            outputs.append(Record(self._state_topic, PLAN_KEY, encode_plan(state.plan), (), partition))
        return outputs + self._answers.records(due)

    def _given_up(self, state: _Partition) -> list[Record]:
        """Letters of what was kept and is no question to this code, and the end of their waiting."""
        spoiled, state.spoiled = state.spoiled, []
        letters = [letter(asked, rejection) for asked, rejection in spoiled]
        return letters + [
            Record(self._state_topic, KEY_PREFIX + (asked.key or b""), None, (), asked.partition)
            for asked, _ in spoiled
        ]

    def _take_over(self, state: _Partition, first: Message) -> None:
        """Have what is live answer from here on, unless these records were dealt with before: then as it was."""
        if not state.plan.is_new(first.offset):
            return
        model = self._models.successor(state.plan.newest)
        if model is None or model == state.plan.newest:
            return
        state.plan = state.plan.switched(first.offset, model)
        _LOG.info(
            "version answers", product=model.name, version=model.version, partition=first.partition,
            from_offset=first.offset,
        )  # fmt: skip

    def _take(self, state: _Partition, message: Message, *, due: list[Due], outputs: list[Record]) -> None:
        if self._questions.asks(message):
            try:
                question = self._questions.question(message)
                if not question.is_due:
                    # Found here, where the record that is at fault is in hand, and not at the tick hours later.
                    self._answers.features(question, question.due_us)
            except Rejected as rejection:
                outputs.append(letter(message, rejection))
                return
            replaced = state.waiting.pop(question.subject, None)
            if not question.is_due:
                state.waiting[question.subject] = question
                outputs.append(state_record(self._state_topic, question))
                return
            if replaced is not None:
                outputs.append(forget_record(self._state_topic, replaced))
            self._fall_due(state, question, message.offset, due)
        elif message.key is None and is_tick(message):
            tick_us = tick_us_of(message)
            ripe = [question for question in state.waiting.values() if question.due_us <= tick_us]
            for question in sorted(ripe, key=lambda each: (each.due_us, each.message.offset)):
                del state.waiting[question.subject]
                outputs.append(forget_record(self._state_topic, question))
                self._fall_due(state, question, message.offset, due)

    def _fall_due(self, state: _Partition, question: Question, at_offset: int, due: list[Due]) -> None:
        due.append(Due(question, at_offset, state.plan.model_at(at_offset)))

    def _restored(self, kept: Iterable[Message]) -> _Partition:
        state = _Partition()
        for message in kept:
            if message.key == PLAN_KEY:
                state.plan = decode_plan(message.value or b"")
            elif message.key is not None and message.key.startswith(KEY_PREFIX):
                asked = asked_message(message)
                try:
                    question = self._questions.question(asked)
                except Rejected as rejection:  # it was a question to the code before this one
                    state.spoiled.append((asked, rejection))
                else:
                    state.waiting[question.subject] = question
            else:
                place = f"{message.topic}[{message.partition}]@{message.offset}"
                raise ContractViolation(f"{place}: key {message.key!r}; only Headway writes state.scores.*")
        return state
