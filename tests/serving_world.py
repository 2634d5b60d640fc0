"""A small proven model of the flights product, and what it takes to ask it."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from headway.adapters.lightgbm import LightGbm
from headway.evaluation import Floats
from headway.manifest import FORMAT, Manifest, TrainingFacts, golden_request, sha256
from headway.predictor import Predictor, open_predictor
from headway.product import Product
from headway.registry import ModelRegistry
from headway.settings import Settings
from products.catalogue import find_product
from tests.free_ports import free_block

CATEGORIES = {"carrier": ("UA", "B6"), "origin": ("EWR", "JFK", "LGA"), "dest": ("IAH", "BOS")}
FLIGHT = {
    "carrier": "UA",
    "flight": 1545,
    "tail": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep": "2013-07-01T15:00:00Z",
    "sched_arr": "2013-07-01T18:50:00Z",
    "distance_mi": 1400,
}


def flight(**changes: object) -> bytes:
    return msgspec.json.encode({**FLIGHT, **changes})


@dataclass(frozen=True)
class Trained:
    text: bytes
    manifest: Manifest

    def predictor(self) -> Predictor:
        return open_predictor(self.text, self.manifest, load=LightGbm().load)

    def register(self, registry: ModelRegistry) -> int:
        made = registry.register(self.text, self.manifest, metrics={}, params={}, tags={}, run=None)
        return made.version

    def with_wrong_golden_answer(self) -> "Trained":
        """The model as it would be if other bytes had been judged: every hash is right, the answer is not."""
        golden = tuple(msgspec.structs.replace(each, score=each.score + 0.1) for each in self.manifest.golden)
        return Trained(self.text, msgspec.structs.replace(self.manifest, golden=golden))


def product() -> Product:
    return find_product("flight_delay")


@functools.cache
def reference_version() -> str:
    return product().domain.load_reference().version


@functools.cache
def trained(seed: int, *, centre: float = 0.0, spread: float = 1.0) -> Trained:
    """A small model; it splits around the centre, so what lies far from it all scores alike."""
    import lightgbm

    columns = product().columns(CATEGORIES)
    generator = np.random.default_rng(seed)
    rows: Floats = centre + spread * generator.normal(size=(400, len(columns)))
    labels = (rows[:, 0] + rows[:, -1] > 2 * centre).astype(np.float64)
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), num_boost_round=10)
    text = str(booster.model_to_string(num_iteration=-1)).encode()
    scorer = LightGbm().load(text)
    golden = tuple(
        golden_request(request=flight().decode(), as_of_us=0, vector=row, score=scorer.score_row(row))
        for row in rows[:4].copy()
    )
    manifest = Manifest(
        format=FORMAT,
        product=product().name,
        spec="test",
        spec_digest="0" * 16,
        columns=columns,
        views=product().view_digests,
        reference_version=reference_version(),
        model_sha256=sha256(text),
        model_bytes=len(text),
        training=TrainingFacts(
            from_us=0, until_us=1, known_at_us=1, rows=400, positives=int(labels.sum()), excluded={}, tables={}
        ),
        metrics={},
        weeks=(),
        limits=None,
        golden=golden,
    )
    return Trained(text, manifest)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path: Ray and HAProxy put sockets under it, and a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="hw"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def free_settings(state: Path) -> Settings:
    """Settings of a stack of its own on ports nobody uses now."""
    return Settings(state=state, port_base=free_block())
