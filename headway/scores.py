"""Stream scores: what ``scores.<product>`` holds, and which model version scores which offsets.

A score is a prediction that also names the record that asked, so the lake keeps it with the answers to requests and a
receipt explains it like any other. Versions change at an offset of each partition, and the plan that says so is kept
beside the scores, in their transactions (SEMANTICS S14): whoever reads the same records again uses the same versions.

What bites: ``input`` is the record that asked, ``at_offset`` the one of the same partition that made the answer due,
often a tick hours later. The version in force at ``at_offset`` answers.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from headway.clock import SECOND_US
from headway.errors import ContractViolation
from headway.events import TYPE_HEADER
from headway.ports import Record
from headway.predictions import ModelId, Prediction, ServedView
from headway.topics import scores_topic

SCORE_TYPE = "headway.score"
_HEADERS = ((TYPE_HEADER, SCORE_TYPE.encode()),)
# A version a day for three years; a replay that reaches further back is scored by the oldest that is known.
KEPT_SWITCHES = 1_000


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class Score(Prediction, frozen=True, kw_only=True, gc=False):
    """One stream score.

    Attributes:
        subject: whom it is about; scores of one subject come in the order of their questions' instants.
        input: the record that asked.
        at_offset: the record of the input's partition that made the answer due.
        ages_s: how old the row of each view was at the as-of; None where it had none, or was not read.
    """

    subject: str
    input: Place
    at_offset: int
    ages_s: Mapping[str, float | None]


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """From this offset of its partition on, this version answers."""

    from_offset: int
    model: ModelId


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions answer in one partition. ``until`` is the greatest offset that was ever dealt with."""

    switches: tuple[Switch, ...] = ()
    until: int = -1

    @property
    def newest(self) -> ModelId | None:
        """The version in force now; None before the first."""
        return self.switches[-1].model if self.switches else None

    def model_at(self, offset: int) -> ModelId | None:
        """Return the version that answers what falls due at an offset; None before the first switch."""
        for switch in reversed(self.switches):
            if switch.from_offset <= offset:
                return switch.model
        return None

    def is_new(self, offset: int) -> bool:
        """Whether nobody has dealt with an offset; only there may versions change."""
        return offset > self.until

    def switched(self, offset: int, model: ModelId) -> "Plan":
        """Return the plan in which another version answers from an offset on that is new."""
        if model == self.newest:
            return self
        switches = (*self.switches, Switch(from_offset=offset, model=model))
        return Plan(switches=switches[-KEPT_SWITCHES:], until=self.until)

    def reached(self, offset: int) -> "Plan":
        """Return the plan once everything up to an offset is dealt with."""
        return self if offset <= self.until else Plan(switches=self.switches, until=offset)


_ENCODER = msgspec.json.Encoder()
_SCORE = msgspec.json.Decoder(Score)
_PLAN = msgspec.json.Decoder(Plan)


def score_receipt(product: str, asked: Place, event_id: str) -> str:
    """Return the receipt of a question: the same record always gives the same (S17)."""
    text = f"{product}\x1f{asked.topic}\x1f{asked.partition}\x1f{asked.offset}\x1f{event_id}"
    return f"stream-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def ages_s(views: tuple[ServedView, ...], as_of_us: int) -> dict[str, float | None]:
    """Return how old each view's row was, in seconds."""
    if not views:
        return {}
    return {
        view.view: None if view.row_time_us is None else (as_of_us - view.row_time_us) / SECOND_US for view in views
    }


def score_record(score: Score) -> Record:
    """Return the record of a score, keyed by its subject, in the partition of the record that asked."""
    return Record(
        scores_topic(score.product), score.subject.encode(), _ENCODER.encode(score), _HEADERS, score.input.partition
    )


def decode_score(raw: bytes) -> Score:
    """Return the score in a record's value.

    Raises:
        ContractViolation: these are not bytes of ``score_record``.
    """
    try:
        return _SCORE.decode(raw)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"score record: {error}; only Headway writes scores.*") from error


def encode_plan(plan: Plan) -> bytes:
    """Return a plan as its state topic keeps it."""
    return _ENCODER.encode(plan)


def decode_plan(raw: bytes) -> Plan:
    """Return the plan in the bytes.

    Raises:
        ContractViolation: these are not bytes of ``encode_plan``.
    """
    try:
        return _PLAN.decode(raw)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"plan of scores: {error}; only Headway writes state.scores.*") from error
