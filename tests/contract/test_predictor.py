"""The native scorer against LightGBM's own ``Booster.predict``: equal bits on rows meant to hurt."""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.adapters.lightgbm import LightGbm, LightGbmScorer
from headway.errors import ContractViolation
from headway.training import Matrix
from headway.vector import Assembler, Column
from products.flight_delay.product import MODEL, REFERENCE_MODEL

if TYPE_CHECKING:
    import lightgbm

NUMBERS, CATEGORIES = 6, 3
FEATURES = NUMBERS + CATEGORIES
SPECS = {
    "ours": replace(MODEL, trees=60, min_rows_in_leaf=20),
    "reference": replace(REFERENCE_MODEL, trees=60),
}
NASTY = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    1e-35,
    1e308,
    -1e308,
    0.5,
    1.0,
    2.0**31,
    2.0**31 - 1,
    2.0**63,
    -1.0,
    1e10,
    7.999999999,
]


@cache
def training_rows() -> Matrix:
    generator = np.random.default_rng(20130701)
    numbers = generator.normal(0, 10, (4000, NUMBERS))
    numbers[generator.uniform(size=numbers.shape) < 0.1] = np.nan
    numbers[:, 0] = np.round(numbers[:, 0])
    codes = generator.integers(0, 40, (4000, CATEGORIES)).astype(np.float64)
    codes[generator.uniform(size=codes.shape) < 0.05] = np.nan
    logits = np.nan_to_num(numbers[:, 0]) / 5 + (np.nan_to_num(codes[:, 0]) % 3) - 2
    columns = [Column(name=f"n{i}", kind="number", source=f"n{i}") for i in range(NUMBERS)]
    columns += [Column(name=f"c{i}", kind="category", source=f"c{i}") for i in range(CATEGORIES)]
    return Matrix(
        assembler=Assembler(columns),
        x=np.hstack([numbers, codes]),
        labels=generator.uniform(size=4000) < 1 / (1 + np.exp(-logits)),
        window_us=np.arange(4000) * 1_000_000_000,
        days=np.arange(4000) // 100,
        slices={},
    )


@cache
def models(name: str) -> tuple[LightGbmScorer, "lightgbm.Booster"]:
    import lightgbm

    text = LightGbm().fit(training_rows(), SPECS[name])
    return LightGbmScorer(text), lightgbm.Booster(model_str=text.decode())


@pytest.mark.parametrize("name", sorted(SPECS))
@settings(max_examples=300, deadline=None)
@given(
    row=st.lists(
        st.one_of(st.sampled_from(NASTY), st.floats(), st.integers(0, 60).map(float)),
        min_size=FEATURES,
        max_size=FEATURES,
    )
)
def test_one_row_scores_as_the_booster_says_whatever_is_in_it(name: str, row: list[float]) -> None:
    scorer, booster = models(name)
    vector = np.array(row)

    wanted = booster.predict(vector.reshape(1, -1), num_threads=1)[0]

    assert scorer.score_row(vector) == wanted
    assert scorer.score(vector.reshape(1, -1))[0] == wanted


@pytest.mark.parametrize("name", sorted(SPECS))
@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.lists(
            st.one_of(st.sampled_from(NASTY), st.floats(), st.integers(0, 60).map(float)),
            min_size=FEATURES,
            max_size=FEATURES,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_a_batch_scores_as_the_booster_says_whatever_is_in_it(name: str, rows: list[list[float]]) -> None:
    scorer, booster = models(name)
    matrix = np.array(rows)

    wanted = np.asarray(booster.predict(matrix, num_threads=1))

    assert scorer.score(matrix).tobytes() == wanted.tobytes()
    assert np.array([scorer.score_row(row) for row in matrix]).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", sorted(SPECS))
def test_bulk_equals_row_by_row_equals_the_booster(name: str) -> None:
    scorer, booster = models(name)
    rows = training_rows().x

    bulk = scorer.score(rows)

    np.testing.assert_array_equal(bulk, booster.predict(rows, num_threads=2))
    np.testing.assert_array_equal(bulk, [scorer.score_row(row) for row in rows])


def test_a_slice_of_a_wider_matrix_is_scored_by_its_values_not_its_memory() -> None:
    scorer, _ = models("ours")
    wide = np.asfortranarray(np.hstack([training_rows().x[:50], np.zeros((50, 3))]))

    np.testing.assert_array_equal(scorer.score(wide[:, :FEATURES]), scorer.score(training_rows().x[:50]))


def test_a_vector_that_does_not_lie_in_one_piece_is_scored_by_its_values() -> None:
    scorer, booster = models("ours")
    rows = np.asfortranarray(training_rows().x[:50])

    strided = [scorer.score_row(row) for row in rows]
    backwards = [scorer.score_row(row[::-1]) for row in rows]

    np.testing.assert_array_equal(strided, booster.predict(rows, num_threads=1))
    np.testing.assert_array_equal(backwards, booster.predict(np.ascontiguousarray(rows[:, ::-1]), num_threads=1))


def test_threads_sharing_a_scorer_get_their_own_answers() -> None:
    scorer, _ = models("ours")
    rows = training_rows().x[:400]
    wanted = scorer.score(rows)
    found = np.empty((4, len(rows)))

    def score(worker: int) -> None:
        found[worker] = [scorer.score_row(row) for row in rows]

    workers = [threading.Thread(target=score, args=(n,)) for n in range(len(found))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    np.testing.assert_array_equal(found, np.tile(wanted, (len(found), 1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[0, :-1].copy(),
        lambda x: x[0].astype(np.float32),
        lambda x: x[0].astype(">f8"),
        lambda x: x[:1],
    ],
)
def test_a_vector_of_the_wrong_shape_or_type_is_refused_not_read_past_its_end(
    make: Callable[[np.ndarray], np.ndarray],
) -> None:
    scorer, _ = models("ours")

    with pytest.raises(ContractViolation, match="predict: got"):
        scorer.score_row(make(training_rows().x))


def test_a_matrix_of_the_wrong_width_is_refused() -> None:
    scorer, _ = models("ours")

    with pytest.raises(ContractViolation, match="wanted float64"):
        scorer.score(training_rows().x[:, :-1])


def test_no_rows_have_no_scores() -> None:
    assert models("ours")[0].score(np.empty((0, FEATURES))).shape == (0,)


@pytest.mark.parametrize("text", [b"", b"not a model", b"tree\nversion=v4\n"])
def test_what_is_no_model_is_refused(text: bytes) -> None:
    with pytest.raises(ContractViolation, match="LightGBM"):
        LightGbmScorer(text)


def test_scoring_imports_neither_pandas_nor_the_lightgbm_package() -> None:
    """A replica would pay 150 MB and 2 s for them."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from headway.adapters.lightgbm import LightGbmScorer\n"
        "LightGbmScorer(sys.stdin.buffer.read())\n"
        "print(sorted({'pandas', 'lightgbm', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    model = LightGbm().fit(training_rows(), SPECS["ours"])

    done = subprocess.run([sys.executable, "-c", code], input=model, capture_output=True, check=True)

    assert done.stdout.strip() == b"[]"
