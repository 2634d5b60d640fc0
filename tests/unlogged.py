"""Predictions as rows of the lake's table that came by no topic, as a batch leaves them."""

from collections.abc import Iterable

import polars as pl

from headway.ports import Message
from headway.predictions import Prediction, prediction_record, prediction_rows


def unlogged_rows(predictions: Iterable[Prediction]) -> pl.DataFrame:
    records = map(prediction_record, predictions)
    logged = [Message(r.topic, 0, place, r.key, r.value, r.headers, 0) for place, r in enumerate(records)]
    rows = prediction_rows(logged)
    transport = ("topic", "partition", "offset")
    return rows.with_columns(pl.lit(None, dtype=rows.schema[name]).alias(name) for name in transport)
