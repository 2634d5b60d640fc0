"""The flights domain as one value: what producers send, what enriches it, which views products share."""

from domains.flights.contracts import CONTRACTS
from domains.flights.reference import ENRICHMENT, load_reference
from domains.flights.views import VIEWS
from headway.contracts import Domain

DOMAIN = Domain(
    name="flights",
    source="/nycflights13",
    contracts=CONTRACTS,
    enrichment=ENRICHMENT,
    views=VIEWS,
    load_reference=load_reference,
)
