"""The cache of scores: exact, bounded, counted, and never between a model and its proof."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.prediction_cache import PredictionCache
from tests.prediction_world import AS_OF, Service
from tests.serving_world import flight, trained

NAN = float("nan")


@dataclass
class Scorer:
    """Gives every vector it is asked for a score of its own, and keeps what it was asked."""

    asked: list[bytes] = field(default_factory=list)

    def score_row(self, vector: Floats) -> float:
        self.asked.append(vector.tobytes())
        return hash(vector.tobytes()) / 2**64

    def score(self, matrix: Floats) -> Floats:
        return np.array([self.score_row(row) for row in matrix])


class World:
    def __init__(self, entries: int) -> None:
        self.scorer = Scorer()
        self.counted: Counter[str] = Counter()
        self.cache = PredictionCache(self.scorer, entries=entries, hit=self._add("hit"), missed=self._add("miss"))

    def _add(self, name: str) -> Callable[[float], None]:
        def add(rows: float) -> None:
            self.counted[name] += int(rows)

        return add


def vector(*values: float) -> Floats:
    return np.array(values)


def test_the_same_vector_is_scored_once() -> None:
    world = World(4)

    scores = [world.cache.score_row(vector(1.0, NAN)) for _ in range(3)]

    assert (len(set(scores)), len(world.scorer.asked), world.counted) == (1, 1, Counter(hit=2, miss=1))


@pytest.mark.parametrize("other", [vector(-0.0, 1.0), vector(5e-324, 1.0), vector(0.0, np.nextafter(1.0, 2.0))])
def test_vectors_that_differ_in_one_bit_are_different(other: Floats) -> None:
    world = World(4)

    world.cache.score_row(vector(0.0, 1.0))
    world.cache.score_row(other)

    assert world.counted == Counter(miss=2)


def test_the_vector_asked_for_longest_ago_makes_room() -> None:
    world = World(2)
    one, two, three = vector(1.0), vector(2.0), vector(3.0)

    for each in (one, two, one, three, one, two):
        world.cache.score_row(each)

    assert len(world.cache) == 2
    assert world.counted == Counter(hit=2, miss=4)


@given(
    st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, NAN]), min_size=2, max_size=2), max_size=12), st.integers(1, 3)
)
def test_a_batch_is_answered_as_row_by_row_and_each_new_vector_is_scored_once(
    rows: list[list[float]], entries: int
) -> None:
    world = World(entries)
    matrix = np.array(rows, dtype=np.float64).reshape(-1, 2)

    scores = world.cache.score(matrix)

    np.testing.assert_array_equal(scores, Scorer().score(matrix))
    assert len(world.scorer.asked) == len({row.tobytes() for row in matrix})
    assert world.counted.total() == len(rows)
    assert len(world.cache) <= entries


def test_no_entries_are_refused() -> None:
    with pytest.raises(ContractViolation, match="got 0 entries"):
        World(0)


def test_every_answer_from_the_cache_has_its_own_receipt_and_record() -> None:
    service = Service(cache_entries=8)

    answers = [service.predict(flight(as_of=AS_OF), headway_receipt=f"r-{n}").json() for n in range(3)]

    assert len({answer["probability"] for answer in answers}) == 1
    assert [p.receipt for p in service.logged()] == ["r-0", "r-1", "r-2"]
    assert service.metric('headway_prediction_cache_lookups_total{outcome="hit"') == 2
    assert service.metric('headway_prediction_cache_lookups_total{outcome="miss"') == 1


def test_a_cache_is_off_unless_it_is_asked_for() -> None:
    service = Service()

    for _ in range(2):
        service.predict(flight(as_of=AS_OF))

    assert service.metric('headway_prediction_cache_lookups_total{outcome="hit"') == 0
    assert service.metric('headway_prediction_cache_lookups_total{outcome="miss"') == 0


def test_a_model_is_proven_past_the_cache() -> None:
    """Else a replica whose model went wrong would prove itself with what it remembers."""
    predictor = trained(1).predictor()
    worlds: list[World] = []

    def wrap(_: object) -> PredictionCache:
        worlds.append(World(8))
        return worlds[0].cache

    predictor.answer_through(wrap)
    predictor.prove()

    assert worlds[0].counted == Counter()
