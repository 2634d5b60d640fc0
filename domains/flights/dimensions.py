"""Aircraft, airports and airlines as dimensions: what is true of them, and from when to when.

The package has one table of each, without dates: what a load finds holds from the instant of the load. Airports are those of
`domains.flights.reference`, so the four that airports.csv lacks are there too.
"""

import polars as pl

from domains.flights.contracts import OWNER
from domains.flights.files import read_table
from domains.flights.reference import load_reference
from headway.warehouse import Dimension, WarehouseColumn

_TEXT, _COUNT = pl.String(), pl.Int64()


def _load_planes() -> pl.DataFrame:
    texts = dict.fromkeys(("tailnum", "type", "manufacturer", "model", "engine"), _TEXT)
    planes = read_table("planes", {**texts, **dict.fromkeys(("year", "seats", "engines"), _COUNT)})
    return planes.rename({"tailnum": "tail", "year": "built_year"}).select("tail", *PLANES.columns).sort("tail")


def _load_airports() -> pl.DataFrame:
    places = [(code, *place) for code, place in sorted(load_reference().airports.items())]
    schema = {"airport": _TEXT, "lat": pl.Float64(), "lon": pl.Float64(), "time_zone": _TEXT}
    known = read_table("airports", {"faa": _TEXT, "name": _TEXT, "alt": _COUNT})
    named = known.rename({"faa": "airport", "alt": "altitude_ft"})
    airports = pl.DataFrame(places, schema=schema, orient="row").join(named, on="airport", how="left", validate="1:1")
    return airports.select("airport", *AIRPORTS.columns).sort("airport")


def _load_airlines() -> pl.DataFrame:
    return read_table("airlines", {"carrier": _TEXT, "name": _TEXT}).sort("carrier")


PLANES = Dimension(
    name="planes",
    keys=("tail",),
    columns={
        "built_year": WarehouseColumn(dtype=_COUNT, unit="year", description="in which it was built; null: not known"),
        "seats": WarehouseColumn(dtype=_COUNT, unit="seats", description="of the aircraft"),
        "engines": WarehouseColumn(dtype=_COUNT, unit="engines", description="of the aircraft"),
        "type": WarehouseColumn(dtype=_TEXT, description="fixed wing or rotorcraft, single or multi engine"),
        "manufacturer": WarehouseColumn(dtype=_TEXT, description="as registered"),
        "model": WarehouseColumn(dtype=_TEXT, description="as registered"),
        "engine": WarehouseColumn(dtype=_TEXT, description="kind of engine"),
    },
    load=_load_planes,
    owner=OWNER,
    description="Aircraft as registered with the FAA.",
)
AIRPORTS = Dimension(
    name="airports",
    keys=("airport",),
    columns={
        "name": WarehouseColumn(dtype=_TEXT, description="of the airport; null for the four supplied by us"),
        "lat": WarehouseColumn(dtype=pl.Float64(), unit="deg", description="degrees north"),
        "lon": WarehouseColumn(dtype=pl.Float64(), unit="deg", description="degrees east"),
        "altitude_ft": WarehouseColumn(dtype=_COUNT, unit="ft", description="above the sea"),
        "time_zone": WarehouseColumn(dtype=_TEXT, description="IANA time zone"),
    },
    load=_load_airports,
    owner=OWNER,
    description="Airports: where they are, which clock they keep.",
)
AIRLINES = Dimension(
    name="airlines",
    keys=("carrier",),
    columns={"name": WarehouseColumn(dtype=_TEXT, description="of the airline")},
    load=_load_airlines,
    owner=OWNER,
    description="Airlines by IATA code.",
)

DIMENSIONS = (PLANES, AIRPORTS, AIRLINES)
