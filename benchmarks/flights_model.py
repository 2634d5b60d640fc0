"""The model that every contestant of a prediction benchmark answers with: 300 trees of 63 leaves over the product's columns.

Trained on made-up rows from a seed, since what it says is not judged here: what a row costs depends on the number and the
size of the trees. The same bytes every time.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from domains.flights.domain import DOMAIN
from headway.adapters.lightgbm import LightGbm
from headway.clock import DAY_US
from headway.drift import Window
from headway.evaluation import Floats
from headway.manifest import FORMAT, MANIFEST_FILE, MODEL_FILE, Manifest, TrainingFacts, encode_manifest, golden_request
from headway.manifest import sha256 as sha256_of
from headway.product import ModelSpec
from headway.training import Matrix
from headway.vector import Assembler, Column
from products.catalogue import find_product
from products.flight_delay.product import REFERENCE_MODEL

PRODUCT = find_product("flight_delay")
SPEC = replace(REFERENCE_MODEL, name="benchmark", trees=300, leaves=63)
_ROWS = 40_000
_CATEGORIES = {
    "carrier": ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"),
    "origin": ("EWR", "JFK", "LGA"),
    "dest": ("ATL", "BOS", "BWI", "CLT", "DCA", "DEN", "DFW", "DTW", "FLL", "IAH", "LAS", "LAX", "MCO", "MIA", "ORD", "SFO"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FlightsModel:
    """A model in a folder, as a replica takes it; ``rows`` are vectors of the kind it was trained on, shape (n, f)."""

    folder: Path
    text: bytes
    columns: tuple[Column, ...]
    rows: Floats


def write_model(folder: Path) -> FlightsModel:
    """Train the model and write it with its manifest; takes some ten seconds."""
    columns = PRODUCT.columns(_CATEGORIES)
    rows, labels = _made_up(columns)
    instants = np.arange(_ROWS, dtype=np.int64)
    matrix = Matrix(
        assembler=Assembler(columns), x=rows, labels=labels, window_us=instants, days=instants // 1_000, slices={}
    )
    text = LightGbm().fit(matrix, SPEC)
    request = (
        '{"carrier":"UA","flight":1545,"tail":"N14228","origin":"EWR","dest":"IAH","distance_mi":1400,'
        '"sched_dep":"2013-07-01T15:00:00Z","sched_arr":"2013-07-01T18:50:00Z"}'
    )
    made_up = Window(from_us=0, until_us=DAY_US)
    write_version(folder, text, spec=SPEC, trained=matrix, inside=made_up, request=request)
    return FlightsModel(folder=folder, text=text, columns=columns, rows=rows)


def write_version(folder: Path, text: bytes, *, spec: ModelSpec, trained: Matrix, inside: Window, request: str) -> None:
    """Write a model and its manifest as a registry version has them; its proof is four of the rows it was trained on."""
    scorer, columns = LightGbm().load(text), trained.assembler.columns
    golden = tuple(
        golden_request(request=request, as_of_us=0, vector=row, score=scorer.score_row(row))
        for row in trained.x[:4].copy()
    )
    manifest = Manifest(
        format=FORMAT,
        product=PRODUCT.name,
        spec=spec.name,
        spec_digest=spec.digest,
        columns=columns,
        views=PRODUCT.view_digests,
        reference_version=DOMAIN.load_reference().version,
        model_sha256=sha256_of(text),
        model_bytes=len(text),
        training=TrainingFacts(
            from_us=inside.from_us,
            until_us=inside.until_us,
            known_at_us=inside.until_us,
            rows=len(trained.x),
            positives=int(trained.labels.sum()),
            excluded={},
            tables={},
        ),
        metrics={},
        weeks=(),
        limits=None,
        golden=golden,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(text)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))


def _made_up(columns: tuple[Column, ...]) -> tuple[Floats, np.ndarray]:
    """Rows of numbers in steps, codes of categories, and nulls among both; labels that depend on half of the columns."""
    generator = np.random.default_rng(20130701)
    rows = np.round(generator.normal(0, 10, (_ROWS, len(columns))), 1)
    for place, column in enumerate(columns):
        if column.kind == "category":
            rows[:, place] = generator.integers(0, len(column.categories), _ROWS)
    logits = np.tanh(rows[:, ::2] / 10) @ generator.normal(size=rows[:, ::2].shape[1]) + rows[:, 1] * rows[:, 3] / 100
    rows[generator.uniform(size=rows.shape) < 0.05] = np.nan
    return rows, generator.uniform(size=_ROWS) < 1 / (1 + np.exp(-logits))
