"""The judge of stream scores: silent about what is right, and each wrong thing has its name."""

import random
from dataclasses import replace

import msgspec
import pytest

from headway.adapters.memory import MemoryReader
from headway.letters import Letter
from headway.predictions import ModelId
from headway.scores import Place, Plan, Score
from orchestration.chaos.mutant import MUTANTS
from orchestration.chaos.scoring import plan_questions, steps_of
from orchestration.chaos.scoring_books import judge_scores
from orchestration.chaos.scoring_verdict import Asked, judge_scoring
from streaming.handlers.score import ScoreHandler
from tests.scoring_world import DUE_US, ScoringWorld
from tests.serving_world import product, trained
from tests.unit.test_subscription import score

TOPIC = "events.enriched"
ONE, TWO = (ModelId(name="p", version=version, digest=f"d{version}") for version in (1, 2))
PLAN = Plan().switched(0, ONE).switched(15, TWO)


def asked(offset: int, *, due: int | None, bad: bool = False) -> Asked:
    return Asked(place=Place(TOPIC, 0, offset), subject=f"s{offset}", bad=bad, due_at=due)


def answer(offset: int, *, due: int, model: ModelId = ONE) -> Score:
    return msgspec.structs.replace(
        score(offset), input=Place(TOPIC, 0, offset), at_offset=due, model=model, receipt=f"r{offset}"
    )


def refusal(offset: int) -> Letter:
    return Letter(
        reason="schema-violation", detail="d", stage="scorer", original=b"", topic=TOPIC, partition=0, offset=offset
    )


RIGHT = [answer(1, due=10), answer(2, due=10), answer(3, due=20, model=TWO)]
QUESTIONS = [asked(1, due=10), asked(2, due=10), asked(3, due=20), asked(4, due=None, bad=True)]


def judged(scores: list[Score], letters: list[Letter], questions: list[Asked] = QUESTIONS) -> set[str]:
    verdict = judge_scoring(questions, scores, letters, plans={0: PLAN}, recompute=lambda each: each.input.offset / 100)
    return set(verdict.violations)


def test_everything_answered_once_is_nothing_to_name() -> None:
    assert judged(RIGHT, [refusal(4)]) == set()


@pytest.mark.parametrize(
    ("scores", "letters", "named"),
    [
        (RIGHT[1:], [refusal(4)], {"question lost"}),
        ([*RIGHT, RIGHT[-1]], [refusal(4)], {"question answered twice", "receipt twice"}),
        (RIGHT, [], {"question lost"}),
        (RIGHT, [refusal(4), refusal(4)], {"question answered twice"}),
        (RIGHT, [refusal(4), refusal(3)], {"question answered twice", "good question refused"}),
        ([*RIGHT, answer(4, due=20, model=TWO)], [], {"bad question scored", "answered late or early"}),
        ([*RIGHT, answer(9, due=20, model=TWO)], [refusal(4)], {"answer to nothing"}),
        ([*RIGHT[:2], answer(3, due=20)], [refusal(4)], {"version other than recorded"}),
        ([*RIGHT[:2], answer(3, due=22, model=TWO)], [refusal(4)], {"answered late or early"}),
        ([RIGHT[2], *RIGHT[:2]], [refusal(4)], {"answer out of order"}),
        (
            [*RIGHT[:2], msgspec.structs.replace(RIGHT[2], probability=0.5)],
            [refusal(4)],
            {"score other than recomputed"},
        ),
    ],
)
def test_each_wrong_thing_has_its_name(scores: list[Score], letters: list[Letter], named: set[str]) -> None:
    assert judged(scores, letters) == named


def test_a_letter_of_another_stage_is_no_answer() -> None:
    assert judged(RIGHT, [replace(refusal(4), stage="search-loader")]) == {"question lost"}


def test_what_a_scorer_does_is_read_back_as_right() -> None:
    world, model = ScoringWorld(), trained(1)
    world.release(1)
    for step in steps_of(plan_questions(days=1, generator=random.Random(13))[:150]):
        for record in step.records:
            world.write(record)
        world.tick(step.tick_us)

    world.run()
    world.close()

    verdict = judge_scores(MemoryReader(world.broker), product(), [(model.text, model.manifest)])
    assert verdict.violations == {}
    assert verdict.counts["questions"] == verdict.counts["scores"] + verdict.counts["letters"] == 150


def test_a_scorer_that_forgets_its_plan_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = ScoringWorld()
    world.release(1)
    world.ask("a", tick_before_us=DUE_US)
    world.run()
    world.release(2)
    monkeypatch.setattr(ScoreHandler, "_restored", ScoreHandler._restored)
    MUTANTS["plan-forgotten"].plant()
    world.rewind()

    world.run()
    world.close()

    assert [each.model.version for each in world.scores()] == [1, 2]
