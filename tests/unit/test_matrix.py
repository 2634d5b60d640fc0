"""Many vectors at once are the assembler's, to the bit."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import HOUR_US
from headway.errors import ContractViolation
from headway.matrix import matrix
from headway.vector import Assembler, Column

COLUMNS = (
    Column(name="hour", kind="number", source="hour"),
    Column(name="carrier", kind="category", source="carrier", categories=("B6", "UA")),
    Column(name="never", kind="category", source="carrier", categories=()),
    Column(name="origin_delay__count_1h", kind="count", source="count_1h", view="origin_delay.v1", default=19.0),
    Column(name="origin_delay__mean_1h", kind="number", source="mean_1h", view="origin_delay.v1"),
    Column(name="aircraft__seconds_since_last_24h", kind="age", source="last_at_24h", view="aircraft.v1"),
)
REQUEST: dict[str, pl.DataType | type[pl.DataType]] = {"hour": pl.Float64, "carrier": pl.String}
VIEWS: dict[str, dict[str, pl.DataType | type[pl.DataType]]] = {
    "origin_delay.v1": {"count_1h": pl.Int64, "mean_1h": pl.Float64},
    "aircraft.v1": {"last_at_24h": pl.Int64},
}
AS_OF_US = st.integers(0, 2**52)
ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(allow_nan=False),
        st.sampled_from(["B6", "UA", "ZZ", None]),
        st.none() | st.integers(0, 2**62),
        st.none() | st.floats(allow_nan=False),
        st.none() | AS_OF_US,
        AS_OF_US,
    ),
    max_size=8,
)


@given(ROWS)
def test_every_row_is_what_the_assembler_makes_of_it(rows: list[tuple[float | str | int | None, ...]]) -> None:
    hour, carrier, count, mean, last_at, as_of = (list(each) for each in zip(*rows, strict=True)) if rows else [[]] * 6
    request = pl.DataFrame({"hour": hour, "carrier": carrier}, schema=REQUEST)
    views = {
        "origin_delay.v1": pl.DataFrame({"count_1h": count, "mean_1h": mean}, schema=VIEWS["origin_delay.v1"]),
        "aircraft.v1": pl.DataFrame({"last_at_24h": last_at}, schema=VIEWS["aircraft.v1"]),
    }

    found = matrix(COLUMNS, request, views, np.array(as_of, dtype=np.int64))

    assembler = Assembler(COLUMNS)
    wanted = [
        assembler.assemble(r, {name: v.row(p) for name, v in views.items()}, as_of[p])
        for p, r in enumerate(request.iter_rows(named=True))
    ]
    assert found.tobytes() == np.array(wanted, dtype=np.float64).reshape(len(rows), len(COLUMNS)).tobytes()
    assert found.flags.c_contiguous


@pytest.mark.parametrize("lost", ["origin_delay.v1", "hour"])
def test_what_is_missing_is_an_error_not_a_default(lost: str) -> None:
    request = pl.DataFrame({"hour": [1.0], "carrier": ["UA"]}).drop(lost, strict=False)
    views = {name: pl.DataFrame(schema=schema).clear(1) for name, schema in VIEWS.items() if name != lost}

    with pytest.raises(ContractViolation, match=f"'{lost}' is missing"):
        matrix(COLUMNS, request, views, np.array([HOUR_US]))
