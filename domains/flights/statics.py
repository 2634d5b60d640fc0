"""What is known of aircraft beside their flights: a static view, loaded from the reference data of the domain.

The package knows the fleet of 2013 as one table without dates, so a first load holds for all instants after it and none
before; a model of the past that wants it needs a load as of then.
"""

import polars as pl

from domains.flights.reference import load_reference
from domains.flights.views import OWNER
from headway.features.static import StaticView
from headway.meanings import Meaning


def _load_aircraft() -> pl.DataFrame:
    planes = load_reference().planes
    rows = [(tail, plane.year, plane.seats) for tail, plane in sorted(planes.items())]
    return pl.DataFrame(rows, schema={"tail": pl.String, "built_year": pl.Int64, "seats": pl.Int64}, orient="row")


AIRCRAFT = StaticView(
    name="aircraft",
    version=1,
    keys=("tail",),
    columns={"built_year": "int64", "seats": "int64"},
    meanings={
        "built_year": Meaning(unit="year", description="in which the aircraft was built; null when that is not known"),
        "seats": Meaning(unit="seats", description="of the aircraft"),
    },
    load=_load_aircraft,
    owner=OWNER,
    description="What an aircraft is: how old, how large.",
)

STATICS = (AIRCRAFT,)
