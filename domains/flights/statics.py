"""What is known of aircraft beside their flights: a static view, fed from a dimension of the domain.

The package knows the fleet of 2013 as one table without dates, so a first load holds for all instants after it and none
before; a model of the past that wants it needs a load as of then.
"""

from domains.flights.dimensions import PLANES
from domains.flights.views import OWNER
from headway.features.static import StaticView
from headway.meanings import Meaning

AIRCRAFT = StaticView(
    name="aircraft",
    version=1,
    keys=("tail",),
    columns={"built_year": "int64", "seats": "int64"},
    meanings={
        "built_year": Meaning(unit="year", description="in which the aircraft was built; null when that is not known"),
        "seats": Meaning(unit="seats", description="of the aircraft"),
    },
    dimension=PLANES.name,
    owner=OWNER,
    description="What an aircraft is: how old, how large.",
)

STATICS = (AIRCRAFT,)
