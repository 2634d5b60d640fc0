from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest

from domains.flights.contracts import DIVERTED, WEATHER
from domains.flights.domain import DOMAIN
from domains.flights.reference import FlightReference, load_reference
from domains.flights.source import events_between, iter_events
from headway.clock import HOUR_US, parse_instant_us
from headway.errors import InputRejected
from headway.events import Event, encode_event, parse_event
from headway.lake import TRANSPORT, Transport, events_table, streamed_rows


def at(text: str) -> int:
    return parse_instant_us(text, field="test")


YEAR = (at("2012-12-31T00:00:00Z"), at("2014-01-02T00:00:00Z"))
# The night the clocks go back, and the day around it.
NOVEMBER = (at("2013-11-02T12:00:00Z"), at("2013-11-03T20:00:00Z"))


@pytest.fixture(scope="module")
def year() -> pl.DataFrame:
    return events_between(*YEAR)


@pytest.fixture(scope="module")
def november() -> list[Event]:
    return list(iter_events(*NOVEMBER))


@pytest.fixture(scope="module")
def reference() -> FlightReference:
    return load_reference()


def enriched(event: Event, reference: FlightReference) -> Event:
    """What the enricher does to one event, reduced to its meaning."""
    body = msgspec.convert(event.data, DOMAIN.contract(event.type).body)
    data = {**event.data, **reference.enrich(body)}
    return msgspec.structs.replace(event, data=data, enrichmentversion=reference.version)


def test_the_year_has_the_known_number_of_events_of_each_type(year: pl.DataFrame) -> None:
    assert Counter(year["type"]) == {
        "flight.scheduled.v1": 336_776,
        "flight.departed.v1": 328_521,
        "flight.arrived.v1": 327_346,
        "flight.cancelled.v1": 8_255,
        "flight.diverted.v1": 1_175,
        "weather.observed.v1": 26_115,
    }
    assert year.height == 1_028_188


def test_every_event_has_its_own_id(year: pl.DataFrame) -> None:
    assert year["id"].n_unique() == year.height


def test_events_come_in_order_of_time_and_id(year: pl.DataFrame) -> None:
    assert year.select("time", "id").equals(year.select("time", "id").sort("time", "id"))


def test_bulk_rows_have_the_lake_schema_and_no_transport(year: pl.DataFrame) -> None:
    assert dict(year.schema) == dict(events_table(DOMAIN).columns)
    assert all(year[name].null_count() == year.height for name in TRANSPORT)


def test_bulk_and_stream_give_the_same_rows(november: list[Event], reference: FlightReference) -> None:
    """Through the wire format, the typed body and the row-wise enrichment; every column but transport, all six types."""
    transport = Transport(
        topic="events.enriched",
        partition=0,
        offset=0,
        raw_partition=0,
        raw_offset=0,
        tick_before_us=None,
        too_late=False,
    )
    sent = [enriched(parse_event(encode_event(event)), reference) for event in november]
    rows = streamed_rows(DOMAIN, [(event, replace(transport, offset=n)) for n, event in enumerate(sent)])

    assert rows.drop(TRANSPORT).equals(events_between(*NOVEMBER).drop(TRANSPORT))
    assert {event.type for event in sent} == {contract.event_type for contract in DOMAIN.contracts}


def test_the_events_of_a_flight_share_its_subject_and_are_named_by_kind(year: pl.DataFrame) -> None:
    flight = year.filter(pl.col("subject") == "20130702T0001-VX415-JFK")

    assert flight["id"].to_list() == [
        "20130702T0001-VX415-JFK/scheduled",
        "20130702T0001-VX415-JFK/departed",
        "20130702T0001-VX415-JFK/arrived",
    ]


def test_a_flight_is_announced_24_hours_ahead_across_the_change_of_clocks(year: pl.DataFrame) -> None:
    """05:20 EST is announced at 06:20 EDT: a day of 24 hours, not of one New York date."""
    announced = year.filter(pl.col("id") == "20131103T1020-UA322-EWR/scheduled")

    assert announced["time"].to_list() == [datetime(2013, 11, 2, 10, 20, tzinfo=UTC)]


def test_a_weather_event_is_named_by_airport_and_utc_hour(november: list[Event]) -> None:
    ids = [e.id for e in november if e.type == WEATHER and e.subject == "EWR"]

    assert {"weather/EWR/20131103T05", "weather/EWR/20131103T06"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_a_diverted_flight_is_known_at_its_scheduled_arrival() -> None:
    [event] = [
        e
        for e in iter_events(at("2013-01-01T22:47:00Z"), at("2013-01-01T22:47:00Z") + 1)
        if e.type == DIVERTED and e.subject == "20130101T1959-EV3806-EWR"
    ]

    assert event.data == {
        "carrier": "EV",
        "flight": 3806,
        "tail": "N17108",
        "origin": "EWR",
        "dest": "STL",
        "sched_dep": "2013-01-01T19:59:00Z",
        "sched_arr": "2013-01-01T22:47:00Z",
        "distance_mi": 872,
    }


def test_neighbouring_intervals_share_no_event_and_miss_none() -> None:
    start, middle, end = (at(f"2013-07-01T{hour}:00:00Z") for hour in ("10", "12", "14"))
    halves = [*iter_events(start, middle), *iter_events(middle, end)]

    assert halves == list(iter_events(start, end))


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(InputRejected, match="wanted start before end"):
        events_between(HOUR_US, HOUR_US)
