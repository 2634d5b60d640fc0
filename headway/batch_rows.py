"""The lake's rows of a batch's answers, made column by column: in every column what `headway.predictions` makes of one.

Nested parts are JSON text there, so here text is put together from columns; a test holds the rows of both ways equal.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from headway.batch import SUBJECT, BatchRun, Questions, Refused, request_fields
from headway.batch_reads import around
from headway.clock import SECOND_US, from_us
from headway.evaluation import Floats
from headway.features.offline import REVISION, ROW_TIME
from headway.lake import INSTANT, LakeTable
from headway.predictions import BATCH_SOURCES, predictions_table
from headway.product import Product
from headway.training import AS_OF

if TYPE_CHECKING:
    from headway.adapters.delta import Lake

RUN = "run_id"


def answered_rows(
    product: Product, asked: Questions, scores: Floats, *, run: BatchRun, reference_version: str
) -> pl.DataFrame:
    """Return the answers in the columns of the table of predictions."""
    rows, as_of = asked.rows, asked.rows[AS_OF].cast(INSTANT)
    made = pl.DataFrame(
        [
            run.receipts(rows[SUBJECT]),
            rows[SUBJECT],
            as_of.alias("as_of"),
            as_of.dt.strftime("%Y-%m").alias("month"),
            pl.Series("probability", scores),
            _requests(product, rows),
            _views(product, asked, watermark_us=run.known_at_us),
        ]
    )
    shared = {
        "requested_at": pl.lit(run.started_us).cast(INSTANT),
        "product": pl.lit(product.name),
        "model_name": pl.lit(run.model.name),
        "model_version": pl.lit(run.model.version),
        "model_digest": pl.lit(run.model.digest),
        "reference_version": pl.lit(reference_version),
        "degraded": pl.lit(False),
        "stale": pl.lit(""),
        "source": pl.lit(run.source),
        RUN: pl.lit(run.run_id),
        "commit": pl.lit(run.commit, dtype=pl.String),
    }
    columns = predictions_table(product.name).columns
    return made.with_columns(**shared).select(
        (pl.col(name) if name in made.columns or name in shared else pl.lit(None)).cast(kind).alias(name)
        for name, kind in columns.items()
    )


def refused_table(product: str) -> LakeTable:
    """Return the lake's table of rows that a batch refused, partitioned by the month (UTC) of their as-of."""
    texts = (SUBJECT, "reason", "model_digest", RUN, "month")
    columns = dict.fromkeys(texts, pl.String()) | {"as_of": INSTANT, "model_version": pl.Int64()}
    return LakeTable(
        name=f"refused.{product}", columns=columns, partition_by=("month",), required=(*texts, "as_of", "model_version")
    )


def refused_rows(product: Product, refused: Sequence[Refused], *, run: BatchRun) -> pl.DataFrame:
    """Return the refused rows in the columns of their table."""
    told = pl.DataFrame(
        {
            SUBJECT: [each.subject for each in refused],
            "reason": [each.reason for each in refused],
            "as_of": [each.as_of_us for each in refused],
        },
        schema={SUBJECT: pl.String, "reason": pl.String, "as_of": pl.Int64},
    ).with_columns(
        pl.col("as_of").cast(INSTANT),
        pl.col("as_of").cast(INSTANT).dt.strftime("%Y-%m").alias("month"),
        pl.lit(run.model.digest).alias("model_digest"),
        pl.lit(run.model.version, dtype=pl.Int64).alias("model_version"),
        pl.lit(run.run_id).alias(RUN),
    )
    return told.select(list(refused_table(product.name).columns))


def replaced(run: BatchRun) -> pl.Expr:
    """Return which rows of the table of predictions a batch takes the place of: its model's of the interval before."""
    inside = pl.col("as_of").is_between(from_us(run.interval.from_us), from_us(run.interval.until_us), closed="left")
    return pl.col("source").is_in(BATCH_SOURCES) & (pl.col("model_digest") == run.model.digest) & inside


def answers_of(lake: "Lake", product: str, run: BatchRun) -> pl.DataFrame:
    """Return ``as_of`` and ``probability`` of a batch's rows in the lake; 16 bytes a row."""
    rows = lake.scan(predictions_table(product).name).filter(around(run.interval, 0, column="as_of") & replaced(run))
    return rows.select("as_of", "probability").collect(engine="streaming")


def _requests(product: Product, rows: pl.DataFrame) -> pl.Series:
    """Return each request as msgspec writes it, with its defaults filled in."""
    fields = (_field(rows, name).alias(name) for name in product.request.__struct_fields__)
    return rows.select(pl.struct(fields).struct.json_encode().alias("request")).to_series()


def _field(rows: pl.DataFrame, name: str) -> pl.Expr:
    if name == "as_of":
        return pl.lit(None, dtype=pl.String)
    if rows.schema[name] != INSTANT:
        return pl.col(name)
    fraction = pl.when(pl.col(name).dt.timestamp("us") % SECOND_US != 0).then(pl.col(name).dt.strftime(".%6f"))
    return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S") + fraction.otherwise(pl.lit("")) + pl.lit("Z")


def _views(product: Product, asked: Questions, *, watermark_us: int) -> pl.Series:
    """Return what each view gave as JSON, in the layout of ``ServedView``."""
    pieces: list[pl.Expr] = [pl.lit("[")]
    values: list[pl.Series] = []
    for name, found in asked.views.items():
        keys = [pl.col(key).cast(pl.String).alias(key) for key in product.feature_views[name].keys]
        known = pl.all_horizontal(pl.col(key).is_not_null() for key in product.feature_views[name].keys)
        opening = ",{" if values else "{"
        features = product.use(name).features
        pieces += [
            pl.lit(f'{opening}"view":{json.dumps(name)},"key":'),
            pl.when(known).then(pl.struct(keys).struct.json_encode()).otherwise(pl.lit("null")),
            pl.lit(f',"features":{json.dumps(features, separators=(",", ":"))},"values":['),
        ]
        numbers = [found[each].alias(f"{name}:{each}") for each in (*features, ROW_TIME, REVISION)]
        values += numbers
        for place, number in enumerate(numbers[:-2]):
            pieces += [pl.lit(","), _number(number)] if place else [_number(number)]
        pieces += [pl.lit('],"row_time_us":'), _number(numbers[-2])]
        pieces += [pl.lit(f',"watermark_us":{watermark_us},"revision":'), _number(numbers[-1]), pl.lit("}")]
    whole = asked.rows.select(request_fields(product)).hstack(values)
    return whole.with_columns(pl.concat_str(*pieces, pl.lit("]")).alias("views"))["views"]


def _number(values: pl.Series) -> pl.Expr:
    number = pl.col(values.name)
    if values.dtype.is_float():
        # JSON has no NaN; msgspec writes null for it as well.
        number = pl.when(number.is_finite()).then(number)
    return number.cast(pl.String).fill_null("null")
