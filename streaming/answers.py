"""Answers what fell due: one read of features, one call of each model, a score or a letter for every question.

Read, request features, vector and model are the replica's code, so the scores are its own bit for bit. What bites: the
as-of of an answer is the instant asked for, or a little later where the store has moved on (`streaming.due_reads`).
"""

from collections import Counter as Counted
from collections.abc import Sequence

import msgspec
import structlog
from prometheus_client import Counter

from headway.clock import Clock, to_us
from headway.contracts import Reference
from headway.errors import InputRejected
from headway.letter_causes import failing_path
from headway.letters import letter_about
from headway.online_features import ViewsRead
from headway.ports import Message, Record
from headway.predictions import ModelId
from headway.product import Product
from headway.scores import Place, Score, ages_s, score_receipt, score_record
from headway.topics import EVENTS_ENRICHED_LETTERS
from headway.validation import Rejected
from headway.vector import RequestValues, ViewValues
from streaming.due_reads import DueReads
from streaming.live_models import LiveModels
from streaming.questions import Question

STAGE = "scorer"
OUTCOMES = Counter("headway_scores_total", "Questions answered or not, aborted tries included.", ["product", "outcome"])
_LOG = structlog.get_logger()


class Due(msgspec.Struct, frozen=True, gc=False):
    """A question whose time has come, by the record at ``at_offset``, and who answers; None before any version did."""

    question: Question
    at_offset: int
    model: ModelId | None


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A question with everything its model needs."""

    due: Due
    model: ModelId
    read: ViewsRead
    input: tuple[RequestValues, ViewValues, int]


class Answers:
    """The answers of one product."""

    def __init__(
        self,
        product: Product,
        *,
        models: LiveModels,
        reads: DueReads,
        reference: Reference,
        clock: Clock,
        commit: str | None,
    ) -> None:
        self._product, self._reference, self._commit = product, reference, commit
        self._models, self._reads, self._clock = models, reads, clock
        self._encode = msgspec.json.Encoder().encode
        self._outcomes = {
            outcome: OUTCOMES.labels(product.name, outcome)
            for outcome in ("ok", "stale", "degraded", "letter", "unanswered")
        }

    def records(self, due: Sequence[Due]) -> list[Record]:
        """Return the scores of what fell due, in its order, and letters where a question cannot be answered.

        Raises:
            DependencyDown: online store or registry does not answer.
        """
        answered = [each for each in due if each.model is not None]
        self._outcomes["unanswered"].inc(len(due) - len(answered))
        if not answered:
            return []
        reads = self._reads.read([d.question.request for d in answered], [d.question.due_us for d in answered])
        asked: list[_Asked] = []
        letters: list[Record] = []
        for each, read in zip(answered, reads, strict=True):
            try:
                values = self.features(each.question, read.as_of_us)
            except Rejected as rejection:
                letters.append(letter(each.question.message, rejection))
            else:
                assert each.model is not None
                views = {view.view: view.values for view in read.views}
                asked.append(_Asked(each, each.model, read, (values, views, read.as_of_us)))
        now_us = to_us(self._clock.now())
        scores = [self._score(*each, now_us) for each in zip(asked, self._probabilities(asked), strict=True)]
        self._count(scores, letters=len(letters))
        return [*map(score_record, scores), *letters]

    def features(self, question: Question, as_of_us: int) -> RequestValues:
        """Return the request features of a question.

        Raises:
            Rejected: it names something the reference does not know.
        """
        try:
            return self._product.compute_request_features(question.request, self._reference, as_of_us)
        except InputRejected as refusal:
            path = failing_path(str(refusal), inside="$.data") or "$.data"
            raise Rejected("enrichment-refused", str(refusal), path=path, contract=self._product.asked_by) from refusal

    def _probabilities(self, asked: Sequence[_Asked]) -> list[float]:
        """One call of each model: nearly always one."""
        found: dict[int, float] = {}
        for model in dict.fromkeys(each.model for each in asked):
            places = [place for place, each in enumerate(asked) if each.model == model]
            scores = self._models.predictor(model).predict_many([asked[place].input for place in places])
            found.update(zip(places, scores, strict=True))
        return [found[place] for place in range(len(asked))]

    def _score(self, asked: _Asked, probability: float, now_us: int) -> Score:
        question, read, product = asked.due.question, asked.read, self._product.name
        message = question.message
        place = Place(message.topic, message.partition, message.offset)
        return Score(
            receipt=score_receipt(product, place, question.event_id),
            product=product,
            as_of_us=read.as_of_us,
            requested_at_us=now_us,
            model=asked.model,
            reference_version=self._reference.version,
            request=msgspec.Raw(self._encode(question.request)),
            views=read.views,
            probability=probability,
            degraded=read.degraded,
            stale=read.stale,
            source="stream",
            commit=self._commit,
            planted=question.planted,
            subject=question.subject,
            input=place,
            at_offset=asked.due.at_offset,
            ages_s=ages_s(read.views, read.as_of_us),
        )

    def _count(self, scores: Sequence[Score], *, letters: int) -> None:
        found = Counted("degraded" if score.degraded else "stale" if score.stale else "ok" for score in scores)
        for outcome, number in (*found.items(), ("letter", letters)):
            self._outcomes[outcome].inc(number)


def letter(message: Message, rejection: Rejected) -> Record:
    """Return the letter about a record that asks and is no question, and say so in the log."""
    _LOG.info(
        "letter", reason=rejection.reason, detail=str(rejection), partition=message.partition, offset=message.offset
    )
    written = letter_about(
        message,
        reason=rejection.reason,
        detail=str(rejection),
        stage=STAGE,
        path=rejection.path,
        contract=rejection.contract,
    )
    return written.to_record(EVENTS_ENRICHED_LETTERS)
