"""The vectors of many rows at once, column by column: bit for bit what `headway.vector.Assembler` makes row by row.

For batch scoring, whose rows are frames and cost more as Python values than the model does (`Assembler.matrix` is for those
that are such values). A test holds both to equal bits, and a batch asks the assembler again about some rows. Refuses views that are unavailable: a batch reads the lake or fails.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from headway.clock import SECOND_US
from headway.errors import ContractViolation
from headway.evaluation import Floats, Ints
from headway.vector import Column


def matrix(
    columns: Sequence[Column], request: pl.DataFrame, views: Mapping[str, pl.DataFrame], as_of_us: Ints
) -> Floats:
    """Return the vectors, shape (n, f), C-contiguous.

    Args:
        columns: the vector's order.
        request: request features by name, numbers and texts.
        views: of each view by qualified name its features; a null is what an empty window says.
        as_of_us: instants the rows are asked at, shape (n,).

    Raises:
        ContractViolation: a request feature or a view is missing.
    """
    found = np.empty((len(as_of_us), len(columns)), dtype=np.float64)
    for place, column in enumerate(columns):
        source = request if column.view is None else views.get(column.view)
        if source is None or column.source not in source.columns:
            what = column.source if source is not None else column.view
            raise ContractViolation(f"matrix: {what!r} is missing (found: {[*request.columns, *views]})")
        found[:, place] = _values(column, source[column.source], as_of_us)
    return found


def _values(column: Column, values: pl.Series, as_of_us: Ints) -> Floats:
    if column.kind == "category":
        codes = {value: float(code) for code, value in enumerate(column.categories)}
        return _floats(values.replace_strict(codes, default=None, return_dtype=pl.Float64)) if codes else _nan(values)
    if column.kind == "age":
        # The difference is exact in int64; dividing first would round it.
        return _floats(pl.Series(as_of_us) - values.cast(pl.Int64)) / SECOND_US
    return _floats(values.fill_null(0) if column.kind == "count" else values)


def _floats(values: pl.Series) -> Floats:
    """Return the values as float64, a null as NaN."""
    return values.cast(pl.Float64).to_numpy()


def _nan(values: pl.Series) -> Floats:
    return np.full(len(values), np.nan)
