"""What there is to predict, and what became of it: flights on the schedule, late or not (SEMANTICS S18)."""

import polars as pl

from domains.flights.contracts import ARRIVED, CANCELLED, DIVERTED, LATE_MIN, SCHEDULED

_FIELDS = ("carrier", "flight", "tail", "origin", "dest", "sched_dep", "sched_arr", "distance_mi")
_OUTCOMES = {ARRIVED: "arrived", CANCELLED: "cancelled", DIVERTED: "diverted"}


def examples(events: pl.DataFrame) -> pl.DataFrame:
    """Return one row per scheduled flight, with its outcome as far as the events tell.

    Cancelled and diverted flights have an outcome and no label; a flight without an outcome event has neither. Of
    several events about one thing the newest revision counts: the last in the log, history in bulk before any of it.
    """
    column = pl.col
    scheduled = _newest(events.filter(column("type") == SCHEDULED)).select("subject", *_FIELDS)
    ended = _newest(events.filter(column("type").is_in(list(_OUTCOMES)))).select(
        "subject",
        column("type").replace_strict(_OUTCOMES, return_dtype=pl.String).alias("outcome"),
        (column("arr_delay_min") > LATE_MIN).alias("label"),
        column("time").dt.timestamp("us").alias("label_known_at_us"),
    )
    flights = scheduled.join(ended, on="subject", how="left", validate="1:1")
    return flights.with_columns(
        column("outcome").fill_null("unknown"),
        column("sched_dep").dt.timestamp("us").alias("window_us"),
        column("sched_arr").dt.timestamp("us").alias("due_us"),
    )


def _newest(events: pl.DataFrame) -> pl.DataFrame:
    # Partitions have their own offsets, but a flight's events share one: the log is keyed by subject (S3).
    ordered = events.sort("offset", "time", "id", nulls_last=False)
    return ordered.unique("subject", keep="last", maintain_order=True)
