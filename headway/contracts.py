"""Event contracts and the domain that owns them.

A contract is one event type with one typed body. A domain is the events and feature views several products share
(``domains/<name>/``); the lake's ``events`` table, the JSON Schemas and the enriched stream are derived from it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec

from headway.clock import duration_us
from headway.errors import ContractViolation
from headway.events import Event
from headway.features.definitions import FeatureView
from headway.features.static import StaticView
from headway.meanings import Meaning, meanings
from headway.warehouse_rules import check_warehouse

if TYPE_CHECKING:
    import polars as pl

    from headway.warehouse import CuratedTable, Dimension, Report

ColumnType = Literal["string", "int64", "float64", "timestamp"]
_COLUMN_TYPES: dict[type, ColumnType] = {str: "string", int: "int64", float: "float64", datetime: "timestamp"}


class Reference(Protocol):
    """Static reference data that enriches events; changes only with its ``version``."""

    @property
    def version(self) -> str:
        """Hash of the reference data; every enriched event names it."""
        ...

    def enrich(self, body: msgspec.Struct) -> dict[str, Any]:
        """Return the enrichment columns of one body.

        Raises:
            InputRejected: the body names something the reference does not know (for example an airport).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Contract:
    """One event type: its body, its producer, and how late it may come (S6); ``example`` is a body for documentation."""

    event_type: str
    body: type[msgspec.Struct]
    description: str
    owner: str
    lateness: timedelta = timedelta(hours=2)
    example: Mapping[str, Any] | None = None

    @property
    def lateness_us(self) -> int:
        """The allowed lateness in microseconds."""
        return duration_us(self.lateness)

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Body fields and their column types, in declaration order."""
        return struct_columns(self.body)

    @property
    def meanings(self) -> dict[str, Meaning]:
        """What each body field means, in declaration order."""
        return meanings(self.body)


class Transform(Protocol):
    """A change of events, the same on a frame of the lake's columns and on single events."""

    def frame(self, events: "pl.LazyFrame") -> "pl.LazyFrame":
        """Return the changed events of a frame."""
        ...

    def event(self, event: Event) -> Event:
        """Return the changed event."""
        ...


class History(Protocol):
    """Where a domain's past comes from: the same events in bulk, enriched, and one by one as producers sent them."""

    def events_between(self, start_us: int, end_us: int, *, transform: Transform | None = None) -> "pl.DataFrame":
        """Return the events of [start, end) in the columns of the lake's ``events``, sorted by (time, id)."""
        ...

    def iter_events(self, start_us: int, end_us: int, *, transform: Transform | None = None) -> Iterator[Event]:
        """Yield the same events in the same order, bodies only."""
        ...


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Event contracts, enrichment and feature views that products share.

    Attributes:
        source: CloudEvents ``source`` of its producer; (source, id) is an event's identity (S12).
        enrichment: columns the reference adds to the body, same for all types; null where they do not apply.
        enrichment_inputs: the body fields the reference reads, so that equal ones are asked for once; None = all.
        statics: attributes of entities from the warehouse; they share the names of views.
        curated: tables made from the events, by day.
        dimensions: what is true of entities, and when; static views are fed from them.
        reports: figures over both.
        load_reference: reads the reference data; called by composition roots, never at import.
        load_history: likewise, for bulk loads and replays.
        planted_change: the labelled change a demonstration plants, from an instant (microseconds) on.
    """

    name: str
    source: str
    contracts: tuple[Contract, ...]
    enrichment: Mapping[str, ColumnType]
    views: tuple[FeatureView, ...]
    load_reference: Callable[[], Reference]
    statics: tuple[StaticView, ...] = ()
    curated: "tuple[CuratedTable, ...]" = ()
    dimensions: "tuple[Dimension, ...]" = ()
    reports: "tuple[Report, ...]" = ()
    enrichment_inputs: tuple[str, ...] | None = None
    load_history: Callable[[], History] | None = None
    planted_change: Callable[[int], Transform] | None = None

    def __post_init__(self) -> None:
        types = [c.event_type for c in self.contracts]
        if len(set(types)) != len(types):
            raise ContractViolation(f"domain {self.name}: event type declared twice in {types}")
        qualified = [v.qualified for v in self.every_view]
        if len(set(qualified)) != len(qualified):
            raise ContractViolation(f"domain {self.name}: view version declared twice in {qualified} (S19)")
        columns = self.columns
        for view in self.views:
            self._check(view, columns)
        check_warehouse(self)

    def _check(self, view: FeatureView, columns: Mapping[str, ColumnType]) -> None:
        where = f"domain {self.name}, feature view {view.qualified}"
        contract = self.contract(view.source)
        known = {**self.enrichment, **contract.columns}
        if missing := [name for name in (*view.keys, *view.fields) if name not in known]:
            raise ContractViolation(f"{where}: {view.source} has no field {missing} (found: {sorted(columns)})")
        if unfit := {key: known[key] for key in view.keys if known[key] not in ("string", "int64")}:
            raise ContractViolation(f"{where}, keys: got {unfit}, wanted string or int64; others have no one spelling")
        if other := {name: known[name] for name, dtype in view.fields.items() if known[name] != dtype}:
            wanted = {name: view.fields[name] for name in other}
            raise ContractViolation(f"{where}, fields: got {wanted}, wanted {other}, as {view.source} declares them")
        # Enrichment has no annotations; what it adds are attributes of places and things, and none is summed.
        summed = {str(a.field) for a in view.aggregates if a.function in ("sum", "mean")}
        if bare := sorted(summed - {name for name, meaning in contract.meanings.items() if meaning.unit}):
            raise ContractViolation(
                f"{where}: sum and mean of {bare} without a unit (S9); declare it in the body of "
                f'{view.source}: Annotated[int, Meta(extra={{"unit": "min"}})]'
            )
        if view.lateness != contract.lateness:
            raise ContractViolation(
                f"{where}, lateness: got {view.lateness}, wanted {contract.lateness}, that of {view.source}"
            )

    def dimension(self, name: str) -> "Dimension":
        """Return a dimension by name.

        Raises:
            ContractViolation: the domain has no such dimension; lists what it has.
        """
        for dimension in self.dimensions:
            if dimension.name == name:
                return dimension
        raise ContractViolation(
            f"domain {self.name}: no dimension {name!r} (found: {[each.name for each in self.dimensions]})"
        )

    def contract(self, event_type: str) -> Contract:
        """Return the contract of an event type.

        Raises:
            ContractViolation: the domain has no such type; lists what it has.
        """
        for contract in self.contracts:
            if contract.event_type == event_type:
                return contract
        raise ContractViolation(
            f"domain {self.name}: no event type {event_type!r} (found: {[c.event_type for c in self.contracts]})"
        )

    def view(self, qualified: str) -> FeatureView:
        """Return a view by qualified name such as ``origin_delay.v1``.

        Raises:
            ContractViolation: the domain has no such view; lists what it has.
        """
        for view in self.views:
            if view.qualified == qualified:
                return view
        raise ContractViolation(
            f"domain {self.name}: no view {qualified!r} (found: {[v.qualified for v in self.views]})"
        )

    @property
    def every_view(self) -> tuple[FeatureView | StaticView, ...]:
        """All view versions, those from events first."""
        return (*self.views, *self.statics)

    @property
    def columns(self) -> dict[str, ColumnType]:
        """Union of all body columns and the enrichment; one name has one type across the domain."""
        union: dict[str, ColumnType] = {}
        for owner, columns in [(c.event_type, c.columns) for c in self.contracts] + [
            ("enrichment", dict(self.enrichment))
        ]:
            for name, kind in columns.items():
                if union.setdefault(name, kind) != kind:
                    raise ContractViolation(
                        f"domain {self.name}: {name} is {union[name]} elsewhere but {kind} in {owner}"
                    )
        return union


def struct_columns(struct: type[msgspec.Struct]) -> dict[str, ColumnType]:
    """Return a Struct's fields as column types.

    Raises:
        ContractViolation: a field is not str, int, float or datetime (optionally None).
    """
    hints = get_type_hints(struct)
    return {name: _column_type(struct.__name__, name, hints[name]) for name in struct.__struct_fields__}


def _column_type(owner: str, name: str, hint: Any) -> ColumnType:  # Any: an annotation as found at run time
    members = [m for m in get_args(hint) if m is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    if len(members) != 1 or members[0] not in _COLUMN_TYPES:
        raise ContractViolation(
            f"{owner}.{name}: got {hint}, wanted str, int, float or datetime, or one of them | None"
        )
    return _COLUMN_TYPES[members[0]]
