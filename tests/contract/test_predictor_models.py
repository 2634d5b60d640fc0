"""The native scorer over every kind of model it takes, at every edge of that model's trees: the bits of ``Booster.predict``."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.adapters.lightgbm import LightGbmScorer
from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.vector import Assembler, Column
from tests.adversarial_rows import adversarial_rows, edges, special_values

if TYPE_CHECKING:
    import lightgbm

NUMBERS, CATEGORIES, CODES = 6, 3, 40
FEATURES = NUMBERS + CATEGORIES
ROWS, GROUP = 4_000, 100
# What each kind has that the others have not: how missing values go, what a leaf holds, how trees add up, what comes out.
MODELS: Mapping[str, Mapping[str, Any]] = {
    "missing is NaN": {"objective": "binary"},
    "missing is zero": {"objective": "binary", "zero_as_missing": True},
    "nothing is missing": {"objective": "binary", "use_missing": False},
    "a category against the rest": {"objective": "binary", "max_cat_to_onehot": 100},
    "linear leaves": {"objective": "binary", "linear_tree": True, "linear_lambda": 0.01},
    "averaged trees": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
    "dropped trees": {"objective": "binary", "boosting": "dart"},
    "no tree that splits": {"objective": "binary", "min_data_in_leaf": ROWS},
    "a plain number": {"objective": "regression"},
    "a count": {"objective": "poisson"},
    "a share": {"objective": "cross_entropy"},
    "a rank": {"objective": "lambdarank"},
}
# What a text of a request may be instead of a category the model has seen.
TEXTS = (
    None,
    "",
    " ",
    "c1 ",
    "C1",
    "c01",
    "c\N{DIGIT ONE}\N{COMBINING DIAERESIS}",
    "c1\0",
    "c40",
    "-1",
    "nan",
    "x" * 100_000,
)
NAMES = tuple(f"c{code}" for code in range(CODES))


@cache
def trained(name: str) -> tuple[LightGbmScorer, "lightgbm.Booster"]:
    import lightgbm

    x, labels = ordinary(), outcomes()
    data = lightgbm.Dataset(
        x,
        labels,
        group=[GROUP] * (ROWS // GROUP) if name == "a rank" else None,
        categorical_feature=list(range(NUMBERS, FEATURES)),
        params={"verbose": -1},
    )
    fixed = {
        "num_leaves": 15,
        "min_data_in_leaf": 20,
        "seed": 7,
        "num_threads": 1,
        "deterministic": True,
        "verbose": -1,
    }
    text = lightgbm.train({**fixed, **MODELS[name]}, data, num_boost_round=30).model_to_string()
    return LightGbmScorer(text.encode()), lightgbm.Booster(model_str=text)


@cache
def ordinary() -> Floats:
    generator = np.random.default_rng(20130701)
    numbers = np.round(generator.normal(0, 10, (ROWS, NUMBERS)), 1)
    numbers[generator.uniform(size=numbers.shape) < 0.1] = np.nan
    numbers[generator.uniform(size=numbers.shape) < 0.1] = 0.0
    codes = generator.integers(0, CODES, (ROWS, CATEGORIES)).astype(np.float64)
    codes[generator.uniform(size=codes.shape) < 0.05] = np.nan
    return np.hstack([numbers, codes])


@cache
def outcomes() -> Floats:
    x = np.nan_to_num(ordinary())
    logits = x[:, 0] / 5 + x[:, 1] / 20 + (x[:, NUMBERS] % 3) + (x[:, NUMBERS + 1] > 20) - 2
    return (np.random.default_rng(1).uniform(size=ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float64)


@cache
def hurting(name: str) -> Floats:
    return adversarial_rows(trained(name)[1], ordinary())


def exact(booster: "lightgbm.Booster", rows: Floats) -> Floats:
    """What LightGBM itself says, one row at a time as a caller of its package would."""
    return np.asarray(booster.predict(rows, num_threads=1))


@pytest.mark.parametrize("name", MODELS)
def test_every_edge_and_every_special_value_scores_as_the_booster_says(name: str) -> None:
    scorer, booster = trained(name)
    rows = hurting(name)

    wanted = exact(booster, rows)

    assert scorer.score(rows).tobytes() == wanted.tobytes()
    assert np.array([scorer.score_row(row) for row in rows]).tobytes() == wanted.tobytes()


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)),
    row=st.lists(
        st.one_of(st.sampled_from(special_values()), st.floats(), st.integers(-2, 60).map(float)),
        min_size=FEATURES,
        max_size=FEATURES,
    ),
)
def test_values_meant_to_hurt_do_so_together_too(name: str, row: list[float]) -> None:
    scorer, booster = trained(name)
    vector = np.array(row)

    wanted = exact(booster, vector.reshape(1, -1))

    assert np.array([scorer.score_row(vector)]).tobytes() == wanted.tobytes()
    assert scorer.score(vector.reshape(1, -1)).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 4_095, 4_096, 4_097])
def test_a_row_scores_the_same_alone_and_among_thousands(count: int) -> None:
    scorer, _ = trained("missing is NaN")
    rows = np.resize(hurting("missing is NaN"), (count, FEATURES))

    alone = np.array([scorer.score_row(row) for row in rows], dtype=np.float64)

    assert scorer.score(rows).tobytes() == alone.tobytes()


def test_the_rows_have_every_special_value_in_every_place_and_every_edge_of_the_trees() -> None:
    rows = hurting("missing is NaN")

    for place in range(FEATURES):
        there = {value.tobytes() for value in rows[:, place]}
        assert {np.float64(value).tobytes() for value in special_values()} <= there, place
    decided = set(edges(trained("missing is NaN")[1]))
    assert len(decided) > 500
    assert {place for place, _ in decided} == set(range(FEATURES))


@pytest.mark.parametrize(
    "mistaken",
    [
        pytest.param(lambda x: x.astype(np.float32).astype(np.float64), id="a cast to float32"),
        pytest.param(lambda x: np.where(np.isnan(x), 0.0, x), id="missing is 0"),
        pytest.param(lambda x: np.where(np.isinf(x), np.nan, x), id="infinite is missing"),
        pytest.param(lambda x: np.nextafter(x, np.inf), id="the next number"),
        pytest.param(lambda x: np.hstack([x[:, :NUMBERS], np.rint(x[:, NUMBERS:])]), id="rounded codes"),
        pytest.param(lambda x: np.hstack([x[:, :NUMBERS], np.abs(x[:, NUMBERS:])]), id="codes without a sign"),
        pytest.param(lambda x: np.hstack([x[:, :NUMBERS], x[:, NUMBERS:] % 2**31]), id="codes that wrap"),
    ],
)
def test_the_rows_find_a_planted_mistake(mistaken: Callable[[Floats], Floats]) -> None:
    scorer, booster = trained("missing is NaN")
    rows = hurting("missing is NaN")

    with np.errstate(all="ignore"):
        changed = mistaken(rows)

    assert scorer.score(changed).tobytes() != exact(booster, rows).tobytes()


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.lists(st.none() | st.sampled_from(special_values()), min_size=NUMBERS, max_size=NUMBERS),
    texts=st.lists(
        st.sampled_from(NAMES) | st.sampled_from(TEXTS) | st.text(max_size=4), min_size=CATEGORIES, max_size=CATEGORIES
    ),
)
def test_a_text_scores_as_its_place_among_the_categories_or_as_missing(
    numbers: list[float | None], texts: list[str | None]
) -> None:
    columns = [Column(name=f"n{i}", kind="number", source=f"n{i}") for i in range(NUMBERS)]
    columns += [Column(name=f"c{i}", kind="category", source=f"c{i}", categories=NAMES) for i in range(CATEGORIES)]
    scorer, booster = trained("missing is NaN")
    request = {column.name: value for column, value in zip(columns, [*numbers, *texts], strict=True)}
    plain = [np.nan if value is None else value for value in numbers]
    plain += [float(NAMES.index(text)) if text in NAMES else np.nan for text in texts]

    vector = Assembler(columns).assemble(request, {}, as_of_us=0)

    assert np.array([scorer.score_row(vector)]).tobytes() == exact(booster, np.array([plain])).tobytes()


def test_a_model_with_several_scores_for_a_row_is_refused() -> None:
    """Its fast call writes them all, and there is room for one."""
    import lightgbm

    data = lightgbm.Dataset(ordinary(), np.arange(ROWS) % 3, params={"verbose": -1})
    booster = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, data, num_boost_round=1)

    with pytest.raises(ContractViolation, match="3 scores for a row, wanted one"):
        LightGbmScorer(booster.model_to_string().encode())
