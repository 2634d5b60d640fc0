"""The point-in-time join: each request with its entity's newest row at or before the instant it asks about."""

from collections.abc import Sequence

import polars as pl

REQUEST_TIME = "event_timestamp"


def join_as_of(
    requests: pl.DataFrame, rows: pl.LazyFrame, *, keys: Sequence[str], order: Sequence[str]
) -> pl.DataFrame:
    """``requests`` in their order, each with the values of its entity's last row at or before ``event_timestamp``.

    Args:
        requests: one row per request: ``event_timestamp``, ``keys`` and anything else.
        keys: columns that name the entity, in both.
        rows: ``keys``, ``order`` and values; but for the keys, names the requests do not use.
        order: the rows' time column, then what decides between equal times; the greatest wins.
    """
    time, *_ = order
    newest = (
        rows.filter(pl.col(time) <= requests[REQUEST_TIME].max())
        .sort(order)
        .unique([*keys, time], keep="last", maintain_order=True)
        .collect()
    )
    return (
        requests.with_row_index("__position")
        .sort(REQUEST_TIME)
        .join_asof(
            newest,
            left_on=REQUEST_TIME,
            right_on=time,
            by=list(keys),
            coalesce=False,
            check_sortedness=False,
        )
        .sort("__position")
        .drop("__position")
    )
