from typing import Any

import msgspec
import pytest

from domains.flights.contracts import ARRIVED, FlightArrived, WeatherObserved
from domains.flights.domain import DOMAIN
from domains.flights.source import iter_events
from headway.clock import DAY_US, parse_instant_us

ARRIVAL = {
    "carrier": "UA",
    "flight": 1545,
    "tail": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep": "2013-01-01T10:15:00Z",
    "sched_arr": "2013-01-01T14:19:00Z",
    "distance_mi": 1400,
    "arr_delay_min": 11,
    "air_time_min": 227,
}


@pytest.mark.parametrize("day", ["2013-02-12", "2013-03-10", "2013-07-22", "2013-11-03"])
def test_every_event_of_a_hard_day_fits_its_contract(day: str) -> None:
    """The wild wind, both changes of clocks, and the day of the most diversions."""
    start_us = parse_instant_us(f"{day}T00:00:00Z", field="test")

    for event in iter_events(start_us, start_us + DAY_US):
        msgspec.convert(event.data, DOMAIN.contract(event.type).body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", "Newark"),
        ("dest", "iah"),
        ("carrier", "UAL"),
        ("arr_delay_min", 11.5),
        ("arr_delay_min", "11"),
        ("arr_delay_min", 60_000),
        ("air_time_min", 0),
        ("sched_dep", "2013-01-01T05:15:00"),
        ("gate", "C12"),
    ],
)
def test_a_body_that_breaks_the_contract_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({**ARRIVAL, field: value}, FlightArrived)


def test_a_schedule_that_runs_backwards_is_refused() -> None:
    """The mistake of reading the destination's local clock as an instant."""
    with pytest.raises(msgspec.ValidationError, match="wanted an instant after sched_dep"):
        msgspec.convert({**ARRIVAL, "sched_arr": "2013-01-01T09:19:00Z"}, FlightArrived)


def test_a_missing_tail_number_has_to_be_said() -> None:
    without = {name: value for name, value in ARRIVAL.items() if name != "tail"}

    assert msgspec.convert({**ARRIVAL, "tail": None}, FlightArrived).tail is None
    with pytest.raises(msgspec.ValidationError, match="tail"):
        msgspec.convert(without, FlightArrived)


def test_contracts_export_as_json_schema() -> None:
    schema = msgspec.json.schema(WeatherObserved)

    assert schema["$defs"]["WeatherObserved"]["properties"]["precip_hundredths_in"]["maximum"] == 2000


def test_a_view_waits_as_long_as_its_source_may_be_late() -> None:
    assert {v.qualified: v.lateness for v in DOMAIN.views} == {
        v.qualified: DOMAIN.contract(v.source).lateness for v in DOMAIN.views
    }
    assert DOMAIN.contract(ARRIVED).lateness.total_seconds() == 26 * 3600


def test_the_views_have_the_names_products_use() -> None:
    assert [v.qualified for v in DOMAIN.views] == [
        "origin_delay.v1",
        "origin_carrier_delay.v1",
        "dest_delay.v1",
        "aircraft_arrival.v1",
        "aircraft_departure.v1",
        "origin_cancellation.v1",
        "weather.v1",
    ]
