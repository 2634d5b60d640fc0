"""The two batch paths of `orchestration.scoring_paths`: the engines of batch scoring, given rows instead of a lake.

What stands in is what a batch reads; questions, vectors, predict and the rows of the table are its own. What bites: Spark's
workers are other processes, so the vectors they made are not seen, and a session is started for the one asking.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headway.adapters.delta import Lake
from headway.batch import SUBJECT, BatchRun, request_fields
from headway.batch_engine import Batch, Engine, batch_engine
from headway.batch_reads import BatchReads, Piece
from headway.drift import Window
from headway.features.changelog import DTYPES
from headway.features.offline import REVISION, ROW_TIME
from headway.path_parity import PathAnswer, Scored
from headway.predictions import ModelId
from headway.progress import Progress
from headway.settings import Settings
from headway.training import AS_OF
from orchestration.asking import Asking


@dataclass(frozen=True, kw_only=True)
class RowReads(BatchReads):
    """Reads of rows that come with what their views hold; of its lake nothing is read."""

    questions: pl.DataFrame
    held: Mapping[str, pl.DataFrame]

    def asked(self, piece: Piece) -> pl.DataFrame:
        """Return all rows."""
        del piece
        return self.questions

    def values(self, name: str, asked: pl.DataFrame, window: Window) -> pl.DataFrame:
        """Return what a view holds of each row."""
        del window
        found = asked.select(SUBJECT).join(self.held[name], on=SUBJECT, how="left", maintain_order="left")
        return found.select(*self.product.use(name).features, ROW_TIME, REVISION)


def by_batch(asking: Asking) -> list[PathAnswer]:
    """Score all rows in one batch of this process."""
    return _scored(asking, "process")


def by_spark(asking: Asking) -> list[PathAnswer]:
    """Score all rows in one batch on Spark."""
    return _scored(asking, "spark")


def _scored(asking: Asking, engine: Engine) -> list[PathAnswer]:
    predictor, recorder = asking.open()
    instants = [row.as_of_us for row in asking.rows]
    window = Window(from_us=min(instants), until_us=max(instants) + 1)
    run = BatchRun(
        run_id="parity",
        model=ModelId(name=asking.product.name, version=asking.version, digest=predictor.digest),
        interval=window,
        known_at_us=max(instants),
        started_us=max(instants),
    )
    piece = Piece(number=0, window=window, part=0, parts=1, events=len(instants))
    with tempfile.TemporaryDirectory(prefix="headway-parity-") as name:
        batch = Batch(reads=_reads(asking, Path(name)), run=run, predictor=predictor, reference=asking.reference)
        order = batch.ask(piece).rows[SUBJECT].to_list()
        with batch_engine(engine, Settings(), model=asking.model) as score:
            recorder.vectors.clear()
            [done] = score(batch, [piece], Path(name), Progress("parity", len(instants)))
        rows = pl.concat([pl.read_parquet(file, columns=[SUBJECT, "probability"]) for _, file in done.files])
    scores = dict(rows.iter_rows())
    # Beyond the rows are those that a batch asks again one by one; of Spark's there are none.
    seen = dict(zip(order, recorder.vectors, strict=False))
    return [Scored(score=scores[row.name], logged=scores[row.name], vector=seen.get(row.name)) for row in asking.rows]


def _reads(asking: Asking, folder: Path) -> RowReads:
    product, names = asking.product, [row.name for row in asking.rows]
    columns = {name: [getattr(row.request, name) for row in asking.rows] for name in request_fields(product)}
    questions = pl.DataFrame({SUBJECT: names, **columns, AS_OF: [row.as_of_us for row in asking.rows]})
    # A column without any value is of the type that a missing text has.
    questions = questions.with_columns(pl.col(pl.Null).cast(pl.String))
    held = {}
    for name, view in product.feature_views.items():
        features = product.use(name).features
        schema = {SUBJECT: pl.String(), **{feature: DTYPES[view.columns[feature]] for feature in features}}
        rows = [(row.name, *row.views[name], row.as_of_us, 1) for row in asking.rows]
        schema |= {ROW_TIME: pl.Int64(), REVISION: pl.Int64()}
        held[name] = pl.DataFrame(rows, schema=schema, orient="row")
    return RowReads(lake=Lake(folder), product=product, versions={}, questions=questions, held=held)
