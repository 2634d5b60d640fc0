"""The feature views of the flights domain, shared by every product that names them (SEMANTICS S19).

A new meaning is a new version: never change an aggregate of a version that a model has been trained on.
"""

from datetime import timedelta

from domains.flights.contracts import ARRIVED, CANCELLED, DEPARTED, FLIGHT_LATENESS, WEATHER
from headway.features.definitions import Aggregate, FeatureView

OWNER = "flight-features"
_1H, _3H, _6H, _24H = (timedelta(hours=hours) for hours in (1, 3, 6, 24))

ORIGIN_DELAY = FeatureView(
    name="origin_delay",
    version=1,
    keys=("origin",),
    source=DEPARTED,
    fields={"dep_delay_min": "int64"},
    aggregates=(
        Aggregate(function="count", window=_1H),
        Aggregate(function="mean", field="dep_delay_min", window=_1H),
        Aggregate(function="count", window=_3H),
        Aggregate(function="mean", field="dep_delay_min", window=_3H),
        Aggregate(function="max", field="dep_delay_min", window=_3H),
        Aggregate(function="mean", field="dep_delay_min", window=_24H),
    ),
    owner=OWNER,
    description="How late departures of an airport have been.",
    lateness=FLIGHT_LATENESS,
)

ORIGIN_CARRIER_DELAY = FeatureView(
    name="origin_carrier_delay",
    version=1,
    keys=("origin", "carrier"),
    source=DEPARTED,
    fields={"dep_delay_min": "int64"},
    aggregates=(
        Aggregate(function="count", window=_3H),
        Aggregate(function="mean", field="dep_delay_min", window=_3H),
        Aggregate(function="mean", field="dep_delay_min", window=_24H),
    ),
    owner=OWNER,
    description="How late departures of an airline at an airport have been.",
    lateness=FLIGHT_LATENESS,
)

DEST_DELAY = FeatureView(
    name="dest_delay",
    version=1,
    keys=("dest",),
    source=ARRIVED,
    fields={"arr_delay_min": "int64"},
    aggregates=(
        Aggregate(function="count", window=_3H),
        Aggregate(function="mean", field="arr_delay_min", window=_3H),
        Aggregate(function="mean", field="arr_delay_min", window=_24H),
    ),
    owner=OWNER,
    description="How late arrivals from New York at a destination have been.",
    lateness=FLIGHT_LATENESS,
)

AIRCRAFT_ARRIVAL = FeatureView(
    name="aircraft_arrival",
    version=1,
    keys=("tail",),
    source=ARRIVED,
    fields={"arr_delay_min": "int64"},
    aggregates=(
        Aggregate(function="last", field="arr_delay_min", window=_24H),
        Aggregate(function="last_at", window=_24H),
        Aggregate(function="count", window=_24H),
    ),
    owner=OWNER,
    description="The aircraft's newest arrival: how late, when.",
    lateness=FLIGHT_LATENESS,
)

AIRCRAFT_DEPARTURE = FeatureView(
    name="aircraft_departure",
    version=1,
    keys=("tail",),
    source=DEPARTED,
    fields={"dep_delay_min": "int64"},
    aggregates=(
        Aggregate(function="last", field="dep_delay_min", window=_24H),
        Aggregate(function="last_at", window=_24H),
        Aggregate(function="count", window=_24H),
    ),
    owner=OWNER,
    description="The aircraft's newest departure from New York: how late, when.",
    lateness=FLIGHT_LATENESS,
)

ORIGIN_CANCELLATION = FeatureView(
    name="origin_cancellation",
    version=1,
    keys=("origin",),
    source=CANCELLED,
    fields={},
    aggregates=(Aggregate(function="count", window=_3H), Aggregate(function="count", window=_24H)),
    owner=OWNER,
    description="How many departures of an airport have been cancelled.",
    lateness=FLIGHT_LATENESS,
)

# Six hours bridge a station that misses a few reports; older weather says nothing about the coming hour.
WEATHER_NOW = FeatureView(
    name="weather",
    version=1,
    keys=("origin",),
    source=WEATHER,
    fields={
        "temp_f": "float64",
        "dewpoint_f": "float64",
        "humidity_pct": "float64",
        "wind_dir_deg": "int64",
        "wind_speed_mph": "float64",
        "wind_gust_mph": "float64",
        "precip_hundredths_in": "int64",
        "pressure_mb": "float64",
        "visib_mi": "float64",
    },
    aggregates=(
        Aggregate(function="last", field="temp_f", window=_6H),
        Aggregate(function="last", field="dewpoint_f", window=_6H),
        Aggregate(function="last", field="humidity_pct", window=_6H),
        Aggregate(function="last", field="wind_dir_deg", window=_6H),
        Aggregate(function="last", field="wind_speed_mph", window=_6H),
        Aggregate(function="last", field="wind_gust_mph", window=_6H),
        Aggregate(function="last", field="precip_hundredths_in", window=_6H),
        Aggregate(function="last", field="pressure_mb", window=_6H),
        Aggregate(function="last", field="visib_mi", window=_6H),
        Aggregate(function="sum", field="precip_hundredths_in", window=_6H),
        Aggregate(function="last_at", window=_6H),
    ),
    owner=OWNER,
    description="The newest weather at an airport, and the rain of six hours.",
)

VIEWS = (
    ORIGIN_DELAY,
    ORIGIN_CARRIER_DELAY,
    DEST_DELAY,
    AIRCRAFT_ARRIVAL,
    AIRCRAFT_DEPARTURE,
    ORIGIN_CANCELLATION,
    WEATHER_NOW,
)
