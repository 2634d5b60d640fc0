"""What a client asks with, and the features that follow from the question itself.

One scalar function serves training, batch, stream and the APIs. It reads the schedule and the reference data, never an
outcome; everything that moves with time comes from feature views.
"""

from collections.abc import Mapping
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec
import polars as pl

from domains.flights.contracts import Flight, Instant
from headway.clock import HOUR_US, MINUTE_US, floor_us, to_us
from headway.meanings import Meaning
from headway.quotient import quotient

# The three airports keep one clock, and a schedule is made for local hours: 17:00 is the evening wave all year.
ORIGIN_ZONE = ZoneInfo("America/New_York")
LEAD_US = HOUR_US
STEP_US = 15 * MINUTE_US

NUMBERS = (
    "local_hour",
    "weekday",
    "scheduled_min",
    "distance_mi",
    "scheduled_mph",
    "lead_min",
    "dest_lat",
    "dest_lon",
    "plane_age_years",
    "plane_seats",
)
CATEGORIES = ("carrier", "origin", "dest")
MEANINGS = {
    "local_hour": Meaning(unit="h", description="scheduled departure on the clock of New York, 17.5 = half past five"),
    "weekday": Meaning(unit=None, description="of the scheduled departure in New York, Monday = 0"),
    "scheduled_min": Meaning(unit="min", description="scheduled arrival - scheduled departure"),
    "distance_mi": Meaning(unit="mi", description="statute miles flown"),
    "scheduled_mph": Meaning(unit="mph", description="distance over scheduled time: how much the schedule is padded"),
    "lead_min": Meaning(unit="min", description="scheduled departure - the instant asked for"),
    "dest_lat": Meaning(unit="deg", description="latitude of the destination, degrees north"),
    "dest_lon": Meaning(unit="deg", description="longitude of the destination, degrees east"),
    "plane_age_years": Meaning(unit="years", description="since the aircraft was built; null when that is not known"),
    "plane_seats": Meaning(unit="seats", description="of the aircraft; null when it is not known"),
    "carrier": Meaning(unit=None, description="IATA airline code"),
    "origin": Meaning(unit=None, description="IATA code of the airport it leaves"),
    "dest": Meaning(unit=None, description="IATA code of the airport it flies to"),
}


class FlightDelayRequest(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Will this flight arrive more than 15 minutes late? ``as_of`` is for replays; left out, it is now."""

    as_of: Instant | None = None


class FlightReference(Protocol):
    """What this function needs of the flights reference."""

    @property
    def version(self) -> str:
        """Hash of the reference data."""
        ...

    @property
    def airports(self) -> Mapping[str, object]:
        """Airports by code."""
        ...

    @property
    def airlines(self) -> Mapping[str, str]:
        """Airlines by code."""
        ...

    def enrich(self, body: msgspec.Struct) -> dict[str, float | str | None]:
        """Return destination and aircraft columns of a flight."""
        ...

    def enrich_frame(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the same columns added; same rows, same order."""
        ...


def asked_at_us(request: FlightDelayRequest) -> int:
    """Return when training, batch and replay ask: an hour before departure, on the replay's 15-minute grid (S7)."""
    return floor_us(to_us(request.sched_dep) - LEAD_US, STEP_US)


def request_features(
    request: FlightDelayRequest, reference: FlightReference, as_of_us: int
) -> dict[str, float | str | None]:
    """Return the request features; about 10 us.

    There is no month or day of the year: a model trained on January to June has never seen a July, and would split
    weather it can measure by a date it cannot generalise from.

    Raises:
        InputRejected: an airport or airline is unknown.
    """
    known = reference.enrich(request)
    dep_us, arr_us = to_us(request.sched_dep), to_us(request.sched_arr)
    local = request.sched_dep.astimezone(ORIGIN_ZONE)
    scheduled_min = (arr_us - dep_us) / MINUTE_US
    built = known["plane_year"]
    return {
        "local_hour": local.hour + local.minute / 60,
        "weekday": float(local.weekday()),
        "scheduled_min": scheduled_min,
        "distance_mi": float(request.distance_mi),
        # How much time the schedule leaves for the distance: padding, in other words.
        "scheduled_mph": request.distance_mi * 60 / scheduled_min,
        "lead_min": (dep_us - as_of_us) / MINUTE_US,
        "dest_lat": known["dest_lat"],
        "dest_lon": known["dest_lon"],
        "plane_age_years": None if built is None else float(local.year - int(built)),
        "plane_seats": known["plane_seats"],
        "carrier": request.carrier,
        "origin": request.origin,
        "dest": request.dest,
    }


def asked_at_in_bulk() -> pl.Expr:
    """Return the expression of `asked_at_us`."""
    wanted_us = pl.col("sched_dep").dt.timestamp("us") - LEAD_US
    return wanted_us - wanted_us % STEP_US


def sure(reference: FlightReference) -> pl.Expr:
    """Return where `request_features` answers: places and airline are known, and the schedule runs forwards."""
    places = (pl.col(field).is_in(list(reference.airports)) for field in ("origin", "dest"))
    airline = pl.col("carrier").is_in(list(reference.airlines))
    return pl.all_horizontal(*places, airline, pl.col("sched_arr") > pl.col("sched_dep"))


def request_features_in_bulk(rows: pl.DataFrame, reference: FlightReference) -> pl.DataFrame:
    """Return the features of `request_features` of rows that are `sure`; about 0.3 us a row."""
    dep_us, arr_us = (pl.col(name).dt.timestamp("us") for name in ("sched_dep", "sched_arr"))
    local = pl.col("sched_dep").dt.convert_time_zone(ORIGIN_ZONE.key).dt
    scheduled_min = quotient(arr_us - dep_us, MINUTE_US)
    return reference.enrich_frame(rows).select(
        (local.hour().cast(pl.Float64) + quotient(local.minute(), 60)).alias("local_hour"),
        (local.weekday() - 1).cast(pl.Float64).alias("weekday"),
        scheduled_min.alias("scheduled_min"),
        pl.col("distance_mi").cast(pl.Float64),
        (pl.col("distance_mi") * 60 / scheduled_min).alias("scheduled_mph"),
        quotient(dep_us - pl.col("as_of_us"), MINUTE_US).alias("lead_min"),
        "dest_lat",
        "dest_lon",
        (local.year() - pl.col("plane_year")).cast(pl.Float64).alias("plane_age_years"),
        pl.col("plane_seats").cast(pl.Float64),
        *CATEGORIES,
    )
