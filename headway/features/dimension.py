"""Static views as changelogs: what a dimension of the warehouse says changed, at the instant it changed.

The rows have the layout of every changelog, so that Feast, the lake and the online store treat both alike. They follow from
the dimension alone: a new version of a view gets its past from there, and a repeat adds nothing.
"""

from collections.abc import Mapping

import polars as pl

from headway.features.changelog import changelog_table
from headway.features.static import StaticView
from headway.lake import INSTANT, as_table
from headway.validity import changes
from headway.warehouse import VALID_FROM, Dimension

_TIME, _REVISION = "event_timestamp", "revision"


def newest_rows(view: StaticView, known: pl.DataFrame) -> pl.DataFrame:
    """Return of rows of the view's table the newest of each entity, by keys."""
    ordered = known.sort(_TIME, _REVISION)
    return ordered.unique(list(view.keys), keep="last", maintain_order=True).sort(view.keys)


def changed_rows(view: StaticView, known: pl.DataFrame, dimension: Dimension, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what the view's table lacks of what the dimension says.

    A change the table does not have begins at revision 0. An instant it has and that reads otherwise now, because the load
    of that instant was repeated, gets a higher revision: nothing is ever taken back.

    Args:
        view: the view.
        known: all rows of its table.
        dimension: the dimension it is fed from.
        rows: the dimension's table.
    """
    keys, columns = list(view.keys), list(view.columns)
    names: Mapping[str, str] = dict(zip(dimension.keys, keys, strict=True))
    said = changes(dimension, rows, columns).rename({**names, VALID_FROM: _TIME}).sort(_TIME)
    written = known.sort(_REVISION).unique([*keys, _TIME], keep="last", maintain_order=True)
    before = written.select(*keys, _TIME, _REVISION, *(pl.col(c).alias(f"known:{c}") for c in columns))
    instants = pl.concat([said.select(*keys, _TIME), before.select(*keys, _TIME)]).unique().sort(_TIME)
    as_of = instants.join_asof(said, on=_TIME, by=keys, check_sortedness=False).join(
        before, on=[*keys, _TIME], how="left", validate="1:1"
    )
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"known:{c}")) for c in columns)
    changed = as_of.filter(~same | pl.col(_REVISION).is_null()).sort(*keys, _TIME)
    fitted = changed.select(
        *keys,
        *columns,
        _TIME,
        (pl.col(_REVISION) + 1).fill_null(0).alias(_REVISION),
        pl.col(_TIME).alias("known_at"),
        pl.lit("warehouse").alias("source"),
        pl.col(_TIME).dt.strftime("%Y-%m").alias("month"),
    )
    created = fitted.with_columns(created_timestamp=pl.col(_REVISION).cast(INSTANT))
    return as_table(created, changelog_table(view))
