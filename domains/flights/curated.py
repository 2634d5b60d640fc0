"""Flights and weather as tables for analysis, and delays by airline, airport and week as a report over them.

A flight is what its newest events say, as labels have it: of several events of one type the last in the log counts, history
in bulk before any of it. The partition is the day (UTC) of the scheduled departure, which every event of a flight carries;
``local_day`` is what people call its day, and what weeks are made of.
"""

from datetime import timedelta

import polars as pl

from domains.flights.contracts import (
    ARRIVED,
    CANCELLED,
    DEPARTED,
    DIVERTED,
    LATE_MIN,
    NEW_YORK,
    OWNER,
    SCHEDULED,
    WEATHER,
    WeatherObserved,
)
from headway.contracts import struct_columns
from headway.lake import INSTANT, POLARS_TYPES
from headway.meanings import meanings
from headway.warehouse import CuratedTable, Drawn, Report, WarehouseColumn

_FLIGHT = ("carrier", "flight", "tail", "origin", "dest", "sched_dep", "sched_arr", "distance_mi")
_OUTCOMES = {ARRIVED: "arrived", CANCELLED: "cancelled", DIVERTED: "diverted"}
# The order in which events were written; what is equal by its place in the log was not streamed.
_WRITTEN = ("offset", "time", "source", "id")


def flight_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return one row per flight, with schedule, departure, arrival and outcome as far as the events tell."""
    column, ordered = pl.col, events.sort(*_WRITTEN, nulls_last=False)
    known = _last(ordered).select("subject", *_FLIGHT)
    departed = _last(ordered.filter(column("type") == DEPARTED)).select(
        "subject", column("time").alias("departed"), "dep_delay_min"
    )
    ended = _last(ordered.filter(column("type").is_in(list(_OUTCOMES))))
    ended = ended.select(
        "subject",
        column("type").replace_strict(_OUTCOMES, return_dtype=pl.String).alias("outcome"),
        column("time").alias("outcome_at"),
        "arr_delay_min",
        "air_time_min",
        "planted",
    )
    flights = known.join(departed, on="subject", how="left").join(ended, on="subject", how="left")
    rows = flights.with_columns(
        column("outcome").fill_null("unknown"),
        (column("arr_delay_min") > LATE_MIN).alias("late"),
        column("sched_dep").dt.convert_time_zone(NEW_YORK).dt.date().alias("local_day"),
    )
    return rows.select(list(FLIGHTS.columns))


def weather_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return one row per airport and hour; of several reports of an hour the last."""
    ordered = events.sort(*_WRITTEN, nulls_last=False)
    return ordered.unique(["origin", "time"], keep="last", maintain_order=True).select(list(WEATHER_HOURS.columns))


def _last(ordered: pl.DataFrame) -> pl.DataFrame:
    return ordered.unique("subject", keep="last", maintain_order=True)


def _column(dtype: pl.DataType, description: str, *sources: str, unit: str | None = None) -> WarehouseColumn:
    return WarehouseColumn(dtype=dtype, description=description, unit=unit, sources=sources)


_TEXT, _COUNT, _SHARE = pl.String(), pl.Int64(), pl.Float64()

FLIGHTS = CuratedTable(
    name="flights",
    thing="flight",
    event_types=(SCHEDULED, DEPARTED, ARRIVED, CANCELLED, DIVERTED),
    keys=("subject",),
    day_of="sched_dep",
    # It is announced a day ahead; the longest block time and the longest delay its contract allows are under five days.
    before=timedelta(days=2),
    after=timedelta(days=5),
    columns={
        "subject": _column(_TEXT, "the flight: scheduled departure (UTC), airline and number, origin", "subject"),
        "carrier": _column(_TEXT, "IATA airline code", "carrier"),
        "flight": _column(_COUNT, "flight number", "flight"),
        "tail": _column(_TEXT, "aircraft registration; null: none was named", "tail"),
        "origin": _column(_TEXT, "IATA airport code", "origin"),
        "dest": _column(_TEXT, "IATA airport code", "dest"),
        "sched_dep": _column(INSTANT, "scheduled departure", "sched_dep"),
        "sched_arr": _column(INSTANT, "scheduled arrival", "sched_arr"),
        "distance_mi": _column(_COUNT, "of the flight", "distance_mi", unit="mi"),
        "local_day": _column(pl.Date(), "day of the scheduled departure in New York", "sched_dep"),
        "departed": _column(INSTANT, "actual departure; null: none is known", "time", "type"),
        "dep_delay_min": _column(_COUNT, "at departure, negative = early", "dep_delay_min", unit="min"),
        "outcome": _column(_TEXT, "arrived, cancelled, diverted, or unknown as yet", "type"),
        "outcome_at": _column(INSTANT, "when that happened, and was known", "time", "type"),
        "arr_delay_min": _column(
            _COUNT, "at arrival, negative = early; null: did not arrive", "arr_delay_min", unit="min"
        ),
        "air_time_min": _column(_COUNT, "in the air; null: did not arrive", "air_time_min", unit="min"),
        "late": _column(
            pl.Boolean(), f"arrived more than {LATE_MIN} minutes late; null: did not arrive", "arr_delay_min"
        ),
        "planted": _column(_TEXT, "label of a demonstration's change in its outcome; null: none", "planted"),
    },
    required=("carrier", "flight", "origin", "dest", "sched_dep", "sched_arr", "distance_mi", "local_day", "outcome"),
    build=flight_rows,
    owner=OWNER,
    description="Flights: schedule, departure, arrival and outcome.",
)

_WEATHER_MEANINGS = meanings(WeatherObserved)
WEATHER_HOURS = CuratedTable(
    name="weather",
    thing="hour of an airport",
    event_types=(WEATHER,),
    keys=("origin", "time"),
    day_of="time",
    before=timedelta(0),
    after=timedelta(0),
    columns={
        "time": _column(INSTANT, "the hour", "time"),
        **{
            name: _column(
                POLARS_TYPES[kind],
                _WEATHER_MEANINGS[name].description or name,
                name,
                unit=_WEATHER_MEANINGS[name].unit,
            )
            for name, kind in struct_columns(WeatherObserved).items()
        },
    },
    required=("precip_hundredths_in", "visib_mi"),
    build=weather_rows,
    owner=OWNER,
    description="Weather at the three airports, hour by hour.",
)

_ARRIVALS = "curated.flights.arr_delay_min"
DELAYS = Report(
    name="delays",
    reads=("curated.flights",),
    sql="""
SELECT
    carrier,
    origin,
    date_trunc('week', local_day)::DATE AS week,  -- from Monday
    count(*) AS flights,
    count(*) FILTER (outcome = 'arrived') AS arrived,
    count(*) FILTER (outcome = 'cancelled') AS cancelled,
    count(*) FILTER (outcome = 'diverted') AS diverted,
    -- Integers until the one division (S9): the same bits whatever the order of rows.
    count(*) FILTER (NOT late) / nullif(count(late), 0) AS on_time_share,
    sum(arr_delay_min)::DOUBLE / nullif(count(arr_delay_min), 0) AS mean_arr_delay_min,
    quantile_disc(arr_delay_min, 0.9) AS p90_arr_delay_min,
    sum(dep_delay_min)::DOUBLE / nullif(count(dep_delay_min), 0) AS mean_dep_delay_min,
    count(*) FILTER (outcome = 'cancelled') / count(*) AS cancelled_share
FROM curated.flights
GROUP BY ALL
""",
    keys=("week", "carrier", "origin"),
    counts="flights",
    columns={
        "week": _column(pl.Date(), "the Monday it begins with, in New York", "curated.flights.local_day"),
        "carrier": _column(_TEXT, "IATA airline code", "curated.flights.carrier"),
        "origin": _column(_TEXT, "IATA airport code", "curated.flights.origin"),
        "flights": _column(_COUNT, "scheduled", "curated.flights.subject"),
        "arrived": _column(_COUNT, "where they were bound for", "curated.flights.outcome"),
        "cancelled": _column(_COUNT, "before departure", "curated.flights.outcome"),
        "diverted": _column(_COUNT, "landed elsewhere", "curated.flights.outcome"),
        "on_time_share": _column(_SHARE, f"of the arrived, at most {LATE_MIN} minutes late", "curated.flights.late"),
        "mean_arr_delay_min": _column(_SHARE, "of the arrived, early ones negative", _ARRIVALS, unit="min"),
        "p90_arr_delay_min": _column(
            _COUNT, "of the arrived: nine in ten were no later (a delay that occurred)", _ARRIVALS, unit="min"
        ),
        "mean_dep_delay_min": _column(_SHARE, "of the departed", "curated.flights.dep_delay_min", unit="min"),
        "cancelled_share": _column(_SHARE, "of the scheduled", "curated.flights.outcome"),
    },
    drawn=Drawn(over="week", by="origin", weight="arrived", measures=("on_time_share", "mean_arr_delay_min")),
    owner=OWNER,
    description="How late flights arrived.",
)

CURATED = (FLIGHTS, WEATHER_HOURS)
REPORTS = (DELAYS,)
