"""Batch scoring: the same request features, assembler and model as a replica, over everything asked in an interval.

The only difference to a request is where view values come from: the changelog in the lake instead of the online store.
What bites: values read afterwards contain what late events changed since, so a row's watermark is how far events are
known now, not its as-of; parity recomputes under the same knowledge (SEMANTICS S8).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from headway.contracts import Reference
from headway.drift import Window
from headway.predictions import ModelId, Prediction, ServedView
from headway.predictor import Predictor
from headway.product import Product
from headway.training import AS_OF, ValuesAt
from headway.vector import Number


@dataclass(frozen=True, kw_only=True)
class BatchRun:
    """What all rows of one batch share.

    Attributes:
        model: who answers.
        interval: of the as-of instants.
        known_at_us: how far events are known.
        started_us: when the batch was asked for.
    """

    model: ModelId
    interval: Window
    known_at_us: int
    started_us: int

    def receipt(self, subject: str) -> str:
        """Return the id of a row: the same model, interval and subject always give the same (S17)."""
        text = f"{self.model.digest}/{self.interval.from_us}/{self.interval.until_us}/{subject}"
        return f"batch-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def asked_in(product: Product, events: pl.DataFrame, interval: Window) -> pl.DataFrame:
    """Return what the product would have been asked in the interval: request fields, ``subject`` and ``as_of_us``."""
    examples = product.examples(events).sort("window_us", "subject")
    requests = [product.request(**values) for values in _fields(product, examples)]
    as_of = pl.Series(AS_OF, [product.asked_at_us(request) for request in requests], dtype=pl.Int64)
    asked = examples.select("subject", *_names(product)).with_columns(as_of)
    return asked.filter(pl.col(AS_OF).is_between(interval.from_us, interval.until_us, closed="left"))


def score_batch(
    product: Product,
    asked: pl.DataFrame,
    *,
    predictor: Predictor,
    reference: Reference,
    values_at: ValuesAt,
    run: BatchRun,
) -> Iterator[Prediction]:
    """Yield the answer to each row of ``asked_in``; about 60 us a row.

    Raises:
        ContractViolation: a request feature or a view is missing.
        InputRejected: a request names something the reference does not know.
    """
    views = {name: _values(product, name, asked, values_at) for name in product.feature_views}
    rows = zip(_fields(product, asked), asked["subject"], asked[AS_OF], strict=True)
    for place, (fields, subject, as_of_us) in enumerate(rows):
        request = product.request(**fields)
        served = tuple(
            _served(product, name, request, rows_of[place], watermark_us=run.known_at_us)
            for name, rows_of in views.items()
        )
        features = product.compute_request_features(request, reference, as_of_us)
        answer = predictor.predict(features, {view.view: view.values for view in served}, as_of_us)
        yield Prediction(
            receipt=run.receipt(subject),
            product=product.name,
            as_of_us=as_of_us,
            requested_at_us=run.started_us,
            model=run.model,
            reference_version=reference.version,
            request=msgspec.Raw(msgspec.json.encode(request)),
            views=served,
            probability=answer.score,
            degraded=False,
            stale=(),
            source="batch",
        )


def _served(
    product: Product, name: str, request: msgspec.Struct, row: tuple[Number, ...], *, watermark_us: int
) -> ServedView:
    key = product.entity(name, request)
    *values, row_time_us = row
    return ServedView(
        view=name,
        key=key,
        features=product.use(name).features,
        values=product.empty_rows[name] if key is None else tuple(values),
        row_time_us=None if row_time_us is None else int(row_time_us),
        watermark_us=watermark_us,
    )


def _values(product: Product, name: str, asked: pl.DataFrame, values_at: ValuesAt) -> list[tuple[Number, ...]]:
    view = product.feature_views[name]
    values = values_at(view, asked.select(*view.keys, AS_OF))
    return values.select(*product.use(name).features, pl.lit(None, dtype=pl.Int64).alias("row_time_us")).rows()


def _names(product: Product) -> list[str]:
    return [name for name in product.request.__struct_fields__ if name != "as_of"]


def _fields(product: Product, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:  # Any: the request's own fields
    return rows.select(_names(product)).iter_rows(named=True)
