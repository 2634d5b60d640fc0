"""Hand-checked rows of the source: each instant below was worked out on paper from the printed local clocks."""

from collections import Counter
from datetime import UTC, datetime

import polars as pl
import pytest

from domains.flights.source import flights_table, weather_table


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return flights_table()


@pytest.fixture(scope="module")
def weather() -> pl.DataFrame:
    return weather_table()


def utc(month: int, day: int, hour: int, minute: int) -> datetime:
    return datetime(2013, month, day, hour, minute, tzinfo=UTC)


def instants(flights: pl.DataFrame, subject: str) -> list[datetime | None]:
    """Scheduled departure, departure, scheduled arrival, arrival."""
    [row] = flights.filter(pl.col("subject") == subject).iter_rows(named=True)
    return [row["sched_dep"], row["departed"], row["sched_arr"], row["arrived"]]


HAND_CHECKED = {
    # 7 February, 23:59, 1 min late: dep_time 2400; Puerto Rico is UTC-4 all year: 04:36, 4 min early.
    "20130208T0459-B6727-JFK": [utc(2, 8, 4, 59), utc(2, 8, 5, 0), utc(2, 8, 8, 36), utc(2, 8, 8, 32)],
    # 1 January to Raleigh: due 23:37, 23 min late: arr_time 2400.
    "20130102T0255-B61109-JFK": [utc(1, 2, 2, 55), utc(1, 2, 3, 9), utc(1, 2, 4, 37), utc(1, 2, 5, 0)],
    # 1 July, 20:29 to San Juan, same clock as New York in summer: due 00:27 of the next day.
    "20130702T0029-UA1244-EWR": [utc(7, 2, 0, 29), utc(7, 2, 1, 0), utc(7, 2, 4, 27), utc(7, 2, 4, 42)],
    # 1 July, 20:01 to Los Angeles, left 00:48 of the next day, due 23:05 of the same day, there at 03:08.
    "20130702T0001-VX415-JFK": [utc(7, 2, 0, 1), utc(7, 2, 4, 48), utc(7, 2, 6, 5), utc(7, 2, 10, 8)],
    # 9 March, 21:28 EST to Denver: due 23:55 MST, 53 min late; New York's clocks jump at 07:00 UTC, on the way.
    "20130310T0228-B697-JFK": [utc(3, 10, 2, 28), utc(3, 10, 3, 44), utc(3, 10, 6, 55), utc(3, 10, 7, 48)],
    # 9 March to Palm Beach: due 00:34 EST, 89 min late = 03:03 EDT. The file prints 203, an hour that never was.
    "20130310T0245-B635-JFK": [utc(3, 10, 2, 45), utc(3, 10, 4, 6), utc(3, 10, 5, 34), utc(3, 10, 7, 3)],
    # 10 March, 06:55 EDT to Los Angeles, 10:15 PDT.
    "20130310T1055-UA387-EWR": [utc(3, 10, 10, 55), utc(3, 10, 10, 52), utc(3, 10, 17, 15), utc(3, 10, 16, 53)],
    # 11 March, 06:30 EDT to Phoenix, which keeps UTC-7: 09:19.
    "20130311T1030-US654-JFK": [utc(3, 11, 10, 30), utc(3, 11, 10, 27), utc(3, 11, 16, 19), utc(3, 11, 15, 48)],
    # 2 November, 16:55 EDT to Los Angeles: due 20:15 PDT, 299 min late = 01:14, the first of the two 01:14 there.
    "20131102T2055-VX413-JFK": [utc(11, 2, 20, 55), utc(11, 3, 2, 17), utc(11, 3, 3, 15), utc(11, 3, 8, 14)],
    # 2 November, 23:59 EDT to Ponce: in the air while New York repeats 01:00 to 02:00; due 03:45 at UTC-4.
    "20131103T0359-B6745-JFK": [utc(11, 3, 3, 59), utc(11, 3, 3, 46), utc(11, 3, 7, 45), utc(11, 3, 7, 53)],
    # 3 November, 05:20 EST to Houston, 08:00 CST.
    "20131103T1020-UA322-EWR": [utc(11, 3, 10, 20), utc(11, 3, 10, 19), utc(11, 3, 14, 0), utc(11, 3, 13, 51)],
    # San Juan in winter is an hour ahead of New York: 06:15 EST, due 11:00 AST.
    "20130101T1115-B6709-JFK": [utc(1, 1, 11, 15), utc(1, 1, 11, 15), utc(1, 1, 15, 0), utc(1, 1, 14, 39)],
    # St Thomas: 08:10 EST, due 13:15 AST.
    "20130101T1310-AA655-JFK": [utc(1, 1, 13, 10), utc(1, 1, 14, 9), utc(1, 1, 17, 15), utc(1, 1, 17, 31)],
    # Honolulu, UTC-10: 09:00 EST, due 15:30.
    "20130101T1400-HA51-JFK": [utc(1, 1, 14, 0), utc(1, 1, 13, 57), utc(1, 2, 1, 30), utc(1, 2, 1, 16)],
    # Cancelled: never left.
    "20130101T1100-B6125-JFK": [utc(1, 1, 11, 0), None, utc(1, 1, 14, 1), None],
    # Cancelled, no tail number: 2 January, 15:45 EST, due 19:10 PST.
    "20130102T2045-AA133-JFK": [utc(1, 2, 20, 45), None, utc(1, 3, 3, 10), None],
    # Diverted, with an arr_time (2002, elsewhere): due 16:47 CST.
    "20130101T1959-EV3806-EWR": [utc(1, 1, 19, 59), utc(1, 1, 20, 28), utc(1, 1, 22, 47), None],
    # Diverted, no arr_time: 1 January, 19:30 EST, due 22:20 CST.
    "20130102T0030-EV4204-EWR": [utc(1, 2, 0, 30), utc(1, 2, 1, 16), utc(1, 2, 4, 20), None],
}


@pytest.mark.parametrize("subject", HAND_CHECKED)
def test_a_hand_checked_flight_has_the_instants_worked_out_on_paper(flights: pl.DataFrame, subject: str) -> None:
    assert instants(flights, subject) == HAND_CHECKED[subject]


def test_the_year_has_the_known_number_of_flights_of_each_outcome(flights: pl.DataFrame) -> None:
    assert flights.height == 336_776
    assert Counter(flights["outcome"]) == {"arrived": 327_346, "cancelled": 8_255, "diverted": 1_175}
    assert flights["tail"].null_count() == 2_512


def test_a_flight_without_a_tail_number_was_cancelled(flights: pl.DataFrame) -> None:
    assert set(flights.filter(pl.col("tail").is_null())["outcome"]) == {"cancelled"}


def test_every_flight_has_its_own_subject(flights: pl.DataFrame) -> None:
    assert flights["subject"].n_unique() == flights.height


def test_every_schedule_runs_forward_by_a_plausible_block_time(flights: pl.DataFrame) -> None:
    """A wrong day or zone would show as a block time off by an hour or a day."""
    block_min = (flights["sched_arr"] - flights["sched_dep"]).dt.total_minutes()

    assert (block_min.min(), block_min.max()) == (50, 700)


def test_time_on_the_ground_is_never_negative(flights: pl.DataFrame) -> None:
    """Actual block time minus time in the air is taxiing; the printed arrival clocks are not needed to see this."""
    flown = flights.filter(pl.col("outcome") == "arrived")
    taxi_min = (flown["arrived"] - flown["departed"]).dt.total_minutes() - flown["air_time_min"]

    assert (taxi_min.min(), taxi_min.max()) == (5, 235)


def test_the_repeated_hour_of_november_gives_two_observations_per_airport(weather: pl.DataFrame) -> None:
    night = weather.filter(pl.col("time").is_between(utc(11, 3, 5, 0), utc(11, 3, 6, 0))).sort("origin", "time")

    assert night.select("origin", "time", "temp_f").rows() == [
        ("EWR", utc(11, 3, 5, 0), 51.98),
        ("EWR", utc(11, 3, 6, 0), 50.0),
        ("JFK", utc(11, 3, 5, 0), 53.96),
        ("JFK", utc(11, 3, 6, 0), 51.98),
        ("LGA", utc(11, 3, 5, 0), 55.04),
        ("LGA", utc(11, 3, 6, 0), 53.96),
    ]


def test_weather_is_one_row_per_airport_and_hour(weather: pl.DataFrame) -> None:
    assert weather.height == 26_115
    assert not weather.select("origin", "time").is_duplicated().any()


def test_the_impossible_wind_is_missing_and_no_other(weather: pl.DataFrame) -> None:
    """1,048 mph at Newark on 12 February; four more hours have no wind speed in the file."""
    [row] = weather.filter((pl.col("origin") == "EWR") & (pl.col("time") == utc(2, 12, 8, 0))).rows(named=True)

    assert row["wind_speed_mph"] is None
    assert row["wind_dir_deg"] == 260
    assert weather["wind_speed_mph"].null_count() == 5


def test_rain_is_whole_hundredths_of_an_inch(weather: pl.DataFrame) -> None:
    assert weather["precip_hundredths_in"].max() == 121
    assert weather["precip_hundredths_in"].dtype == pl.Int64()
