"""What was true of an entity, and when: a dimension's rows with ``valid_from`` and ``valid_to`` (slow changes, type 2).

A row holds for valid_from <= T < valid_to; null is "still". Loads go forward, and a load at an instant replaces what was
loaded at that same instant, so a wrong load can be repeated right. Of one entity no two rows overlap, and no two that meet
are equal: the rows follow from what was loaded when, and from nothing else.

What bites: the time is that of the load, when the source was seen to say so. To tell training of the past what was true
then, load the past's data as of then, before anything later.
"""

import polars as pl

from headway.clock import format_us, from_us, to_us
from headway.errors import ContractViolation
from headway.features.wellformed import refuse
from headway.lake import INSTANT
from headway.warehouse import VALID_FROM, VALID_TO, Dimension


def after_load(dimension: Dimension, known: pl.DataFrame, loaded: pl.DataFrame, *, at_us: int) -> pl.DataFrame:
    """Return the whole table after a load: entities that are new or differ begin a row, those that differ or are gone end one.

    Args:
        dimension: whose table.
        known: the whole table before.
        loaded: what `Dimension.load` returned.
        at_us: the instant from which it holds.

    Raises:
        ContractViolation: the load has other columns or types, a null key or an entity twice, or is of the past.
    """
    keys, columns = list(dimension.keys), list(dimension.columns)
    check_load(dimension, loaded)
    latest_us = max(map(to_us, [*known[VALID_FROM], *known[VALID_TO].drop_nulls()]), default=at_us)
    if latest_us > at_us:
        raise ContractViolation(
            f"dimension {dimension.name}: got a load of {format_us(at_us)}, but there is one of "
            f"{format_us(latest_us)}; loads go forward"
        )
    at = pl.lit(from_us(at_us)).cast(INSTANT)
    earlier = known.filter(pl.col(VALID_FROM) < at)
    ends = earlier[VALID_TO].is_null() | (earlier[VALID_TO] == from_us(at_us))
    before, ended = earlier.filter(ends), earlier.filter(~ends)
    both = before.join(loaded, on=keys, how="left", suffix=":now", validate="1:1").join(
        loaded.select(*keys, pl.lit(value=True).alias(":there")), on=keys, how="left"
    )
    same = pl.col(":there").is_not_null() & pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}:now")) for c in columns)
    judged = both.with_columns(same.alias(":same"))
    kept = judged.with_columns(pl.when(~pl.col(":same")).then(at).alias(VALID_TO))
    begun = loaded.join(judged.filter(":same"), on=keys, how="anti").with_columns(
        at.alias(VALID_FROM), pl.lit(None, INSTANT).alias(VALID_TO)
    )
    order = list(dimension.table.columns)
    return pl.concat([ended.select(order), kept.select(order), begun.select(order)]).sort(*keys, VALID_FROM)


def valid_at(rows: pl.DataFrame, at_us: int) -> pl.DataFrame:
    """Return a dimension's rows that hold at an instant, one per entity that was there."""
    at = from_us(at_us)
    return rows.filter((pl.col(VALID_FROM) <= at) & (pl.col(VALID_TO).is_null() | (pl.col(VALID_TO) > at)))


def changes(dimension: Dimension, rows: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Return since when an entity's columns say something else: keys, ``valid_from``, columns; all null once it is gone."""
    keys = list(dimension.keys)
    began = rows.select(*keys, VALID_FROM, *columns)
    gone = (
        rows.filter(pl.col(VALID_TO).is_not_null())
        .select(*keys, pl.col(VALID_TO).alias(VALID_FROM))
        .join(began, on=[*keys, VALID_FROM], how="anti")
        .with_columns(pl.lit(None, dimension.loaded[name]).alias(name) for name in columns)
    )
    ordered = pl.concat([began, gone]).sort(*keys, VALID_FROM)
    entity = pl.struct(keys)
    told = pl.struct(columns)
    first = entity.ne_missing(entity.shift())
    return ordered.filter(first | told.ne_missing(told.shift()))


def overlaps(dimension: Dimension, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that break what this module promises: empty, running into the next, or equal to it where they meet."""
    keys = list(dimension.keys)
    ordered = rows.sort(*keys, VALID_FROM)
    following = ordered.with_columns(
        pl.col(VALID_FROM).shift(-1).over(keys).alias(":next"),
        pl.struct(list(dimension.columns)).shift(-1).over(keys).alias(":says"),
    )
    until = pl.col(VALID_TO)
    runs_on = pl.col(":next").is_not_null() & (until.is_null() | (until > pl.col(":next")))
    repeats = (until == pl.col(":next")) & pl.struct(list(dimension.columns)).eq_missing(pl.col(":says"))
    empty = until <= pl.col(VALID_FROM)
    return following.filter((runs_on | repeats | empty).fill_null(value=False)).drop(":next", ":says")


def check_load(dimension: Dimension, loaded: pl.DataFrame) -> None:
    """Refuse a load that is not one row per entity in the dimension's columns.

    Raises:
        ContractViolation: see there.
    """
    where = f"dimension {dimension.name}, load"
    if dict(loaded.schema) != dimension.loaded:
        raise refuse(where, "columns", got=dict(loaded.schema), wanted=f"{dimension.loaded}, in this order")
    without = loaded.filter(pl.any_horizontal(pl.col(*dimension.keys).is_null())).height
    twice = loaded.height - loaded.unique(list(dimension.keys)).height
    if without or twice:
        raise refuse(where, "rows", got=f"{without} without a key, {twice} repeated", wanted="one row per entity")
