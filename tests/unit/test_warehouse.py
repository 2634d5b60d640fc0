"""A table of the warehouse that could not be made is refused when it is written down."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from domains.flights.contracts import WEATHER
from domains.flights.curated import DELAYS, FLIGHTS, WEATHER_HOURS
from domains.flights.dimensions import PLANES
from domains.flights.domain import DOMAIN
from headway.errors import ContractViolation
from headway.warehouse import CuratedTable, Dimension, Report, WarehouseColumn

ODD = WarehouseColumn(dtype=pl.String(), description="of no event", sources=("colour",))


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        (FLIGHTS, {"name": "Flights"}, "curated table, name: got 'Flights', wanted a name like flights"),
        (FLIGHTS, {"owner": ""}, "curated table flights, owner: got '', wanted a text"),
        (FLIGHTS, {"event_types": ()}, "event_types: got .*, wanted at least one"),
        (FLIGHTS, {"keys": ("id",)}, r"columns: got .*, wanted also \['id'\]"),
        (FLIGHTS, {"columns": {**FLIGHTS.columns, "events": ODD}}, r"columns: got \['events'\], wanted names that its"),
        (PLANES, {"keys": ()}, "dimension planes, keys and columns: got .*, wanted at least one of each"),
        (PLANES, {"columns": {"valid_to": ODD}}, r"columns: got \['valid_to'\], wanted names that its table has not"),
        (DELAYS, {"counts": "rows"}, r"report delays, columns: got .*, wanted also \['rows'\]"),
        (
            DELAYS,
            {"reads": ("curated.weather",)},
            r"reads: got \['curated.weather'\], wanted tables that its SQL names",
        ),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(
    table: CuratedTable | Dimension | Report, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(table, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"curated": (replace(FLIGHTS, columns={**FLIGHTS.columns, "colour": ODD}), WEATHER_HOURS)},
            r"domain flights, curated table flights: events have no column \['colour'\]",
        ),
        (
            {"curated": (replace(FLIGHTS, event_types=(*FLIGHTS.event_types, WEATHER)), WEATHER_HOURS)},
            rf"day_of: got sched_dep, wanted an instant of every event; \['{WEATHER}'\] lack it",
        ),
        ({"curated": (replace(FLIGHTS, day_of="carrier"),)}, "day_of: got carrier, wanted an instant of every event"),
        ({"curated": (FLIGHTS, FLIGHTS)}, "table of the warehouse declared twice"),
        ({"curated": (WEATHER_HOURS,)}, r"report delays: no table \['curated.flights'\]"),
        ({"curated": (replace(FLIGHTS, event_types=("flight.lost.v1",)),)}, "flight.lost.v1"),
    ],
)
def test_a_table_that_its_domain_cannot_give_what_it_names_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        replace(DOMAIN, **change)
