from math import asin, cos, radians, sin, sqrt
from typing import Any

import msgspec
import polars as pl
import pytest

from domains.flights.contracts import FlightScheduled, WeatherObserved
from domains.flights.reference import ENRICHMENT, MISSING_AIRPORTS, FlightReference, load_reference
from headway.errors import ContractViolation, InputRejected


@pytest.fixture(scope="module")
def reference() -> FlightReference:
    return load_reference()


def scheduled(**fields: Any) -> FlightScheduled:
    usual = {
        "carrier": "UA",
        "flight": 1545,
        "tail": "N14228",
        "origin": "EWR",
        "dest": "IAH",
        "sched_dep": "2013-01-01T10:15:00Z",
        "sched_arr": "2013-01-01T14:19:00Z",
        "distance_mi": 1400,
    }
    return msgspec.convert({**usual, **fields}, FlightScheduled)


CALM = {
    "temp_f": None,
    "dewpoint_f": None,
    "humidity_pct": None,
    "wind_dir_deg": 0,
    "wind_speed_mph": 0.0,
    "wind_gust_mph": None,
    "precip_hundredths_in": 0,
    "pressure_mb": None,
    "visib_mi": 10.0,
}


def test_a_flight_learns_of_its_destination_airline_and_aircraft(reference: FlightReference) -> None:
    assert reference.enrich(scheduled()) == {
        "dest_lat": 29.984433,
        "dest_lon": -95.341442,
        "dest_tz": "America/Chicago",
        "airline_name": "United Air Lines Inc.",
        "plane_year": 1999,
        "plane_seats": 149,
    }


def test_the_airports_the_source_lacks_are_known(reference: FlightReference) -> None:
    assert reference.enrich(scheduled(dest="SJU"))["dest_tz"] == "America/Puerto_Rico"
    assert reference.enrich(scheduled(dest="STT"))["dest_tz"] == "America/St_Thomas"


@pytest.mark.parametrize(("tail", "year", "seats"), [("N3ALAA", None, None), (None, None, None), ("N53441", None, 191)])
def test_an_aircraft_nobody_knows_is_null(
    reference: FlightReference, tail: str | None, year: int | None, seats: int | None
) -> None:
    """Not in planes.csv; no tail number; in planes.csv without a year."""
    columns = reference.enrich(scheduled(tail=tail))

    assert (columns["plane_year"], columns["plane_seats"]) == (year, seats)


def test_weather_has_every_column_and_all_are_null(reference: FlightReference) -> None:
    columns = reference.enrich(msgspec.convert({"origin": "JFK", **CALM}, WeatherObserved))

    assert columns == dict.fromkeys(ENRICHMENT)


@pytest.mark.parametrize(("field", "value"), [("origin", "QQQ"), ("dest", "QQQ"), ("carrier", "ZZ")])
def test_an_unknown_airport_or_airline_is_refused_by_name(reference: FlightReference, field: str, value: str) -> None:
    frame = pl.DataFrame([{"origin": "EWR", "dest": "IAH", "carrier": "UA", "tail": "N14228", field: value}])

    with pytest.raises(InputRejected, match=f"{field}: got '{value}', wanted one of the"):
        reference.enrich(scheduled(**{field: value}))
    with pytest.raises(InputRejected, match=f"{field}: got '{value}', wanted one of the"):
        reference.enrich_frame(frame)


def test_weather_of_an_unknown_airport_is_refused(reference: FlightReference) -> None:
    with pytest.raises(InputRejected, match="origin: got 'QQQ'"):
        reference.enrich(msgspec.convert({"origin": "QQQ", **CALM}, WeatherObserved))


def test_a_body_of_another_domain_is_our_own_mistake(reference: FlightReference) -> None:
    class Parcel(msgspec.Struct):
        weight_g: int

    with pytest.raises(ContractViolation, match="Parcel"):
        reference.enrich(Parcel(weight_g=1))


def test_the_version_is_the_same_each_time(reference: FlightReference) -> None:
    assert load_reference().version == reference.version == "160a02752d327153"


@pytest.mark.parametrize(("code", "flown_from_jfk_mi"), [("BQN", 1576), ("PSE", 1617), ("SJU", 1598), ("STT", 1623)])
def test_supplied_coordinates_agree_with_the_flown_distance(
    reference: FlightReference, code: str, flown_from_jfk_mi: int
) -> None:
    """The source prints great-circle distances, so a swapped or mistyped coordinate would show."""
    here, there = reference.airports["JFK"], MISSING_AIRPORTS[code]
    lat1, lat2 = radians(here.lat), radians(there.lat)
    a = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin(radians(there.lon - here.lon) / 2) ** 2
    great_circle_mi = 2 * 3958.8 * asin(sqrt(a))

    assert great_circle_mi == pytest.approx(flown_from_jfk_mi, abs=5)
