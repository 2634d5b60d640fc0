"""The work of the Validator/Enricher as a user of a peer would write it well: typed decoding, tables in memory.

msgspec for envelope and body, straight into types with the contracts' own limits; enrichment from dictionaries; one
encoding at the end. Deduplication is left to each peer, by whatever state it has. It does less than Headway's: no
letters (a bad event is dropped), no future times, no key twice in one object, no conflicting contents, no ticks.
"""
# ruff: noqa: D101 - the contracts' names say what they are

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Airport = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Instant = Annotated[datetime, Meta(tz=True)]
Text = Annotated[str, Meta(min_length=1, max_length=1024)]
Speed = Annotated[float, Meta(ge=0, le=260)]
TempF = Annotated[float, Meta(ge=-130, le=140)]


class Flight(Struct, kw_only=True, forbid_unknown_fields=True):
    carrier: Annotated[str, Meta(pattern="^[A-Z0-9]{2}$")]
    flight: Annotated[int, Meta(ge=1, le=9999)]
    tail: Annotated[str, Meta(pattern="^[A-Z0-9]{2,8}$")] | None
    origin: Airport
    dest: Airport
    sched_dep: Instant
    sched_arr: Instant
    distance_mi: Annotated[int, Meta(ge=1, le=12000)]

    def __post_init__(self) -> None:
        if self.sched_arr <= self.sched_dep:
            raise ValueError("sched_arr: not after sched_dep")


class Departed(Flight, kw_only=True, forbid_unknown_fields=True):
    dep_delay_min: Annotated[int, Meta(ge=-200, le=5000)]


class Arrived(Flight, kw_only=True, forbid_unknown_fields=True):
    arr_delay_min: Annotated[int, Meta(ge=-200, le=5000)]
    air_time_min: Annotated[int, Meta(ge=1, le=1500)]


class Weather(Struct, kw_only=True, forbid_unknown_fields=True):
    origin: Airport
    temp_f: TempF | None
    dewpoint_f: TempF | None
    humidity_pct: Annotated[float, Meta(ge=0, le=100)] | None
    wind_dir_deg: Annotated[int, Meta(ge=0, le=360)] | None
    wind_speed_mph: Speed | None
    wind_gust_mph: Speed | None
    precip_hundredths_in: Annotated[int, Meta(ge=0, le=2000)]
    pressure_mb: Annotated[float, Meta(ge=850, le=1100)] | None
    visib_mi: Annotated[float, Meta(ge=0, le=100)]


class Envelope(Struct, kw_only=True, omit_defaults=True):
    specversion: str
    id: Text
    source: Text
    type: Text
    subject: Text
    time: Instant
    datacontenttype: str | None = None
    data: msgspec.Raw
    receivedat: Instant | None = None
    collectorid: str | None = None
    requestid: str | None = None
    eventsize: int | None = None
    enrichmentversion: str | None = None
    planted: str | None = None


_BODIES = {
    "flight.scheduled.v1": Flight,
    "flight.departed.v1": Departed,
    "flight.arrived.v1": Arrived,
    "flight.cancelled.v1": Flight,
    "flight.diverted.v1": Flight,
    "weather.observed.v1": Weather,
}
_DECODERS = {kind: msgspec.json.Decoder(body) for kind, body in _BODIES.items()}
_ENVELOPE = msgspec.json.Decoder(Envelope)
_ENCODER = msgspec.json.Encoder()
_NOTHING = dict.fromkeys(("dest_lat", "dest_lon", "dest_tz", "airline_name", "plane_year", "plane_seats"))


class Tables:
    """Airports, airlines and planes, from the file that PEER_TABLES names."""

    def __init__(self) -> None:
        tables = json.loads(Path(os.environ["PEER_TABLES"]).read_text())
        self.airports: dict[str, list[Any]] = tables["airports"]
        self.airlines: dict[str, str] = tables["airlines"]
        self.planes: dict[str, list[Any]] = tables["planes"]
        self.version: str = tables["version"]

    def columns(self, body: Any) -> dict[str, Any]:
        """Return the enrichment columns; raises KeyError for what the tables do not know."""
        if isinstance(body, Weather):
            self.airports[body.origin]
            return _NOTHING
        self.airports[body.origin]
        lat, lon, tz = self.airports[body.dest]
        year, seats = self.planes.get(body.tail, (None, None))
        return {
            "dest_lat": lat,
            "dest_lon": lon,
            "dest_tz": tz,
            "airline_name": self.airlines[body.carrier],
            "plane_year": year,
            "plane_seats": seats,
        }


def validated(value: bytes) -> tuple[Envelope, Any] | None:
    """Envelope and typed body, or None for an event that breaks its contract."""
    try:
        envelope = _ENVELOPE.decode(value)
        return envelope, _DECODERS[envelope.type].decode(envelope.data)
    except (msgspec.MsgspecError, KeyError, RecursionError, ValueError):
        return None


def enriched(envelope: Envelope, body: Any, tables: Tables) -> bytes | None:
    """The enriched event as JSON, or None where the tables do not know what the body names."""
    try:
        columns = tables.columns(body)
    except KeyError:
        return None
    envelope.data = msgspec.Raw(_ENCODER.encode(body)[:-1] + b"," + _ENCODER.encode(columns)[1:])
    envelope.enrichmentversion = tables.version
    return _ENCODER.encode(envelope)
