"""From the lake's events to a curated table: each identity once, one row per thing, every event's fate counted.

Pure, and independent of the order of rows and of how many days are made at once: a day's rows, and so the bytes of its
file, follow from the day's events alone. Too-late events count here, as in every analysis of what was true (SEMANTICS S6,
mode ``truth``); features as served never saw them, so each row says how many of its events they are.
"""

from dataclasses import dataclass

import polars as pl

from headway.clock import from_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.warehouse import DAY, EVENTS, FATES, QUALITY, TOO_LATE_EVENTS, CuratedTable

# What an event's fate is decided by, whatever the table.
IDENTITY = ("source", "id")
TRANSPORT_READ = ("topic", "partition", "offset", "tick_before", "too_late")
_FATE = "__fate"


@dataclass(frozen=True, kw_only=True)
class Curated:
    """Some days of a curated table, sorted by day and keys, and the rows of the quality table beside them."""

    rows: pl.DataFrame
    quality: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Whether a table holds what the lake holds, day by day.

    Attributes:
        days: how many days are curated.
        totals: of all fates, and ``events``, over the days curated.
        wrong: one row per day that does not add up: what the lake has, what was counted, what the rows stand for.
        strays: events that happened further from their day than the table says, and are in no row.
        behind: days that have events nobody has counted yet, made or not; no fault.
    """

    days: int
    totals: dict[str, int]
    wrong: pl.DataFrame
    strays: int
    behind: tuple[str, ...]


def days_of(window: Window) -> list[str]:
    """Return the days of a window as the tables write them, ``2013-07-01``."""
    first, last = from_us(window.from_us).date(), from_us(window.until_us - 1).date()
    return [day.isoformat() for day in pl.date_range(first, last, eager=True)]


def curate(table: CuratedTable, events: pl.DataFrame) -> Curated:
    """Return the rows that events imply.

    Args:
        table: what to make.
        events: all events of its types whose ``day_of`` lies in some days, in any order: identity, type, time,
            transport and what the table reads.

    Raises:
        ContractViolation: ``build`` gave other columns, or not one row per thing.
    """
    dated = events.with_columns(pl.col(table.day_of).dt.strftime("%Y-%m-%d").alias(DAY))
    kept, repeated = _each_once(dated)
    fated = kept.with_columns(_fate())
    rows = _rows(table, fated)
    by = ["type", DAY]
    fates = pl.concat([fated.select(*by, _FATE), repeated.select(*by, pl.lit("duplicates").alias(_FATE))])
    counts = fates.group_by(by).agg(
        pl.len().cast(pl.Int64).alias(EVENTS),
        *((pl.col(_FATE) == fate).sum().cast(pl.Int64).alias(fate) for fate in FATES),
    )
    quality = counts.with_columns(dataset=pl.lit(table.name)).select(list(QUALITY.columns)).sort(DAY, "type")
    return Curated(rows=rows, quality=quality)


def reconcile(in_lake: pl.DataFrame, quality: pl.DataFrame, in_rows: pl.DataFrame, *, read: pl.DataFrame) -> Reconciled:
    """Compare what the lake holds with what was counted and with what the rows stand for.

    in = strays + on time + late + too late + duplicates, and what is no stray and no duplicate is behind a row.

    No day may count more than the lake holds, and none of the newest run's fewer than that run read: another run may
    have made days from newer events meanwhile, which is no fault of either.

    Args:
        in_lake: ``day``, ``events`` and how many of them are ``strays``, of every day of the table's events; read after
            the other two.
        quality: the table's rows of the quality table.
        in_rows: ``day`` and ``events``: the sum over the curated rows.
        read: the columns of ``in_lake`` for the days the newest run made, as the lake was when it read.
    """
    counted = quality.group_by(DAY).agg(pl.col(EVENTS).sum().alias("counted"), pl.col(*FATES).sum())
    days = (
        in_lake.rename({EVENTS: "in_lake"})
        .join(counted, on=DAY, how="full", coalesce=True, validate="1:1")
        .join(in_rows.rename({EVENTS: "in_rows"}), on=DAY, how="full", coalesce=True, validate="1:1")
        .join(read.select(DAY, (pl.col(EVENTS) - pl.col("strays")).alias("read")), on=DAY, how="left", validate="1:1")
        .sort(DAY)
    )
    known = days.with_columns(pl.exclude(DAY).fill_null(0))
    here = (pl.col("counted") == pl.sum_horizontal(*FATES)) & (
        pl.col("in_rows") == pl.col("counted") - pl.col("duplicates")
    )
    readable, counts = pl.col("in_lake") - pl.col("strays"), pl.col("counted")
    right = here & counts.is_between(pl.col("read"), readable)
    return Reconciled(
        days=days["counted"].count(),
        totals={name: int(quality[name].sum()) for name in (EVENTS, *FATES)},
        wrong=known.filter(~right),
        strays=int(known["strays"].sum()),
        behind=tuple(known.filter((counts >= pl.col("read")) & (counts < readable))[DAY]),
    )


def _each_once(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return every identity's first event of a day, and the repeats: first write wins, history in bulk before any (S12)."""
    identity = [DAY, *IDENTITY]
    several = events.select(identity).is_duplicated()
    # What stands equal by its place in the log is ordered by all it says, so that no order of rows can show.
    rest = [name for name in events.columns if name not in (*identity, "offset", "partition")]
    ordered = events.filter(several).sort(*identity, "offset", "partition", *rest, nulls_last=False)
    first = ordered.select(pl.struct(identity).is_first_distinct()).to_series()
    return pl.concat([events.filter(~several), ordered.filter(first)]), ordered.filter(~first)


def _fate() -> pl.Expr:
    # A tick X says that everything up to X has been sent (S2); history in bulk knows no ticks and is on time.
    late = pl.col("time") <= pl.col("tick_before")
    return (
        pl.when(pl.col("too_late"))
        .then(pl.lit("too_late"))
        .when(late)
        .then(pl.lit("late"))
        .otherwise(pl.lit("on_time"))
        .alias(_FATE)
    )


def _rows(table: CuratedTable, fated: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of kept events, a thing of two days once per day: no day's rows depend on the others made with it."""
    keys = list(table.keys)
    several_days = fated.group_by(keys).agg(pl.col(DAY).n_unique()).filter(pl.col(DAY) > 1)
    torn = fated.join(several_days, on=keys, how="semi")
    whole = fated if torn.is_empty() else fated.join(several_days, on=keys, how="anti")
    parts = [_built(table, part) for part in (whole, *torn.partition_by(DAY))]
    return pl.concat(parts).sort(DAY, *keys)


def _built(table: CuratedTable, fated: pl.DataFrame) -> pl.DataFrame:
    keys = list(table.keys)
    built = table.build(fated.drop(_FATE))
    wanted = {name: column.dtype for name, column in table.columns.items()}
    if dict(built.schema) != wanted:
        raise ContractViolation(f"curated table {table.name}, build: got {dict(built.schema)}, wanted {wanted}")
    things = fated.group_by(keys).agg(
        pl.col(DAY).first(),
        pl.len().cast(pl.Int64).alias(EVENTS),
        (pl.col(_FATE) == "too_late").sum().cast(pl.Int64).alias(TOO_LATE_EVENTS),
    )
    rows = built.join(things, on=keys, how="inner")
    if not rows.height == built.height == things.height:
        raise ContractViolation(
            f"curated table {table.name}, build: gave {built.height} rows, {built.select(keys).n_unique()} of them "
            f"distinct by {keys}, for {things.height} things; wanted one row each, without a null among {keys}"
        )
    return rows.select(list(table.table.columns))
