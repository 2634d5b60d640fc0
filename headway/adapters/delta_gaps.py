"""Days on which the lake has events of a view and not one row of it: a version whose past nobody backfilled (S20).

Joined over such a day its features are nulls, and nothing would say so. What bites: a day is as fine as this looks. A
forgotten entity leaves no gap unless it was alone on that day, and a version that began in the middle of a day hides the
rest of it.
"""

import polars as pl

from headway.adapters.delta import Lake
from headway.clock import format_us, from_us
from headway.drift import Window
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView

_DAYS_NAMED = 3


def why_incomplete(
    lake: Lake,
    view: FeatureView,
    *,
    window: Window | None = None,
    events_version: int | None = None,
    table_version: int | None = None,
) -> str | None:
    """Return why a view's table cannot be joined over a window, or over all there is; None when it can.

    Args:
        lake: with both tables; without a table of events every day is complete that has rows.
        view: a view version.
        window: the instants that a join will look at; None = all.
        events_version: of the table of events; None = the newest.
        table_version: likewise, of the view's table.
    """
    table = changelog_table(view).name
    if not lake.exists(table) or not lake.files(table):
        return "has no rows in the lake"
    if not lake.exists("events"):
        return None
    named = pl.all_horizontal(pl.col(key).is_not_null() for key in view.keys)
    counted = (pl.col("type") == view.source) & named & ~pl.col("too_late").fill_null(value=False)
    events = _days(lake.scan("events", version=events_version).filter(counted), "time", window)
    rows = _days(lake.scan(table, version=table_version), "event_timestamp", window)
    lacking = events.join(rows, on="day", how="anti").sort("day")["day"].to_list()
    if not lacking:
        return None
    named_days = ", ".join(map(str, lacking[:_DAYS_NAMED])) + (", ..." if len(lacking) > _DAYS_NAMED else "")
    return f"has no rows in the lake on {len(lacking)} days that have events ({named_days})"


def _days(rows: pl.LazyFrame, instant: str, window: Window | None) -> pl.DataFrame:
    if window is not None:
        inside = (pl.col(instant) >= from_us(window.from_us)) & (pl.col(instant) < from_us(window.until_us))
        first, last = (format_us(us)[:7] for us in (window.from_us, window.until_us))
        rows = rows.filter(pl.col("month").is_between(pl.lit(first), pl.lit(last)) & inside)
    return rows.select(day=pl.col(instant).dt.date()).unique().collect()
