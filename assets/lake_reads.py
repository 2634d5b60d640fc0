"""Which rows of the lake an asset needs: cut by month and instant, so that a week's work reads a week's files."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.delta_gaps import why_incomplete
from headway.batch_reads import AROUND_US, around
from headway.clock import DAY_US, duration_us, from_us, to_us
from headway.curation import IDENTITY, TRANSPORT_READ
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.definitions import FeatureView
from headway.lake import TRANSPORT, events_table
from headway.product import Product
from headway.training import ValuesAt, values_from_changelog
from headway.warehouse import DAY, EVENTS, CuratedTable


def known_until(lake: Lake, version: int | None = None) -> int:
    """Return how far events are known: the newest event time in the lake, in microseconds.

    Raises:
        ContractViolation: there are no events.
    """
    newest = lake.scan("events", version=version).select(pl.col("time").max()).collect().item()
    if newest is None:
        raise ContractViolation("lake table events: is empty; load history or stream events first")
    return to_us(newest)


def events_around(lake: Lake, product: Product, window: Window, *, version: int | None = None) -> pl.DataFrame:
    """Return the events that tell about things of a window, in the lake's columns without transport but the offset."""
    columns = [name for name in events_table(product.domain).columns if name not in TRANSPORT or name == "offset"]
    return lake.read("events", columns=columns, version=version, predicate=around(window, AROUND_US, column="time"))


def events_behind(lake: Lake, product: Product, predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the events that can show in what predictions read, of all types, with their places in the log."""
    views = product.feature_views.values()
    fields = {name for view in views for name in (*view.keys, *view.fields)}
    wanted = {"id", "type", "time", "topic", "partition", "offset", "tick_before", "too_late", *fields}
    columns = [name for name in events_table(product.domain).columns if name in wanted]
    if predictions.is_empty() or any(aggregate.window is None for view in views for aggregate in view.aggregates):
        return lake.read("events", columns=columns)
    asked = predictions["as_of"].dt.timestamp("us")
    reach_us = max(view.max_window_us + view.hop_us for view in views) + DAY_US
    window = Window(from_us=_int(asked.min()) - reach_us, until_us=_int(asked.max()) + DAY_US)
    return lake.read("events", columns=columns, predicate=around(window, 0, column="time"))


def events_of_days(lake: Lake, table: CuratedTable, window: Window, *, version: int) -> pl.DataFrame:
    """Return the events that tell about a curated table's things of whole days, with what decides their fate."""
    wide = Window(
        from_us=window.from_us - duration_us(table.before), until_us=window.until_us + duration_us(table.after)
    )
    day = pl.col(table.day_of).dt.truncate("1d")
    inside = (day >= from_us(window.from_us)) & (day < from_us(window.until_us))
    told = around(wide, 0, column="time") & pl.col("type").is_in(table.event_types) & inside & _near(table)
    columns = dict.fromkeys((*IDENTITY, "type", "time", *sorted(table.reads), *TRANSPORT_READ))
    return lake.read("events", columns=list(columns), version=version, predicate=told)


def events_by_day(lake: Lake, table: CuratedTable, *, version: int) -> pl.DataFrame:
    """Return how many events of a curated table's things the lake holds of each day, and how many of them are strays.

    A stray happened further from its day than the table says events do, so no run reads it.
    """
    told = lake.scan("events", version=version).filter(pl.col("type").is_in(table.event_types))
    counts = (pl.len().cast(pl.Int64).alias(EVENTS), (~_near(table)).sum().cast(pl.Int64).alias("strays"))
    by_day = told.group_by(pl.col(table.day_of).dt.truncate("1d").alias(DAY)).agg(counts).collect()
    return by_day.with_columns(pl.col(DAY).dt.strftime("%Y-%m-%d"))


def changelog_values(
    lake: Lake, views: Iterable[FeatureView], window: Window, *, versions: Mapping[str, int] | None = None
) -> ValuesAt:
    """Return a reader of view values as of instants inside the window.

    Raises:
        ContractViolation: a view version was not backfilled that far; its values would be null, and nothing would say so.
    """
    tables = {}
    for view in views:
        table = f"features.{view.qualified}"
        # The newest row before the window may be as old as the widest aggregate; older ones say what no row says.
        reach_us = view.max_window_us + view.hop_us + DAY_US
        wide = Window(from_us=window.from_us - reach_us, until_us=window.until_us)
        pinned = {} if versions is None else {"events_version": versions["events"], "table_version": versions[table]}
        if why := why_incomplete(lake, view, window=wide, **pinned):
            raise ContractViolation(
                f"lake table {table}: {why}; materialise the asset features/{view.online_name} for them first"
            )
        forever = any(aggregate.window is None for aggregate in view.aggregates)
        tables[view.qualified] = lake.read(
            table,
            columns=[*view.keys, "event_timestamp", "revision", *view.columns],
            version=None if versions is None else versions[table],
            predicate=pl.col("event_timestamp") < from_us(wide.until_us)
            if forever
            else around(wide, 0, column="event_timestamp"),
        )
    return values_from_changelog(tables)


def _near(table: CuratedTable) -> pl.Expr:
    """Whether an event is as near to its own day as the table says; which other days are made with it must not show."""
    day = pl.col(table.day_of).dt.truncate("1d")
    return (pl.col("time") >= day - table.before) & (pl.col("time") < day + timedelta(days=1) + table.after)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
