"""Quotients of a column as Python rounds them.

Polars divides by a constant as it multiplies by the reciprocal, which is another bit for 23, 31 and 46 minutes of an hour. A
column divided by a column is exact, and so is numpy.
"""

import polars as pl


def quotient(value: pl.Expr, divisor: int) -> pl.Expr:
    """Return the column, which has no nulls, over a number, bit for bit what ``value / divisor`` is of one row."""

    def divided(values: pl.Series) -> pl.Series:
        return pl.Series(values.name, values.to_numpy() / divisor, dtype=pl.Float64)

    return value.map_batches(divided, return_dtype=pl.Float64, is_elementwise=True)
