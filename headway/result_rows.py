"""From the lake to the database of results: a batch's rows of an interval, file by file, so that memory holds one.

Reads one version of each table, so what the database shows of an interval is what the lake held at one moment.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from headway.batch import SUBJECT
from headway.batch_reads import months_of
from headway.batch_rows import refused_table
from headway.clock import from_us
from headway.drift import Window
from headway.predictions import BATCH_SOURCES, predictions_table
from headway.product import Product
from headway.results import REFUSED_COLUMNS, RESULT_COLUMNS, Results

if TYPE_CHECKING:
    from headway.adapters.delta import Lake


def publish(product: Product, lake: "Lake", results: Results, window: Window) -> int:
    """Make the product's results of a window those the lake holds; return how many there are.

    Raises:
        ContractViolation: the lake's files alone do not say what a table holds.
        Overtaken: another publishes the same rows. Nothing has changed; repeat.
        TransientFailure: the database does not answer.
    """
    inside = pl.col("as_of").is_between(from_us(window.from_us), from_us(window.until_us), closed="left")
    answers, refused = predictions_table(product.name).name, refused_table(product.name).name
    batch = inside & pl.col("source").is_in(BATCH_SOURCES)
    return results.replace(
        product.name,
        window,
        (rows.select(RESULT_COLUMNS) for rows in _found(lake, answers, window, batch, ("as_of", "requested_at"))),
        (rows.select(REFUSED_COLUMNS) for rows in _found(lake, refused, window, inside, ("as_of",))),
    )


def _found(
    lake: "Lake", table: str, window: Window, chosen: pl.Expr, instants: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """Yield the chosen rows of each file, instants in microseconds beside them."""
    from headway.adapters.delta_files import plain_files

    if not lake.exists(table):
        return
    told = [pl.col(name).dt.timestamp("us").alias(f"{name}_us") for name in instants]
    for file in plain_files(lake, table, months=months_of(window)):
        rows = pl.scan_parquet(file, hive_partitioning=False)
        # A batch names its subjects; where there is none, there are answers to requests alone.
        if SUBJECT in rows.collect_schema():
            columns = pl.selectors.exclude("request", "views")
            yield rows.filter(chosen & pl.col(SUBJECT).is_not_null()).select(columns, *told).collect()
