"""Months and days as partitions, and the stretch of time a run of them is about.

Partitions of events and features are months of event time, those of curated tables days, all in UTC. A run may cover
several (one run, not one per month) and may be cut at an instant inside a month: a history that ends where a stream begins
is loaded to that instant and no further (S11).
"""

import dagster as dg

from headway.clock import format_us, parse_instant_us, to_us
from headway.drift import Window
from headway.errors import InputRejected

# The year 2013 of flights has events of both neighbours: flights of 1 January are scheduled on 31 December, and those
# of New Year's Eve arrive in January.
FIRST_MONTH = "2012-12-01"
END_MONTH = "2014-02-01"


def months(first: str = FIRST_MONTH, end: str = END_MONTH) -> dg.MonthlyPartitionsDefinition:
    """Return the months from ``first`` to before ``end``, both first days of a month."""
    return dg.MonthlyPartitionsDefinition(start_date=first, end_date=end)


def days(first: str = FIRST_MONTH, end: str = END_MONTH) -> dg.DailyPartitionsDefinition:
    """Return the days (UTC) from ``first`` to before ``end``."""
    return dg.DailyPartitionsDefinition(start_date=first, end_date=end)


class IntervalConfig(dg.Config):
    """Cuts a run of months to [start, end), RFC 3339 instants; null = where the months begin and end."""

    start: str | None = None
    end: str | None = None


def parse(text: str, *, field: str) -> int:
    """Return microseconds since the epoch of an instant in a run's configuration."""
    return parse_instant_us(text, field=field)


def interval(context: dg.AssetExecutionContext, config: IntervalConfig) -> Window:
    """Return what a run is about: its months or days, cut to the configuration.

    Raises:
        InputRejected: nothing of the months is left.
    """
    found = context.partition_time_window
    start_us, end_us = to_us(found.start), to_us(found.end)
    if config.start is not None:
        start_us = max(start_us, parse(config.start, field="start"))
    if config.end is not None:
        end_us = min(end_us, parse(config.end, field="end"))
    if start_us >= end_us:
        raise InputRejected(
            f"run of {found.start:%Y-%m} to {found.end:%Y-%m}: [{format_us(start_us)}, {format_us(end_us)}) is empty; "
            "choose months that the configured start and end touch"
        )
    return Window(from_us=start_us, until_us=end_us)
