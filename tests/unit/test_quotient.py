"""A column over a number is what Python makes of each row."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from headway.quotient import quotient


@given(st.lists(st.integers(-(2**53), 2**53)), st.integers(1, 10**9))
def test_each_row_is_pythons_own_quotient(values: list[int], divisor: int) -> None:
    frame = pl.DataFrame({"value": values}, schema={"value": pl.Int64})

    found = frame.select(quotient(pl.col("value"), divisor)).to_series()

    assert found.to_list() == [value / divisor for value in values]


def test_the_minutes_of_an_hour_are_exact() -> None:
    """Three of them are not when Polars divides."""
    frame = pl.DataFrame({"minute": range(60)}, schema={"minute": pl.Int8})

    found = frame.select(quotient(pl.col("minute"), 60)).to_series()

    assert found.to_list() == [minute / 60 for minute in range(60)]
