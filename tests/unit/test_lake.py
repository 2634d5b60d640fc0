from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest

from domains.flights.domain import DOMAIN
from headway.errors import ContractViolation
from headway.events import Event
from headway.lake import INSTANT, TRANSPORT, LakeTable, Transport, as_table, events_table, streamed_rows

TRANSPORTED = Transport(
    topic="events.enriched",
    partition=3,
    offset=17,
    raw_partition=3,
    raw_offset=12,
    tick_before_us=1_357_034_400_000_000,
    too_late=False,
)
WEATHER = Event(
    id="weather/EWR/20130101T10",
    source=DOMAIN.source,
    type="weather.observed.v1",
    subject="EWR",
    time_us=1_357_034_400_000_000,
    data={"origin": "EWR", "visib_mi": 10, "temp_f": 39.92, "precip_hundredths_in": 0, "sched_dep": None},
    receivedat_us=1_357_034_400_250_000,
    collectorid="collector-0",
    requestid="r1",
    eventsize=512,
    enrichmentversion="v",
)


def test_the_events_table_has_envelope_body_enrichment_month_transport_in_this_order() -> None:
    names = list(events_table(DOMAIN).columns)

    assert names[:7] == ["id", "source", "type", "subject", "time", "planted", "enrichmentversion"]
    assert names[7:] == [*DOMAIN.columns, "month", *TRANSPORT]


def test_a_streamed_row_says_where_it_came_from() -> None:
    [row] = streamed_rows(DOMAIN, [(WEATHER, TRANSPORTED)]).rows(named=True)

    assert row["time"] == row["tick_before"] == datetime(2013, 1, 1, 10, tzinfo=UTC)
    assert (row["month"], row["visib_mi"], row["dep_delay_min"]) == ("2013-01", 10.0, None)
    assert (row["topic"], row["partition"], row["offset"]) == ("events.enriched", 3, 17)
    assert (row["raw_partition"], row["raw_offset"], row["too_late"]) == (3, 12, False)
    assert row["receivedat"] == datetime(2013, 1, 1, 10, 0, 0, 250_000, tzinfo=UTC)


def test_the_month_is_that_of_the_event_in_utc() -> None:
    late_on_new_years_eve = 1_357_018_200_000_000  # 05:30 UTC of 1 January is 00:30 in New York, 22:30 in Denver

    rows = streamed_rows(DOMAIN, [(msgspec.structs.replace(WEATHER, time_us=late_on_new_years_eve), TRANSPORTED)])

    assert rows["month"].to_list() == ["2013-01"]


def test_no_rows_still_have_the_schema() -> None:
    assert dict(streamed_rows(DOMAIN, []).schema) == dict(events_table(DOMAIN).columns)


def test_before_the_first_tick_there_is_none() -> None:
    rows = streamed_rows(DOMAIN, [(WEATHER, replace(TRANSPORTED, tick_before_us=None))])

    assert rows["tick_before"].to_list() == [None]


def test_as_table_orders_columns_and_fills_absent_ones_with_null() -> None:
    table = LakeTable(name="t", columns={"time": INSTANT, "n": pl.Int64(), "month": pl.String()})
    frame = pl.DataFrame({"time": [datetime(2013, 7, 1, tzinfo=UTC)]})

    assert as_table(frame, table).rows() == [(datetime(2013, 7, 1, tzinfo=UTC), None, "2013-07")]


def test_as_table_refuses_a_column_the_table_does_not_know() -> None:
    table = LakeTable(name="t", columns={"n": pl.Int64()})

    with pytest.raises(ContractViolation, match=r"lake table t: no column \['m'\]"):
        as_table(pl.DataFrame({"n": [1], "m": [2]}), table)


def test_a_partition_column_has_to_be_a_column() -> None:
    with pytest.raises(ContractViolation, match="month"):
        LakeTable(name="t", columns={"n": pl.Int64()}, partition_by=("month",))
