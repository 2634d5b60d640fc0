"""The events of the flights domain: six types, one typed body each, every unit in its field's name.

A body is judged here and nowhere else; the Validator turns what fails into a letter that names the field. Ranges are
wide enough for every record of the source and narrow enough to catch a unit mix-up. They are not data quality.

What bites: under sum and mean only int64 (SEMANTICS S9), so delays are whole minutes and rain is hundredths of an inch.
"""

from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct

from headway.contracts import Contract

Carrier = Annotated[str, Meta(pattern="^[A-Z0-9]{2}$", description="IATA airline code")]
FlightNumber = Annotated[int, Meta(ge=1, le=9999)]
Tail = Annotated[str, Meta(pattern="^[A-Z0-9]{2,8}$", description="aircraft registration")]
Airport = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="IATA airport code")]
Instant = Annotated[datetime, Meta(tz=True)]
# The worst of 2013 are 1,301 min late and 86 min early; 5,000 min is three and a half days.
DelayMin = Annotated[int, Meta(ge=-200, le=5000, description="minutes, negative = early", extra={"unit": "min"})]
AirTimeMin = Annotated[int, Meta(ge=1, le=1500, description="minutes in the air", extra={"unit": "min"})]
DistanceMi = Annotated[int, Meta(ge=1, le=12000, description="statute miles", extra={"unit": "mi"})]
TempF = Annotated[float, Meta(ge=-130, le=140, description="degrees Fahrenheit", extra={"unit": "°F"})]
HumidityPct = Annotated[float, Meta(ge=0, le=100, description="relative humidity, percent", extra={"unit": "%"})]
DirectionDeg = Annotated[
    int, Meta(ge=0, le=360, description="direction the wind blows from, degrees; 0 = calm", extra={"unit": "deg"})
]
# The strongest wind ever measured at the ground is 253 mph.
SpeedMph = Annotated[float, Meta(ge=0, le=260, description="miles per hour", extra={"unit": "mph"})]
RainHundredthsIn = Annotated[
    int, Meta(ge=0, le=2000, description="hundredths of an inch in the hour", extra={"unit": "0.01 in"})
]
PressureMb = Annotated[float, Meta(ge=850, le=1100, description="sea-level pressure, millibars", extra={"unit": "mb"})]
VisibilityMi = Annotated[float, Meta(ge=0, le=100, description="statute miles", extra={"unit": "mi"})]

# A flight's report may reach us a day after the fact; 26 h covers a day and the longest block time's slack.
FLIGHT_LATENESS = timedelta(hours=26)
OWNER = "flight-data"
# All origins are here; their local day is what people call the day of a flight.
NEW_YORK = "America/New_York"
# The usual definition of "on time" in American aviation: the U.S. Department of Transportation counts a flight as late
# from 15 minutes on; ours says *more than* 15.
LATE_MIN = 15


class Flight(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What every flight event says of its flight, so that one event can touch airport, airline and aircraft."""

    carrier: Carrier
    flight: FlightNumber
    tail: Tail | None
    origin: Airport
    dest: Airport
    sched_dep: Instant
    sched_arr: Instant
    distance_mi: DistanceMi

    def __post_init__(self) -> None:
        """Refuse a schedule that runs backwards; the usual cause is a local arrival time read as the origin's."""
        if self.sched_arr <= self.sched_dep:
            raise ValueError(
                f"sched_arr: got {self.sched_arr.isoformat()}, wanted an instant after sched_dep "
                f"{self.sched_dep.isoformat()}; both are instants, not local times"
            )


class FlightScheduled(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A flight is on the schedule of the next day; its time is scheduled departure - 24 h."""


class FlightDeparted(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A flight left its gate; its time is the actual departure."""

    dep_delay_min: DelayMin


class FlightArrived(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A flight reached the gate of its destination; its time is the actual arrival."""

    arr_delay_min: DelayMin
    air_time_min: AirTimeMin


class FlightCancelled(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A flight never left; its time is the scheduled departure."""


class FlightDiverted(Flight, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A flight left and did not arrive as planned; its time is the scheduled arrival."""


class WeatherObserved(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One hour of weather at one airport; its time is the hour. A missing measurement is null."""

    origin: Airport
    temp_f: TempF | None
    dewpoint_f: TempF | None
    humidity_pct: HumidityPct | None
    wind_dir_deg: DirectionDeg | None
    wind_speed_mph: SpeedMph | None
    wind_gust_mph: SpeedMph | None
    precip_hundredths_in: RainHundredthsIn
    pressure_mb: PressureMb | None
    visib_mi: VisibilityMi


SCHEDULED = "flight.scheduled.v1"
DEPARTED = "flight.departed.v1"
ARRIVED = "flight.arrived.v1"
CANCELLED = "flight.cancelled.v1"
DIVERTED = "flight.diverted.v1"
WEATHER = "weather.observed.v1"

# UA 1545 of the first of January 2013, as it flew, and the weather it flew in.
_FLIGHT = {
    "carrier": "UA",
    "flight": 1545,
    "tail": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep": "2013-01-01T10:15:00Z",
    "sched_arr": "2013-01-01T14:19:00Z",
    "distance_mi": 1400,
}
_WEATHER = {
    "origin": "EWR",
    "temp_f": 39.02,
    "dewpoint_f": 28.04,
    "humidity_pct": 64.43,
    "wind_dir_deg": 260,
    "wind_speed_mph": 12.65858,
    "wind_gust_mph": None,
    "precip_hundredths_in": 0,
    "pressure_mb": 1011.9,
    "visib_mi": 10.0,
}

CONTRACTS = (
    Contract(
        event_type=SCHEDULED,
        body=FlightScheduled,
        description="A flight is planned; sent 24 h before its scheduled departure.",
        owner=OWNER,
        example=_FLIGHT,
        lateness=FLIGHT_LATENESS,
    ),
    Contract(
        event_type=DEPARTED,
        body=FlightDeparted,
        description="A flight left its gate, with its departure delay.",
        owner=OWNER,
        example={**_FLIGHT, "dep_delay_min": 2},
        lateness=FLIGHT_LATENESS,
    ),
    Contract(
        event_type=ARRIVED,
        body=FlightArrived,
        description="A flight reached its gate, with its arrival delay and time in the air.",
        owner=OWNER,
        example={**_FLIGHT, "arr_delay_min": 11, "air_time_min": 227},
        lateness=FLIGHT_LATENESS,
    ),
    Contract(
        event_type=CANCELLED,
        body=FlightCancelled,
        description="A flight was cancelled; known at its scheduled departure.",
        owner=OWNER,
        example=_FLIGHT,
        lateness=FLIGHT_LATENESS,
    ),
    Contract(
        event_type=DIVERTED,
        body=FlightDiverted,
        description="A flight landed elsewhere or came back; known at its scheduled arrival.",
        owner=OWNER,
        example=_FLIGHT,
        lateness=FLIGHT_LATENESS,
    ),
    Contract(
        event_type=WEATHER,
        body=WeatherObserved,
        description="Hourly weather at a New York airport.",
        owner=OWNER,
        example=_WEATHER,
    ),
)
