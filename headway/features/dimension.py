"""Loads of static views into a slow dimension: what changed, at the instant it was seen to have changed.

A load compares what is known with what is true now and keeps the difference: one row per entity whose values changed, in
the layout of a changelog, so that Feast, the lake and the online store treat both alike. A load that finds nothing new
adds nothing, so it can be repeated.

What bites: loads go forward. A past instant would need the rows that later loads did not write, because nothing changed.
"""

from collections.abc import Mapping

import polars as pl

from headway.clock import format_us, from_us, to_us
from headway.errors import ContractViolation
from headway.features.changelog import changelog_table
from headway.features.definitions import Dtype
from headway.features.static import StaticView
from headway.features.wellformed import refuse
from headway.lake import INSTANT, as_table

_POLARS: Mapping[Dtype, pl.DataType] = {"int64": pl.Int64(), "float64": pl.Float64()}


def newest_rows(view: StaticView, known: pl.DataFrame) -> pl.DataFrame:
    """Return of rows of the view's table the newest of each entity, by keys."""
    ordered = known.sort("event_timestamp", "revision")
    return ordered.unique(list(view.keys), keep="last", maintain_order=True).sort(view.keys)


def changed_rows(view: StaticView, known: pl.DataFrame, loaded: pl.DataFrame, *, at_us: int) -> pl.DataFrame:
    """Return the rows a load adds to the view's table: entities that are new, differ, or are gone (all null).

    Args:
        view: the view.
        known: the newest row of each entity, as ``newest_rows`` gives them.
        loaded: what `StaticView.load` returned.
        at_us: the instant of the load.

    Raises:
        ContractViolation: the load has other columns or types, a null key or an entity twice, or is of the past.
    """
    keys, columns = list(view.keys), list(view.columns)
    rows = _checked(view, loaded)
    latest_us = max(map(to_us, known["event_timestamp"]), default=at_us)
    if latest_us > at_us:
        raise ContractViolation(
            f"static view {view.qualified}: got a load of {format_us(at_us)}, but there are rows of "
            f"{format_us(latest_us)}; loads go forward"
        )
    before = known.select(*keys, "event_timestamp", "revision", *(pl.col(c).alias(f"known:{c}") for c in columns))
    both = rows.join(before, on=keys, how="full", coalesce=True, validate="1:1")
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"known:{c}")) for c in columns)
    changed = both.filter(~same | pl.col("revision").is_null()).sort(keys)
    at = pl.lit(from_us(at_us)).cast(INSTANT)
    again = pl.col("event_timestamp") == at
    fitted = changed.select(
        *keys,
        *columns,
        revision=pl.when(again).then(pl.col("revision") + 1).otherwise(0),
        event_timestamp=at,
        known_at=at,
        source=pl.lit("warehouse"),
        month=at.dt.strftime("%Y-%m"),
    )
    created = fitted.with_columns(created_timestamp=pl.col("revision").cast(INSTANT))
    return as_table(created, changelog_table(view))


def _checked(view: StaticView, loaded: pl.DataFrame) -> pl.DataFrame:
    where = f"static view {view.qualified}, load"
    wanted = {**dict.fromkeys(view.keys, pl.String()), **{n: _POLARS[d] for n, d in view.columns.items()}}
    if dict(loaded.schema) != wanted:
        raise refuse(where, "columns", got=dict(loaded.schema), wanted=f"{wanted}, in this order")
    without = loaded.filter(pl.any_horizontal(pl.col(*view.keys).is_null())).height
    twice = loaded.height - loaded.unique(list(view.keys)).height
    if without or twice:
        raise refuse(where, "rows", got=f"{without} without a key, {twice} repeated", wanted="one row per entity")
    return loaded
