"""Whether every question got exactly one answer, by the version that the plan says, and the one its own record gives. Pure.

What bites: a bad question's one answer is its letter; a score of one is as wrong as no score of a good one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from headway.letters import Letter
from headway.scores import Place, Plan, Score

_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question as it stands in the log; ``due_at`` is the offset of the record that makes it due, if one does."""

    place: Place
    subject: str
    bad: bool
    due_at: int | None


@dataclass(frozen=True, kw_only=True)
class ScoringVerdict:
    """What was found: counts, and what is wrong by kind, the first of each named."""

    counts: Mapping[str, int]
    violations: Mapping[str, Sequence[str]]


def judge_scoring(
    asked: Sequence[Asked],
    scores: Sequence[Score],
    letters: Iterable[Letter],
    *,
    plans: Mapping[int, Plan],
    recompute: Callable[[Score], float],
) -> ScoringVerdict:
    """Compare questions with what became of them.

    Args:
        asked: all questions.
        scores: in the order of their topic, partition by partition.
        letters: of the scorer.
        plans: by partition, as they are kept at the end.
        recompute: gives the probability again from what a score says went in.
    """
    by_place = {question.place: question for question in asked}
    answers = Counter(score.input for score in scores)
    refused = Counter(
        Place(letter.topic or "", letter.partition or 0, letter.offset or 0)
        for letter in letters
        if letter.stage == "scorer"
    )
    found: dict[str, list[str]] = {
        "question lost": [_named(q) for q in asked if not answers[q.place] and not refused[q.place]],
        "question answered twice": [
            f"{_named(q)}: {answers[q.place]} scores, {refused[q.place]} letters"
            for q in asked
            if answers[q.place] + refused[q.place] > 1
        ],
        "answer to nothing": [str(place) for place in (answers | refused) if place not in by_place],
        "bad question scored": [_named(q) for q in asked if q.bad and answers[q.place]],
        "good question refused": [_named(q) for q in asked if not q.bad and refused[q.place]],
        "answered late or early": [
            f"{score.input}: at {score.at_offset}, due at {by_place[score.input].due_at}"
            for score in scores
            if score.input in by_place and score.at_offset != by_place[score.input].due_at
        ],
        "version other than recorded": [
            f"{score.input}: version {score.model.version} at {score.at_offset}"
            for score in scores
            if plans.get(score.input.partition, Plan()).model_at(score.at_offset) != score.model
        ],
        "score other than recomputed": [str(score.input) for score in scores if recompute(score) != score.probability],
        "answer out of order": _out_of_order(scores),
        "receipt twice": [name for name, count in Counter(s.receipt for s in scores).items() if count > 1],
    }
    counts = {
        "questions": len(asked),
        "scores": len(scores),
        "letters": sum(refused.values()),
        "versions": len({score.model for score in scores}),
        "degraded": sum(score.degraded for score in scores),
    }
    counts |= {f"wrong: {name}": len(lines) for name, lines in found.items() if lines}
    return ScoringVerdict(counts=counts, violations={name: lines[:_NAMED] for name, lines in found.items() if lines})


def _named(question: Asked) -> str:
    return f"{question.subject} at {question.place.partition}/{question.place.offset}"


def _out_of_order(scores: Sequence[Score]) -> list[str]:
    """In each partition answers stand in the order of the records that made them due."""
    reached: dict[int, int] = {}
    wrong = []
    for score in scores:
        partition = score.input.partition
        if score.at_offset < reached.get(partition, -1):
            wrong.append(f"{score.input}: due at {score.at_offset}, after one due at {reached[partition]}")
        reached[partition] = max(score.at_offset, reached.get(partition, -1))
    return wrong
