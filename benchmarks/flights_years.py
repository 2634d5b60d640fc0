"""Years of flights as a lake: the year there is, and the same again 53 weeks later, as often as wanted."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.backfill_events import EVENTS, event_columns
from headway.clock import DAY_US, parse_instant_us, to_us
from headway.commands import Say
from headway.drift import Window
from headway.errors import ContractViolation
from headway.lake import as_table, events_table

# Whole weeks and hops, and more than the year with what reaches into its neighbours.
_STEP_US = 53 * 7 * DAY_US


def make_years(root: Path, years: int, say: Say, *, also: Sequence[str] = ()) -> tuple[int, Window]:
    """Write a lake of so many years; return its events, and the window of all rows they imply.

    Only columns that features read are filled, and those that are ``also`` wanted; instants move with their year.
    Identities differ from year to year.
    """
    say(f"writing {years} years of flights")
    load = DOMAIN.load_history
    if load is None:
        raise ContractViolation("domain flights: has no history to load")
    first_us, last_us = (parse_instant_us(f"{at}-01T00:00:00Z", field="month") for at in ("2012-12", "2014-02"))
    needed = list(dict.fromkeys(["source", "subject", *event_columns(DOMAIN.views), *also]))
    year = load().events_between(first_us, last_us).select(needed)
    lake, table = Lake(root), events_table(DOMAIN)
    lake.create(table)
    for number in range(years):
        later = pl.selectors.datetime() + pl.duration(microseconds=number * _STEP_US)
        identity = (pl.format("{}:{}", pl.lit(number), pl.col(name)).alias(name) for name in ("id", "subject"))
        lake.append(EVENTS, as_table(year.with_columns(later, *identity), table))
    return years * year.height, _window(year, years)


def _window(year: pl.DataFrame, years: int) -> Window:
    oldest_us, newest_us = (to_us(each) for each in year.select(a=pl.col("time").min(), b=pl.col("time").max()).row(0))
    widest_us = max(view.max_window_us + view.hop_us for view in DOMAIN.views)
    return Window(from_us=oldest_us, until_us=newest_us + (years - 1) * _STEP_US + widest_us + 1)
