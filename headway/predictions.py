"""The prediction log: what is kept of every answer, so that it can be explained, recomputed and judged later.

One record per answer goes to ``predictions.<product>`` and from there to the lake's table of the same name. It holds
the request, each view's values as they were used, and the watermark under which they were read (SEMANTICS S8, S17).
Refuses to hold vectors: request features are recomputed from the request. What bites: nested parts are JSON text in
the table, so that a model version with other views needs no other table; `logged_views` gives them typed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import polars as pl

from headway.clock import from_us
from headway.errors import ContractViolation
from headway.events import TYPE_HEADER
from headway.features.definitions import FeatureView
from headway.lake import INSTANT, LakeTable
from headway.ports import Message, Record
from headway.topics import predictions_topic
from headway.vector import Number, ViewValues

PREDICTION_TYPE = "headway.prediction"
# Which of the paths answered; ``request`` is REST.
Source = Literal["request", "grpc", "stream", "batch", "spark"]
# Both engines of batch scoring: one takes the place of what the other said.
BATCH_SOURCES: tuple[Source, ...] = ("batch", "spark")


class ModelId(msgspec.Struct, frozen=True, kw_only=True):
    """Which model answered: registry name, version, and the hash of the bytes it was loaded from."""

    name: str
    version: int
    digest: str


class ServedView(msgspec.Struct, frozen=True, kw_only=True):
    """What one view gave to one answer.

    Attributes:
        view: qualified name.
        key: the entity; None when the request has none (then nothing was read and the values are null).
        features: names of ``values``, in the order of the vector.
        values: as read; None when the view was unavailable and its declared defaults were used (S10).
        row_time_us: instant of the row read; None when the entity has none.
        watermark_us: of the view, read before the row; None when unknown.
        revision: of the row read, by which its cause is found (S4); None without a row, and in records from before it
            was logged.
    """

    view: str
    key: Mapping[str, str] | None
    features: tuple[str, ...]
    values: tuple[Number, ...] | None
    row_time_us: int | None
    watermark_us: int | None
    revision: int | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. ``request`` is the request's JSON object with its defaults filled in; ``stale`` names views (S7).

    ``commit`` is of the code that answered; None in records from before it was logged, and where nobody can say.
    """

    receipt: str
    product: str
    as_of_us: int
    requested_at_us: int
    model: ModelId
    reference_version: str
    request: msgspec.Raw
    views: tuple[ServedView, ...]
    probability: float
    degraded: bool
    stale: tuple[str, ...]
    source: Source
    planted: str | None = None
    commit: str | None = None

    @property
    def view_values(self) -> ViewValues:
        """The values of each view as the assembler takes them."""
        return {view.view: view.values for view in self.views}


_ENCODER = msgspec.json.Encoder()
_PREDICTION = msgspec.json.Decoder(Prediction)
_VIEWS = msgspec.json.Decoder(tuple[ServedView, ...])

_COLUMNS: Mapping[str, pl.DataType] = {
    "receipt": pl.String(),
    "as_of": INSTANT,
    "requested_at": INSTANT,
    "product": pl.String(),
    "model_name": pl.String(),
    "model_version": pl.Int64(),
    "model_digest": pl.String(),
    "reference_version": pl.String(),
    "probability": pl.Float64(),
    "degraded": pl.Boolean(),
    "stale": pl.String(),  # names of views, separated by commas
    "source": pl.String(),
    "planted": pl.String(),
    "request": pl.String(),
    "views": pl.String(),
    "month": pl.String(),
    "topic": pl.String(),
    "partition": pl.Int64(),
    "offset": pl.Int64(),
    "subject": pl.String(),  # what a batch asked about; a request names no subject
    "run_id": pl.String(),  # of the batch
    "commit": pl.String(),
}
_NULLABLE = ("planted", "topic", "partition", "offset", "subject", "run_id", "commit")


def encode_prediction(prediction: Prediction) -> bytes:
    """Return the record's value; about 4 us."""
    return _ENCODER.encode(prediction)


def decode_prediction(raw: bytes) -> Prediction:
    """Return the prediction in a record's value.

    Raises:
        ContractViolation: these are not bytes of ``encode_prediction``.
    """
    try:
        return _PREDICTION.decode(raw)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"prediction record: {error}; only Headway writes predictions.*") from error


def prediction_record(prediction: Prediction) -> Record:
    """Return the record of the prediction log, keyed by receipt."""
    return Record(
        topic=predictions_topic(prediction.product),
        key=prediction.receipt.encode(),
        value=encode_prediction(prediction),
        headers=((TYPE_HEADER, PREDICTION_TYPE.encode()),),
    )


def predictions_table(product: str) -> LakeTable:
    """Return the lake's table of a product's predictions, partitioned by the month (UTC) of their as-of."""
    required = tuple(name for name in _COLUMNS if name not in _NULLABLE)
    return LakeTable(
        name=predictions_topic(product), columns=dict(_COLUMNS), partition_by=("month",), required=required
    )


def prediction_rows(messages: Sequence[Message]) -> pl.DataFrame:
    """Return the table's rows of records of the prediction log, in their order."""
    return _rows(
        (decode_prediction(message.value or b""), (message.topic, message.partition, message.offset))
        for message in messages
    )


def predictions_in(rows: pl.DataFrame) -> list[Prediction]:
    """Return the predictions in rows of the table, in their order; the way back from `prediction_rows`."""
    return [
        Prediction(
            receipt=row["receipt"],
            product=row["product"],
            as_of_us=row["as_of"],
            requested_at_us=row["requested_at"],
            model=ModelId(name=row["model_name"], version=row["model_version"], digest=row["model_digest"]),
            reference_version=row["reference_version"],
            request=msgspec.Raw(row["request"].encode()),
            views=_VIEWS.decode(row["views"]),
            probability=row["probability"],
            degraded=row["degraded"],
            stale=tuple(filter(None, row["stale"].split(","))),
            source=row["source"],
            planted=row["planted"],
            commit=row.get("commit"),  # a table that no loader has opened since lacks the column
        )
        for row in rows.with_columns(pl.col("as_of", "requested_at").dt.timestamp("us")).iter_rows(named=True)
    ]


def logged_views(rows: pl.DataFrame, view: FeatureView) -> list[pl.DataFrame]:
    """Return what one view gave to the predictions in rows of the table: what parity recomputes (S8).

    One frame for each list of features used (model versions may differ in it), each with ``receipt``, ``as_of_us``,
    ``served_watermark_us``, the view's key columns (strings) and the features as the model read them: a null count is 0.
    Left out are answers without such an entity, without the view (degraded), and without a known watermark.
    """
    found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    asked = rows.select("receipt", pl.col("as_of").dt.timestamp("us"), "views")
    for receipt, as_of_us, views in asked.iter_rows():
        for served in _VIEWS.decode(views):
            if served.view != view.qualified or served.key is None or served.values is None:
                continue
            if served.watermark_us is None:
                continue
            key = (served.key[name] for name in view.keys)
            found.setdefault(served.features, []).append((receipt, as_of_us, served.watermark_us, *key, *served.values))
    return [_typed(view, features, logged) for features, logged in found.items()]


def _typed(view: FeatureView, features: tuple[str, ...], logged: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema: dict[str, Any] = {"receipt": pl.String, "as_of_us": pl.Int64, "served_watermark_us": pl.Int64}
    schema |= dict.fromkeys(view.keys, pl.String)
    schema |= {name: pl.Int64 if view.columns[name] == "int64" else pl.Float64 for name in features}
    counts = [name for name in features if name.startswith("count_")]
    return pl.DataFrame(logged, schema=schema, orient="row").with_columns(pl.col(counts).fill_null(0))


def _rows(logged: Iterable[tuple[Prediction, tuple[str, int, int]]]) -> pl.DataFrame:
    rows = []
    for prediction, place in logged:
        as_of = from_us(prediction.as_of_us)
        rows.append(
            (
                prediction.receipt,
                as_of,
                from_us(prediction.requested_at_us),
                prediction.product,
                prediction.model.name,
                prediction.model.version,
                prediction.model.digest,
                prediction.reference_version,
                prediction.probability,
                prediction.degraded,
                ",".join(prediction.stale),
                prediction.source,
                prediction.planted,
                bytes(prediction.request).decode(),
                _ENCODER.encode(prediction.views).decode(),
                as_of.strftime("%Y-%m"),
                *place,
                None,
                None,
                prediction.commit,
            )
        )
    return pl.DataFrame(rows, schema=dict(_COLUMNS), orient="row")
