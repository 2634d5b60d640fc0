"""Batch scoring: what a product would have been asked in an interval, answered as a replica answers, many rows at once.

The difference to a request is where view values come from (the changelog in the lake instead of the online store), and
that rows are taken column by column. Some rows of every chunk are asked again the way a request is, and one other bit stops
the batch. A row that makes no request is refused alone, with the reason a request would get.

What bites: values read afterwards contain what late events changed since, so a row's watermark is how far events are
known now, not its as-of; parity recomputes under the same knowledge (SEMANTICS S8).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from headway.acceptance import accepted
from headway.breaker import LEAST_RECORDS, OPEN_SHARE
from headway.contracts import Reference
from headway.drift import Window
from headway.errors import ContractViolation, InputRejected, PermanentFailure
from headway.evaluation import Floats
from headway.features.offline import REVISION, ROW_TIME
from headway.matrix import matrix
from headway.predictions import ModelId, Source
from headway.predictor import Predictor
from headway.product import Product
from headway.training import AS_OF

SUBJECT = "subject"
# What a product's function may raise over a row that the request's type lets through. Anything else is a fault of ours.
_OF_THE_ROW = (InputRejected, ArithmeticError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class BatchRun:
    """What all rows of one batch share.

    Attributes:
        run_id: of the orchestrator's run.
        model: who answers.
        interval: of the as-of instants.
        known_at_us: how far events are known.
        started_us: when the batch was asked for.
        source: which engine answers, as its rows say.
        commit: of this code, if known.
    """

    run_id: str
    model: ModelId
    interval: Window
    known_at_us: int
    started_us: int
    source: Source = "batch"
    commit: str | None = None

    def receipts(self, subjects: pl.Series) -> pl.Series:
        """Return the ids of rows: the same model, interval and subject always give the same (S17)."""
        shared = hashlib.sha256(f"{self.model.digest}/{self.interval.from_us}/{self.interval.until_us}/".encode())

        def receipt(subject: str) -> str:
            mine = shared.copy()
            mine.update(subject.encode())
            return f"batch-{mine.hexdigest()[:32]}"

        return pl.Series("receipt", [receipt(subject) for subject in subjects], dtype=pl.String)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that got no answer, and why; ``as_of_us`` is when it would have been asked."""

    subject: str
    as_of_us: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Rows to be answered, in frames of the same rows in the same order.

    Attributes:
        rows: ``subject``, the request's fields, ``as_of_us``.
        features: the request features.
        views: of each view the features used, ``row_time_us`` and ``revision``; null where the request names no such entity.
        refused: the rows that are not among them.
    """

    rows: pl.DataFrame
    features: pl.DataFrame
    views: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    refused: Sequence[Refused] = ()

    def chunks(self, rows: int) -> Iterator["Questions"]:
        """Yield them, so many at a time."""
        for start in range(0, self.rows.height, rows):
            views = {name: values.slice(start, rows) for name, values in self.views.items()}
            yield Questions(rows=self.rows.slice(start, rows), features=self.features.slice(start, rows), views=views)


def request_fields(product: Product) -> list[str]:
    """Return the names of a request's fields that an event tells."""
    return [name for name in product.request.__struct_fields__ if name != "as_of"]


def asked_in(product: Product, events: pl.DataFrame, interval: Window) -> pl.DataFrame:
    """Return what the product would have been asked in the interval: ``subject``, request fields, ``as_of_us``.

    What makes no request has no as-of; it counts where its ``window_us`` is, so that somebody reports it.
    """
    examples = product.examples(events).sort("window_us", SUBJECT)
    asked_at = pl.coalesce(AS_OF, "window_us", pl.lit(interval.from_us))
    asked = examples.with_columns(_asked_at(product, examples)).select(SUBJECT, *request_fields(product), asked_at)
    return asked.filter(pl.col(AS_OF).is_between(interval.from_us, interval.until_us, closed="left"))


def question(product: Product, asked: pl.DataFrame, reference: Reference) -> Questions:
    """Return the rows of ``asked_in`` with their request features; views are read afterwards.

    Raises:
        ContractViolation: the product's functions break their declarations.
        PermanentFailure: nearly every row is refused, which is no fault of theirs.
    """
    bulk = product.in_bulk
    if bulk is None:
        sure = pl.repeat(value=False, n=asked.height, dtype=pl.Boolean, eager=True)
    else:
        fit = pl.all_horizontal(accepted(product.request), bulk.sure(reference)).fill_null(value=False)
        sure = asked.select(fit.alias("sure")).to_series()
    first, rest = asked.filter(sure), asked.filter(~sure)
    answered, values, refused = _one_by_one(product, rest, reference)
    if len(refused) >= LEAST_RECORDS and len(refused) >= OPEN_SHARE * asked.height:
        raise PermanentFailure(
            f"batch {product.name}: {len(refused):,} of {asked.height:,} rows are refused, first {refused[0].subject}: "
            f"{refused[0].reason}; repair the data or the product's functions, then repeat"
        )
    schema = dict.fromkeys(product.numbers, pl.Float64) | dict.fromkeys(product.categories, pl.String)
    scalar = pl.DataFrame(values, schema=schema, orient="row")
    rows, features = answered, scalar
    if bulk is not None and first.height:
        made = bulk.request_features(first, reference).select(pl.col(name).cast(kind) for name, kind in schema.items())
        rows, features = pl.concat([first, answered]), pl.concat([made, scalar])
    return Questions(rows=rows, features=features, refused=refused)


def answer(product: Product, asked: Questions, *, predictor: Predictor, reference: Reference) -> Floats:
    """Return the score of each row, shape (n,), bit for bit what a request gets.

    Raises:
        ContractViolation: a request feature or a view is missing, or a row asked again scores otherwise.
    """
    as_of_us = asked.rows[AS_OF].to_numpy()
    vectors = matrix(predictor.manifest.columns, asked.features, asked.views, as_of_us)
    scores = predictor.score(vectors)
    # The first, the middle and the last row: 0.2 ms of the quarter of a second that a chunk takes.
    for place in sorted({0, len(scores) // 2, len(scores) - 1}) if len(scores) else ():
        fields = asked.rows.select(request_fields(product)).row(place, named=True)
        features = _features(product, fields, reference, int(as_of_us[place]))
        views = {name: values.drop(ROW_TIME, REVISION).row(place) for name, values in asked.views.items()}
        single = predictor.predict(features, views, int(as_of_us[place]))
        if single.score != scores[place] or not np.array_equal(single.vector, vectors[place], equal_nan=True):
            raise ContractViolation(
                f"batch {product.name}: {asked.rows[SUBJECT][place]} scores {scores[place]!r} in bulk and "
                f"{single.score!r} as a request, over {_differing(predictor, single.vector, vectors[place])}; the "
                "product's in_bulk does not say what its scalar functions say"
            )
    return scores


def _asked_at(product: Product, examples: pl.DataFrame) -> pl.Series:
    if product.in_bulk is not None:
        return examples.select(product.in_bulk.asked_at_us().cast(pl.Int64).alias(AS_OF)).to_series()
    found: list[int | None] = []
    for fields in examples.select(request_fields(product)).iter_rows(named=True):
        try:
            found.append(product.asked_at_us(product.request_from(fields)))
        except _OF_THE_ROW:  # asked again with the others, where its reason is kept
            found.append(None)
    return pl.Series(AS_OF, found, dtype=pl.Int64)


def _one_by_one(
    product: Product, rows: pl.DataFrame, reference: Reference
) -> tuple[pl.DataFrame, list[tuple[float | str | None, ...]], list[Refused]]:
    """Return the rows that make a request, their features, and the others with their reasons."""
    names = (*product.numbers, *product.categories)
    values: list[tuple[float | str | None, ...]] = []
    refused: list[Refused] = []
    kept: list[bool] = []
    fields = rows.select(request_fields(product)).iter_rows(named=True)
    for subject, as_of_us, each in zip(rows[SUBJECT], rows[AS_OF], fields, strict=True):
        try:
            found = _features(product, each, reference, as_of_us)
        except _OF_THE_ROW as error:
            reason = str(error) if isinstance(error, InputRejected) else f"{type(error).__name__}: {error}"
            refused.append(Refused(subject=subject, as_of_us=as_of_us, reason=reason))
            kept.append(False)
        else:
            values.append(tuple(found[name] for name in names))
            kept.append(True)
    return rows.filter(pl.Series(kept, dtype=pl.Boolean)), values, refused


def _features(
    product: Product, fields: Mapping[str, Any], reference: Reference, as_of_us: int
) -> dict[str, float | str | None]:  # Any: the request's own fields
    return product.compute_request_features(product.request_from(fields), reference, as_of_us)


def _differing(predictor: Predictor, single: Floats, bulk: Floats) -> list[str]:
    same = (single == bulk) | (np.isnan(single) & np.isnan(bulk))
    names = (column.name for column in predictor.manifest.columns)
    return [f"{name} {b!r} and {s!r}" for name, equal, b, s in zip(names, same, bulk, single, strict=True) if not equal]
