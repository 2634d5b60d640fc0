"""Years of flights to be scored: their events and changelogs in a lake, a model of the product, and its vectors as a file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.flights_model import write_version
from benchmarks.flights_years import make_years
from headway.adapters.delta import Lake
from headway.adapters.lightgbm import LightGbm
from headway.backfill import backfill_together
from headway.batch import SUBJECT, BatchRun, Questions, question, request_fields
from headway.batch_engine import Batch
from headway.batch_reads import BatchReads, Piece
from headway.clock import DAY_US
from headway.commands import Say
from headway.drift import Window
from headway.features.offline import REVISION, ROW_TIME
from headway.manifest import MANIFEST_FILE, MODEL_FILE, decode_manifest
from headway.matrix import matrix
from headway.predictions import ModelId
from headway.predictor import open_predictor
from headway.product import Product
from headway.training import AS_OF, Matrix
from headway.vector import Assembler

VECTORS, KEYS = "vectors.npy", "keys.parquet"
# About what a first training has; the spec is the product's own.
_LEARNED_US = 60 * DAY_US


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is there to be scored: a lake, the interval of all its questions, and how many they are."""

    root: Path
    interval: Window
    rows: int


def make_asked(folder: Path, product: Product, years: int, say: Say, *, model: Path) -> Asked:
    """Write a lake of so many years with the changelogs of the product's views, and the model when it is not there."""
    root = folder / f"asked-{years}"
    _, window = make_years(root, years, say, also=request_fields(product))
    lake, views = Lake(root), list(product.feature_views.values())
    say(f"making the features of {years} years")
    backfill_together(lake, views, window, mode="as_served")
    reads = BatchReads.pinned(lake, product, window)
    if not (model / MODEL_FILE).exists():
        _train(reads, window, model, say)
    rows = sum(reads.asked(piece).height for piece in reads.pieces(window))
    return Asked(root=root, interval=window, rows=rows)


def batch_of(product: Product, root: Path, interval: Window, model: Path) -> tuple[bytes, Batch]:
    """Return the model's text, and the batch of a whole lake."""
    text, manifest = (model / MODEL_FILE).read_bytes(), decode_manifest((model / MANIFEST_FILE).read_bytes())
    run = BatchRun(
        run_id="bench",
        model=ModelId(name=product.name, version=1, digest=manifest.digest),
        interval=interval,
        known_at_us=interval.until_us,
        started_us=interval.until_us,
    )
    predictor = open_predictor(text, manifest, load=LightGbm().load)
    reads = BatchReads.pinned(Lake(root), product, interval)
    return text, Batch(reads=reads, run=run, predictor=predictor, reference=product.domain.load_reference())


def write_vectors(product: Product, asked: Asked, model: Path, out: Path) -> None:
    """Write the vectors of all questions as one float64 array, and beside it who they are, in the same order."""
    _, batch = batch_of(product, asked.root, asked.interval, model)
    columns = batch.predictor.manifest.columns
    vectors = np.lib.format.open_memmap(out / VECTORS, mode="w+", dtype=np.float64, shape=(asked.rows, len(columns)))
    keys, start = [], 0
    for piece in batch.reads.pieces(asked.interval):
        found = _whole(batch.reads, piece)
        stop = start + found.rows.height
        vectors[start:stop] = matrix(columns, found.features, found.views, found.rows[AS_OF].to_numpy())
        keys.append(found.rows.select(SUBJECT, AS_OF))
        start = stop
    vectors.flush()
    pl.concat(keys).write_parquet(out / KEYS)


def scores_by_request(product: Product, asked: Asked, model: Path) -> pl.DataFrame:
    """Return ``subject``, ``as_of_us`` and ``probability`` of all questions, each asked alone by the code of a replica."""
    _, batch = batch_of(product, asked.root, asked.interval, model)
    found: list[tuple[str, int, float]] = []
    for piece in batch.reads.pieces(asked.interval):
        questions = _whole(batch.reads, piece)
        fields = questions.rows.select(request_fields(product)).iter_rows(named=True)
        views = {name: values.drop(ROW_TIME, REVISION).iter_rows() for name, values in questions.views.items()}
        for subject, as_of_us, each in zip(questions.rows[SUBJECT], questions.rows[AS_OF], fields, strict=True):
            features = product.compute_request_features(product.request_from(each), batch.reference, as_of_us)
            values = {name: next(rows) for name, rows in views.items()}
            found.append((subject, as_of_us, batch.predictor.predict(features, values, as_of_us).score))
    schema = {SUBJECT: pl.String, AS_OF: pl.Int64, "probability": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _whole(reads: BatchReads, piece: Piece) -> Questions:
    product = reads.product
    asked = question(product, reads.asked(piece), product.domain.load_reference())
    views = {name: reads.values(name, asked.rows, piece.window) for name in product.feature_views}
    return Questions(rows=asked.rows, features=asked.features, views=views, refused=asked.refused)


def _train(reads: BatchReads, window: Window, folder: Path, say: Say) -> None:
    """Fit the product's own spec on the first weeks; what it learns matters less than how large its trees are."""
    say("training the model that scores")
    product = reads.product
    learned = Window(from_us=window.from_us, until_us=window.from_us + _LEARNED_US)
    found = _whole(reads, Piece(number=0, window=learned, part=0, parts=1, events=0))
    categories = {n: tuple(sorted(found.features[n].drop_nulls().unique())) for n in product.categories}
    columns = product.columns(categories)
    x = matrix(columns, found.features, found.views, found.rows[AS_OF].to_numpy())
    delay = found.views["origin_delay.v1"]["mean_dep_delay_min_1h"].fill_null(0.0).to_numpy()
    generator = np.random.default_rng(product.model.seed)
    labels = delay + generator.normal(scale=20.0, size=len(x)) > 15.0
    none = np.zeros(len(x), dtype=np.int64)
    rows = Matrix(assembler=Assembler(columns), x=x, labels=labels, window_us=none, days=none, slices={})
    text = LightGbm().fit(rows, product.model)
    write_version(folder, text, spec=product.model, trained=rows, inside=learned, request="{}")
