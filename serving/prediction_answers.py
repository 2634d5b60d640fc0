"""What clients of the JSON API see: the answer to one request, and to several in one question.

The types here are also what the OpenAPI document shows, so that it cannot say something else.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from headway.clock import format_us
from headway.errors import InputRejected
from headway.online_features import ViewsRead
from headway.predictions import ModelId
from headway.problem import Problem
from headway.product import Product
from serving.scoring import Scored


def shown(description: str, **schema: str) -> msgspec.Meta:
    """Return what the document says of a field."""
    return msgspec.Meta(description=description, extra_json_schema=schema)


_AsOf = Annotated[str, shown("the instant of the features, UTC", format="date-time")]
Receipt = Annotated[str, shown("``GET /v1/predictions/{receipt}`` tells what went into this answer")]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """The model version that answered; ``digest`` is the hash of the bytes it was loaded from."""

    name: str
    version: int
    digest: str


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh the features were: oldest watermark and its lag, views that lag too far, views without a row."""

    watermark: Annotated[str, shown("all events up to it are in every view", format="date-time")] | None
    lag_s: Annotated[float, shown("seconds from the watermark to as_of")] | None
    stale: Annotated[list[str], shown("views that lag more than they may")]
    missing: Annotated[list[str], shown("views without a row of their entity")]
    degraded: Annotated[bool, shown("the store did not answer in time: declared defaults were used")]


class PredictionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction; from ``receipt`` it can be recomputed."""

    product: str
    probability: float
    as_of: _AsOf
    model: Model
    features: Features
    receipt: Receipt


class ProblemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457."""

    type: Annotated[str, shown("``urn:headway:problem:`` and the kind of problem")]
    title: str
    status: int
    detail: Annotated[str, shown("field, got and wanted, and what to do")]


class RowAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row: status 200 and a prediction, or another status and the problem with this row."""

    index: int
    status: int
    probability: float | None = None
    as_of: _AsOf | None = None
    features: Features | None = None
    receipt: Receipt | None = None
    problem: ProblemAnswer | None = None


class RowsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer per row, in the order they were sent."""

    product: str
    model: Model
    rows: list[RowAnswer]


class _RowsQuestion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rows: list[msgspec.Raw]


_ROWS_QUESTION = msgspec.json.Decoder(_RowsQuestion)


def prediction_answer(scored: Scored) -> PredictionAnswer:
    """Return the answer to one request."""
    prediction = scored.prediction
    return PredictionAnswer(
        product=prediction.product,
        probability=prediction.probability,
        as_of=format_us(prediction.as_of_us),
        model=_model(prediction.model),
        features=_features(scored.read),
        receipt=prediction.receipt,
    )


def rows_answer(model: ModelId, answers: Sequence[Scored | Problem]) -> RowsAnswer:
    """Return the answer to several requests."""
    return RowsAnswer(
        product=model.name, model=_model(model), rows=[_row(place, answer) for place, answer in enumerate(answers)]
    )


def parse_rows(product: Product, raw: bytes, *, limit: int) -> list[object]:
    """Return the requests in a question of several rows; what is wrong with one of them stands in its place.

    Raises:
        InputRejected: it is no such question, or has no rows or too many.
    """
    try:
        rows = _ROWS_QUESTION.decode(raw).rows
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputRejected(f'body: {error}; wanted {{"rows": [request, ...]}}') from error
    if not 0 < len(rows) <= limit:
        raise InputRejected(f"rows: got {len(rows)}, wanted 1 to {limit}; ask in parts")
    return [_parsed(product, bytes(row)) for row in rows]


def _parsed(product: Product, raw: bytes) -> object:
    try:
        request: object = product.parse_request(raw)
    except InputRejected as refusal:
        return refusal
    return request


def _row(place: int, answer: Scored | Problem) -> RowAnswer:
    if isinstance(answer, Problem):
        return RowAnswer(index=place, status=answer.status, problem=ProblemAnswer(**answer.document()))
    prediction = answer.prediction
    return RowAnswer(
        index=place,
        status=200,
        probability=prediction.probability,
        as_of=format_us(prediction.as_of_us),
        features=_features(answer.read),
        receipt=prediction.receipt,
    )


def _model(model: ModelId) -> Model:
    return Model(name=model.name, version=model.version, digest=model.digest)


def _features(read: ViewsRead) -> Features:
    return Features(
        watermark=None if read.watermark_us is None else format_us(read.watermark_us),
        lag_s=read.lag_s,
        stale=list(read.stale),
        missing=list(read.missing),
        degraded=read.degraded,
    )
