"""What is vouched for in bulk, msgspec accepts; what it refuses is never vouched for."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.acceptance import accepted
from headway.errors import ContractViolation


class Ask(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    code: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]
    word: Annotated[str, msgspec.Meta(min_length=1, max_length=3)]
    tail: Annotated[str, msgspec.Meta(pattern="^N")] | None
    miles: Annotated[int, msgspec.Meta(ge=1, lt=10)]
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    step: Annotated[int, msgspec.Meta(multiple_of=5)] | None
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    as_of: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "code": pl.String,
    "word": pl.String,
    "tail": pl.String,
    "miles": pl.Int64,
    "share": pl.Float64,
    "step": pl.Int64,
    "at": pl.Datetime("us", "UTC"),
}
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
GOOD: dict[str, object] = {"code": "UA", "word": "abc", "tail": None, "miles": 9, "share": 1.0, "step": 10, "at": NOON}
TEXTS = st.sampled_from(["UA", "ua", "UAL", "", "N1", "é", "A\n", None])
ROW = st.fixed_dictionaries(
    {
        "code": TEXTS,
        "word": TEXTS,
        "tail": TEXTS,
        "miles": st.none() | st.integers(-1, 11),
        "share": st.none() | st.floats(-1, 2),
        "step": st.none() | st.integers(0, 11),
        "at": st.sampled_from([NOON, None]),
    }
)


def vouched(row: dict[str, object]) -> bool:
    found = pl.DataFrame([row], schema=SCHEMA).select(accepted(Ask).fill_null(value=False)).item()
    assert isinstance(found, bool)
    return found


@given(ROW)
def test_a_row_that_is_vouched_for_makes_a_request(row: dict[str, object]) -> None:
    if vouched(row):
        msgspec.convert(row, type=Ask)


@given(ROW)
def test_a_row_that_makes_a_request_is_vouched_for(row: dict[str, object]) -> None:
    """Else a batch would be right and slow; of a line break at the end the two differ, and slow is the safe side."""
    try:
        msgspec.convert(row, type=Ask)
    except msgspec.ValidationError:
        assert not vouched(row)
    else:
        assert vouched(row) or "\n" in str(row["code"])


def test_each_limit_is_the_types_own() -> None:
    assert vouched(GOOD)
    for changed in (
        {"code": "UAL"},
        {"word": "abcd"},
        {"word": ""},
        {"tail": "X1"},
        {"miles": 0},
        {"miles": 10},
        {"share": 0.0},
        {"share": 1.1},
        {"share": float("nan")},
        {"step": 7},
        {"at": None},
        {"miles": None},
    ):
        assert not vouched(GOOD | changed), changed


def test_a_type_that_no_column_has_is_refused_by_name() -> None:
    class Odd(msgspec.Struct):
        words: list[str]

    with pytest.raises(ContractViolation, match=r"Odd\.words"):
        accepted(Odd)
