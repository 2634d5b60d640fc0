"""What a domain's warehouse holds, declared: curated tables, dimensions, reports, and what each column means.

A curated table has one row per thing that happened, made from the lake's events by a pure function; a dimension has what
is true of an entity and from when to when; a report is one SQL statement over both. Days are days in UTC, like the
lake's months and the windows of features: a day has 24 hours, lies in one month, and means the same in every zone. What
people call a day is a column of the table (`docs/warehouse.md`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from headway.features.wellformed import check_named, check_told, refuse
from headway.lake import INSTANT, LakeTable

DAY, EVENTS, TOO_LATE_EVENTS = "day", "events", "too_late_events"
VALID_FROM, VALID_TO = "valid_from", "valid_to"
# What every curated table has beside its own columns.
ADDED = {
    DAY: "the partition, a day in UTC",
    EVENTS: "how many events the row stands for",
    TOO_LATE_EVENTS: "how many of them came too late for features (S6)",
}
# What became of an event on its way into a curated table; every one has exactly one fate.
FATES = ("on_time", "late", "too_late", "duplicates")


@dataclass(frozen=True, kw_only=True)
class WarehouseColumn:
    """One column: its type, what it means, and which columns it is made from.

    Attributes:
        sources: of a curated table, columns of the lake's ``events``; of a report, ``<table>.<column>``.
    """

    dtype: pl.DataType
    description: str
    unit: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CuratedTable:
    """One row per thing that events tell about, by day.

    Attributes:
        thing: what a row is, in one word.
        event_types: the events that tell about it.
        keys: event columns that name the thing; never null.
        day_of: the event column, an instant, whose day (UTC) is the partition; equal in all events of a thing.
        before, after: how far outside its day a thing's events may happen. Only bounds what is read: an event beyond is
            missed, and the reconciliation says so.
        columns: everything ``build`` returns, keys included.
        required: columns that are never null.
        build: pure; the events of some days, each identity once, to one row per thing. It has to decide by values,
            never by the order of rows, which is any.
    """

    name: str
    thing: str
    event_types: tuple[str, ...]
    keys: tuple[str, ...]
    day_of: str
    before: timedelta
    after: timedelta
    columns: Mapping[str, WarehouseColumn]
    required: tuple[str, ...]
    build: Callable[[pl.DataFrame], pl.DataFrame]
    owner: str
    description: str

    def __post_init__(self) -> None:
        check_named("curated table", "name", self.name, example="flights")
        where = f"curated table {self.name}"
        check_told(where, {"owner": self.owner, "description": self.description, "thing": self.thing})
        if not self.event_types:
            raise refuse(where, "event_types", got=self.event_types, wanted="at least one")
        if missing := [name for name in (*self.keys, *self.required) if name not in self.columns]:
            raise refuse(where, "columns", got=sorted(self.columns), wanted=f"also {missing}")
        if taken := sorted({DAY, EVENTS, TOO_LATE_EVENTS} & self.columns.keys()):
            raise refuse(where, "columns", got=taken, wanted="names that its table has not yet")

    @property
    def table(self) -> LakeTable:
        """The table in the lake: a folder, and one file, per day."""
        return LakeTable(
            name=f"curated.{self.name}",
            columns={
                **{name: column.dtype for name, column in self.columns.items()},
                DAY: pl.String(),
                EVENTS: pl.Int64(),
                TOO_LATE_EVENTS: pl.Int64(),
            },
            partition_by=(DAY,),
            required=(*dict.fromkeys((*self.keys, *self.required)), DAY, EVENTS, TOO_LATE_EVENTS),
        )

    @property
    def reads(self) -> frozenset[str]:
        """The columns of ``events`` that ``build`` is given, beside identity and transport."""
        return frozenset((*self.keys, self.day_of, *(s for column in self.columns.values() for s in column.sources)))


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """What is true of an entity, with the time it is true of (slowly changing, type 2).

    Attributes:
        keys: what names the entity; strings, never null.
        columns: its attributes; all may be null.
        load: reads the attributes as they are now, one row per entity: keys, then columns. Called by composition roots,
            never at import.
    """

    name: str
    keys: tuple[str, ...]
    columns: Mapping[str, WarehouseColumn]
    load: Callable[[], pl.DataFrame]
    owner: str
    description: str

    def __post_init__(self) -> None:
        check_named("dimension", "name", self.name, example="planes")
        where = f"dimension {self.name}"
        check_told(where, {"owner": self.owner, "description": self.description})
        if not self.keys or not self.columns:
            raise refuse(
                where, "keys and columns", got=(self.keys, sorted(self.columns)), wanted="at least one of each"
            )
        if taken := sorted({*self.keys, VALID_FROM, VALID_TO} & self.columns.keys()):
            raise refuse(where, "columns", got=taken, wanted="names that its table has not yet")

    @property
    def table(self) -> LakeTable:
        """The table in the lake: one row per entity and stretch of time."""
        return LakeTable(
            name=f"dimensions.{self.name}",
            columns={**self.loaded, VALID_FROM: INSTANT, VALID_TO: INSTANT},
            required=(*self.keys, VALID_FROM),
        )

    @property
    def loaded(self) -> dict[str, pl.DataType]:
        """The columns of a load and their types."""
        attributes = {name: column.dtype for name, column in self.columns.items()}
        return {**dict.fromkeys(self.keys, pl.String()), **attributes}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a report's picture shows: each measure over ``over``, a line per value of ``by``, averaged by ``weight``."""

    over: str
    by: str
    weight: str
    measures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One table of figures, as one SQL statement (DuckDB) over tables of the warehouse.

    Attributes:
        sql: selects exactly ``columns``; tables are named as in the lake, ``curated.flights``.
        reads: those tables.
        keys: what names a row; rows are sorted by them.
        counts: the column that counts things, and whose sum is the number of rows of the first table read.
    """

    name: str
    sql: str
    reads: tuple[str, ...]
    keys: tuple[str, ...]
    counts: str
    columns: Mapping[str, WarehouseColumn]
    drawn: Drawn
    owner: str
    description: str

    def __post_init__(self) -> None:
        check_named("report", "name", self.name, example="delays")
        where = f"report {self.name}"
        check_told(where, {"owner": self.owner, "description": self.description, "sql": self.sql})
        named = (*self.keys, self.counts, self.drawn.over, self.drawn.by, self.drawn.weight, *self.drawn.measures)
        if missing := [name for name in named if name not in self.columns]:
            raise refuse(where, "columns", got=sorted(self.columns), wanted=f"also {missing}")
        if absent := [table for table in self.reads if table not in self.sql]:
            raise refuse(where, "reads", got=absent, wanted="tables that its SQL names")

    @property
    def table(self) -> LakeTable:
        """The table in the lake."""
        return LakeTable(
            name=f"reports.{self.name}",
            columns={name: column.dtype for name, column in self.columns.items()},
            required=self.keys,
        )


QUALITY = LakeTable(
    name="curated.quality",
    columns={"dataset": pl.String(), DAY: pl.String(), "type": pl.String(), EVENTS: pl.Int64()}
    | dict.fromkeys(FATES, pl.Int64()),
    partition_by=("dataset", DAY),
    required=("dataset", DAY, "type", EVENTS, *FATES),
)
