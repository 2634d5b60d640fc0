"""Airports, airlines and aircraft: the static data that enriches flight events.

The enricher asks for one body at a time, the bulk loader for a whole frame; a test holds both equal. An airport or
airline nobody knows is an error of the producer; an aircraft nobody knows is normal (15 % of the flights).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import polars as pl

from domains.flights.contracts import Flight, WeatherObserved
from domains.flights.files import read_table
from headway.contracts import ColumnType
from headway.errors import ContractViolation, InputRejected


class Airport(NamedTuple):
    """Where an airport is; degrees north and east, IANA time zone (None where the source has none)."""

    lat: float
    lon: float
    tz: str | None


class Plane(NamedTuple):
    """An aircraft: year built (None where unknown) and seats."""

    year: int | None
    seats: int


ENRICHMENT: Mapping[str, ColumnType] = {
    "dest_lat": "float64",
    "dest_lon": "float64",
    "dest_tz": "string",
    "airline_name": "string",
    "plane_year": "int64",
    "plane_seats": "int64",
}
ENRICHMENT_INPUTS = ("carrier", "tail", "origin", "dest")
_NOTHING: dict[str, Any] = dict.fromkeys(ENRICHMENT)
_NO_PLANE = (None, None)

# Destinations of 7,602 flights that the package's airports.csv lacks: it stops at the 50 states.
# Source: OurAirports (public domain), TJBQ, TJPS, TJSJ, TIST; checked against the flown distances in a test.
# None of the four has daylight saving time.
MISSING_AIRPORTS: Mapping[str, Airport] = {
    "BQN": Airport(18.494900, -67.129402, "America/Puerto_Rico"),
    "PSE": Airport(18.008301, -66.563004, "America/Puerto_Rico"),
    "SJU": Airport(18.439400, -66.001801, "America/Puerto_Rico"),
    "STT": Airport(18.337299, -64.973396, "America/St_Thomas"),
}


@dataclass(frozen=True, kw_only=True)
class FlightReference:
    """The reference data as one value; ``version`` is the first 16 hex of SHA-256 over all of it."""

    airports: Mapping[str, Airport]
    airlines: Mapping[str, str]
    planes: Mapping[str, Plane]
    version: str

    def enrich(self, body: msgspec.Struct) -> dict[str, Any]:
        """Return the enrichment columns of one body, always all of them; null where they do not apply.

        Raises:
            InputRejected: an airport or airline is unknown; names field, got, wanted and what to do.
        """
        if isinstance(body, WeatherObserved):
            if body.origin not in self.airports:
                raise _unknown("origin", body.origin, self.airports)
            return dict(_NOTHING)
        if not isinstance(body, Flight):
            raise ContractViolation(f"flight reference: got a {type(body).__name__}, wanted a body of domain flights")
        if body.origin not in self.airports:
            raise _unknown("origin", body.origin, self.airports)
        dest, airline = self.airports.get(body.dest), self.airlines.get(body.carrier)
        if dest is None:
            raise _unknown("dest", body.dest, self.airports)
        if airline is None:
            raise _unknown("carrier", body.carrier, self.airlines)
        lat, lon, zone = dest
        year, seats = _NO_PLANE if body.tail is None else self.planes.get(body.tail, _NO_PLANE)
        return {
            "dest_lat": lat,
            "dest_lon": lon,
            "dest_tz": zone,
            "airline_name": airline,
            "plane_year": year,
            "plane_seats": seats,
        }

    def enrich_frame(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with the enrichment columns added: ``enrich`` for a million rows, same rows, same order.

        Args:
            events: one row per event; reads ``origin``, ``dest``, ``carrier`` and ``tail`` (null for weather).

        Raises:
            InputRejected: see ``enrich``; names the first unknown value.
        """
        for field, known in (("origin", self.airports), ("dest", self.airports), ("carrier", self.airlines)):
            unknown = sorted(set(events[field].drop_nulls().unique()) - set(known))
            if unknown:
                raise _unknown(field, unknown[0], known)
        airports = pl.DataFrame(
            [(code, *airport) for code, airport in self.airports.items()],
            schema={"dest": pl.String, "dest_lat": pl.Float64, "dest_lon": pl.Float64, "dest_tz": pl.String},
            orient="row",
        )
        airlines = pl.DataFrame(
            list(self.airlines.items()), schema={"carrier": pl.String, "airline_name": pl.String}, orient="row"
        )
        planes = pl.DataFrame(
            [(tail, *plane) for tail, plane in self.planes.items()],
            schema={"tail": pl.String, "plane_year": pl.Int64, "plane_seats": pl.Int64},
            orient="row",
        )
        for on, table in (("dest", airports), ("carrier", airlines), ("tail", planes)):
            events = events.join(table, on=on, how="left", validate="m:1", maintain_order="left")
        return events


def load_reference() -> FlightReference:
    """Return the reference data of the package and of ``MISSING_AIRPORTS``; about 20 ms.

    Raises:
        PermanentFailure: the package is missing or has another layout.
    """
    tables = {
        "airports": read_table(
            "airports", {"faa": pl.String(), "lat": pl.Float64(), "lon": pl.Float64(), "tzone": pl.String()}
        ),
        "airlines": read_table("airlines", {"carrier": pl.String(), "name": pl.String()}),
        "planes": read_table("planes", {"tailnum": pl.String(), "year": pl.Int64(), "seats": pl.Int64()}),
    }
    airports = {code: Airport(*row) for code, *row in tables["airports"].iter_rows()}
    both = sorted(airports.keys() & MISSING_AIRPORTS.keys())
    if both:
        raise ContractViolation(
            f"MISSING_AIRPORTS: {both} are in airports.csv now; remove them from domains/flights/reference.py"
        )
    airports |= MISSING_AIRPORTS
    airlines: dict[str, str] = dict(tables["airlines"].iter_rows())
    planes = {tail: Plane(*row) for tail, *row in tables["planes"].iter_rows()}
    content = json.dumps([sorted(airports.items()), sorted(airlines.items()), sorted(planes.items())])
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    return FlightReference(airports=airports, airlines=airlines, planes=planes, version=version)


def _unknown(field: str, got: str, known: Mapping[str, Any]) -> InputRejected:
    what = "airline" if field == "carrier" else "airport"
    return InputRejected(
        f"{field}: got {got!r}, wanted one of the {len(known)} {what}s of the reference data; correct the event, or "
        f"add the {what} to domains/flights/reference.py; an event waits as a letter until then"
    )
