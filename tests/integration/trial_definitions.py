"""The code location with two trial products on a tenth of the flights: one sound, one with shuffled labels."""

from dataclasses import replace

import polars as pl

from domains.flights.domain import DOMAIN
from orchestration.definitions import build
from products.catalogue import find_product

_BASE = find_product("flight_delay")


def _some(events: pl.DataFrame) -> pl.DataFrame:
    return _BASE.examples(events).filter(pl.col("flight") % 10 == 0)


def _shuffled(events: pl.DataFrame) -> pl.DataFrame:
    arrived = _some(events).filter(pl.col("label").is_not_null())
    return arrived.with_columns(pl.col("label").shuffle(seed=7))


GOOD = replace(
    _BASE,
    name="sound",
    examples=_some,
    model=replace(_BASE.model, trees=40, min_rows_in_leaf=20),
    gate=replace(
        _BASE.gate,
        floor_average_precision=0.3,
        min_rows=200,
        min_positives=50,
        min_slice_rows=100,
        # What is not under test must not decide: a busy machine, and a tenth of a week.
        max_row_latency_us=1e6,
        max_calibration_gap=0.5,
        outage_budget=1.0,
        leak_tolerance=1.0,
    ),
    drift=replace(_BASE.drift, min_rows=200, min_slice_rows=20),
)
BAD = replace(GOOD, name="shuffled", examples=_shuffled)

defs = build([DOMAIN], [GOOD, BAD])
