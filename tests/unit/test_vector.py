import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import HOUR_US
from headway.errors import ContractViolation
from headway.vector import Assembler, Column, RequestValues

COLUMNS = (
    Column(name="hour", kind="number", source="hour"),
    Column(name="carrier", kind="category", source="carrier", categories=("B6", "UA")),
    Column(name="origin_delay__count_1h", kind="count", source="count_1h", view="origin_delay.v1", default=19.0),
    Column(name="origin_delay__mean_1h", kind="number", source="mean_1h", view="origin_delay.v1"),
    Column(name="aircraft__seconds_since_last_24h", kind="age", source="last_at_24h", view="aircraft.v1"),
)
AS_OF_US = 100 * HOUR_US
REQUEST: RequestValues = {"hour": 8.5, "carrier": "UA"}
VIEWS = {"origin_delay.v1": (3, 4.5), "aircraft.v1": (99 * HOUR_US,)}


def test_the_vector_is_contiguous_float64_in_the_order_of_the_columns() -> None:
    vector = Assembler(COLUMNS).assemble(REQUEST, VIEWS, AS_OF_US)

    assert vector.tolist() == [8.5, 1.0, 3.0, 4.5, 3600.0]
    assert vector.dtype == np.float64
    assert vector.flags.c_contiguous


@pytest.mark.parametrize("carrier", ["ZZ", "", None])
def test_an_unknown_category_is_missing_not_a_guess(carrier: str | None) -> None:
    vector = Assembler(COLUMNS).assemble({"hour": 1.0, "carrier": carrier}, VIEWS, AS_OF_US)

    assert math.isnan(vector[1])


def test_an_empty_window_counts_zero_and_knows_nothing_else() -> None:
    vector = Assembler(COLUMNS).assemble(REQUEST, {"origin_delay.v1": (None, None), "aircraft.v1": (None,)}, AS_OF_US)

    assert vector[2] == 0.0
    assert np.isnan(vector[3:]).all()


def test_an_unavailable_view_gets_its_declared_defaults() -> None:
    vector = Assembler(COLUMNS).assemble(REQUEST, {"origin_delay.v1": None, "aircraft.v1": (0,)}, AS_OF_US)

    assert vector[2] == 19.0
    assert math.isnan(vector[3])


def test_an_outage_of_a_matrix_is_the_outage_of_each_row() -> None:
    assembler = Assembler(COLUMNS)
    whole = assembler.assemble(REQUEST, VIEWS, AS_OF_US)
    without = assembler.assemble(REQUEST, VIEWS | {"origin_delay.v1": None}, AS_OF_US)

    found = assembler.outage(np.array([whole, whole]), "origin_delay.v1")

    np.testing.assert_array_equal(found, [without, without])


@given(
    st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    st.one_of(st.none(), st.integers(0, 2**40)),
)
def test_numbers_pass_unchanged(mean: float | None, hour: int | None) -> None:
    vector = Assembler(COLUMNS).assemble(
        {"hour": hour, "carrier": "B6"}, VIEWS | {"origin_delay.v1": (0, mean)}, AS_OF_US
    )

    np.testing.assert_array_equal(vector[[0, 3]], np.array([hour, mean], dtype=np.float64))


_HOURS = st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60))
_ROWS = st.tuples(
    st.fixed_dictionaries({"hour": _HOURS, "carrier": st.sampled_from(["UA", "B6", "ZZ", "", None])}),
    st.fixed_dictionaries(
        {
            "origin_delay.v1": st.one_of(st.none(), st.tuples(st.one_of(st.none(), st.integers(0, 99)), _HOURS)),
            "aircraft.v1": st.one_of(st.none(), st.tuples(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)))),
        }
    ),
    st.integers(0, 2**52),
)


@given(st.lists(_ROWS, max_size=5))
def test_a_matrix_is_its_rows_to_the_bit(
    asked: list[tuple[RequestValues, dict[str, tuple[float | None, ...] | None], int]],
) -> None:
    assembler = Assembler(COLUMNS)

    found = assembler.matrix(asked)

    assert found.shape == (len(asked), len(COLUMNS))
    wanted = np.array([assembler.assemble(*each) for each in asked], dtype=np.float64).reshape(found.shape)
    assert found.tobytes() == wanted.tobytes()
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("views", "named"),
    [
        ({"origin_delay.v1": (1, 2.0)}, r"'aircraft\.v1' is missing"),
        ({"origin_delay.v1": (1,), "aircraft.v1": (0,)}, "1 values, wanted 2"),
    ],
)
def test_a_matrix_refuses_what_its_rows_would(views: dict[str, tuple[float, ...]], named: str) -> None:
    with pytest.raises(ContractViolation, match=named):
        Assembler(COLUMNS).matrix([(REQUEST, VIEWS, AS_OF_US), (REQUEST, views, AS_OF_US)])


def test_a_view_nobody_read_is_an_error_not_a_default() -> None:
    with pytest.raises(ContractViolation, match=r"'aircraft\.v1' is missing"):
        Assembler(COLUMNS).assemble(REQUEST, {"origin_delay.v1": (1, 2.0)}, AS_OF_US)


def test_a_view_with_another_number_of_values_is_refused() -> None:
    with pytest.raises(ContractViolation, match=r"origin_delay\.v1 has 1 values, wanted 2"):
        Assembler(COLUMNS).assemble(REQUEST, VIEWS | {"origin_delay.v1": (1,)}, AS_OF_US)


def test_columns_of_one_view_stand_together() -> None:
    with pytest.raises(ContractViolation, match="view by view"):
        Assembler((COLUMNS[2], COLUMNS[4], COLUMNS[3]))
