"""The prediction log's records and rows: nothing is lost between the answer and the judge of parity."""

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.clock import parse_instant_us
from headway.errors import ContractViolation
from headway.lake import as_table
from headway.ports import Message
from headway.predictions import (
    ModelId,
    Prediction,
    ServedView,
    decode_prediction,
    encode_prediction,
    logged_views,
    prediction_record,
    prediction_rows,
    predictions_in,
    predictions_table,
)
from products.catalogue import find_product
from tests.unlogged import unlogged_rows

AS_OF_US = parse_instant_us("2013-07-01T14:00:00Z", field="as_of")
VIEW = find_product("flight_delay").feature_views["origin_delay.v1"]
USED = ("count_1h", "mean_dep_delay_min_1h")
NUMBERS = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False, width=64))


def served(**changes: object) -> ServedView:
    view = ServedView(
        view=VIEW.qualified,
        key={"origin": "EWR"},
        features=USED,
        values=(3, 0.1 + 0.2),
        row_time_us=AS_OF_US - 5,
        watermark_us=AS_OF_US,
    )
    return msgspec.structs.replace(view, **changes)


def prediction(*views: ServedView, receipt: str = "r1") -> Prediction:
    return Prediction(
        receipt=receipt,
        product="flight_delay",
        as_of_us=AS_OF_US,
        requested_at_us=AS_OF_US + 7,
        model=ModelId(name="flight_delay", version=2, digest="d"),
        reference_version="ref",
        request=msgspec.Raw(b'{"carrier":"UA"}'),
        views=views,
        probability=1 / 3,
        degraded=False,
        stale=(VIEW.qualified,),
        source="request",
    )


def message(each: Prediction, offset: int) -> Message:
    record = prediction_record(each)
    return Message(record.topic, 1, offset, record.key, record.value, record.headers, 0)


@given(st.lists(NUMBERS, max_size=6).map(tuple))
def test_a_record_keeps_every_bit_of_every_value(values: tuple[int | float | None, ...]) -> None:
    sent = prediction(served(features=tuple(map(str, range(len(values)))), values=values))

    found = decode_prediction(encode_prediction(sent))

    assert found == sent
    assert [type(v) for v in found.views[0].values or ()] == [type(v) for v in values]


def test_rows_carry_their_place_in_the_log_and_give_the_predictions_back() -> None:
    sent = [prediction(served()), prediction(served(key=None), receipt="r2")]

    rows = prediction_rows([message(each, offset) for offset, each in enumerate(sent)])

    assert rows.select("topic", "partition", "offset", "month").rows() == [
        ("predictions.flight_delay", 1, 0, "2013-07"),
        ("predictions.flight_delay", 1, 1, "2013-07"),
    ]
    assert predictions_in(rows) == sent


def test_rows_fit_the_lakes_table() -> None:
    table = predictions_table("flight_delay")

    rows = unlogged_rows([prediction(served())])

    assert as_table(rows, table).schema == rows.schema == pl.Schema(table.columns)
    assert all(rows[name].null_count() == 0 for name in table.required)


def test_a_record_is_keyed_by_its_receipt() -> None:
    assert prediction_record(prediction()).key == b"r1"


def test_logged_views_are_typed_and_read_a_null_count_as_none_happened() -> None:
    rows = unlogged_rows([prediction(served(values=(None, None)))])

    [frame] = logged_views(rows, VIEW)

    assert frame.rows() == [("r1", AS_OF_US, AS_OF_US, "EWR", 0, None)]
    assert frame.schema == {
        "receipt": pl.String(),
        "as_of_us": pl.Int64(),
        "served_watermark_us": pl.Int64(),
        "origin": pl.String(),
        "count_1h": pl.Int64(),
        "mean_dep_delay_min_1h": pl.Float64(),
    }


@pytest.mark.parametrize("part", [{"key": None}, {"values": None}, {"watermark_us": None}, {"view": "other.v1"}])
def test_what_nobody_can_recompute_is_not_among_the_logged_views(part: dict[str, object]) -> None:
    assert logged_views(unlogged_rows([prediction(served(**part))]), VIEW) == []


def test_model_versions_with_other_features_give_frames_of_their_own() -> None:
    narrow = prediction(served(features=("count_1h",), values=(1,)), receipt="r2")

    frames = logged_views(unlogged_rows([prediction(served()), narrow]), VIEW)

    assert [frame["receipt"].to_list() for frame in frames] == [["r1"], ["r2"]]


def test_a_record_somebody_else_wrote_is_refused() -> None:
    with pytest.raises(ContractViolation, match="only Headway writes"):
        decode_prediction(b'{"receipt": "r"}')
