"""How long a running stack takes from the alias ``champion`` to all of the weight, split by the release's own stages.

Views are marked as having their past and no event is read: what is timed is the release, not a backfill. The models are
small, of the product's own vector; a release costs the same whatever the trees, up to reading them.
"""

import json
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.request import urlopen

import numpy as np

from headway.adapters.lightgbm import LightGbm
from headway.adapters.mlflow import MlflowRegistry
from headway.adapters.redis_online import OnlineWriter
from headway.adapters.redis_views import OnlineViews
from headway.clock import SystemClock, to_us
from headway.errors import PermanentFailure
from headway.evaluation import Floats
from headway.manifest import FORMAT, Manifest, TrainingFacts, golden_request, sha256
from headway.product import Product
from headway.registry import CHAMPION
from headway.settings import Settings

_ROWS, _TREES = 2_000, 20
_PARTITIONS = 4
_WITHIN_S = 180.0
# The state whose weights are at 100 %, and what stands before it; `headway.release` says what each is.
_STAGES = ("starting", "proving", "registered", "switched")


def release_of(product: Product, settings: Settings, *, seed: int) -> tuple[float, dict[str, float]]:
    """Register a model, name it champion, and wait; return seconds to all of the weight, and of each stage.

    Raises:
        PermanentFailure: it did not get there, with what the release says.
    """
    registry = MlflowRegistry(settings.mlflow_url)
    model, manifest = _small(product, seed)
    version = registry.register(model, manifest, metrics={}, params={}, tags={}, run=None)
    wished_us = to_us(SystemClock().now())
    registry.set_alias(product.name, CHAMPION, version.version)
    deadline_s = time.monotonic() + _WITHIN_S
    while True:
        told = _releases(settings)["products"].get(product.name, {})
        lines = [line for line in told.get("transitions", ()) if line["version"] == version.version]
        reached = {line["after"]: line["at_us"] for line in lines}
        if "done" in reached:
            return (reached["switched"] - wished_us) / 1e6, stages(wished_us, reached)
        if time.monotonic() > deadline_s or told.get("state") == "failed":
            raise PermanentFailure(f"{product.name} {version.version}: not live after {_WITHIN_S} s: {told}")
        time.sleep(0.2)


def mark_views(product: Product, settings: Settings) -> None:
    """Say of every view that it has its past, so that a release does not wait for one."""
    url, now_us = f"redis://{settings.online_store}", to_us(SystemClock().now())
    views, writer = OnlineViews(url, settings.feast_project), OnlineWriter(url, settings.feast_project)
    for view in product.feature_views.values():
        views.mark_bootstrapped(view.online_name, digest=view.digest, until_us=now_us)
        marks = dict.fromkeys(range(_PARTITIONS), now_us // 1000)
        writer.write_watermarks(view.online_name, marks, _PARTITIONS)
    views.close()
    writer.close()


def stages(wished_us: int, reached: Mapping[str, int]) -> dict[str, float]:
    """Seconds until each stage was reached, from the one before."""
    instants = [wished_us, *(reached[stage] for stage in _STAGES)]
    return {f"to {stage}": (b - a) / 1e6 for stage, (a, b) in zip(_STAGES, pairwise(instants), strict=True)}


def _releases(settings: Settings) -> dict[str, Any]:  # Any: JSON
    with urlopen(f"{settings.load_balancer_url}/v1/releases", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _small(product: Product, seed: int) -> tuple[bytes, Manifest]:
    columns = product.columns(dict.fromkeys(product.categories, ("a", "b")))
    generator = np.random.default_rng(seed)
    rows: Floats = generator.normal(size=(_ROWS, len(columns)))
    labels: Floats = (rows[:, 0] + rows[:, -1] > 0).astype(np.float64)
    text = _fitted(rows, labels, seed)
    scorer = LightGbm().load(text)
    golden = [
        golden_request(request="{}", as_of_us=0, vector=row, score=scorer.score_row(row)) for row in rows[:4].copy()
    ]
    manifest = Manifest(
        format=FORMAT,
        product=product.name,
        spec="bench",
        spec_digest="0" * 16,
        columns=columns,
        views=product.view_digests,
        reference_version=product.domain.load_reference().version,
        model_sha256=sha256(text),
        model_bytes=len(text),
        training=TrainingFacts(from_us=0, until_us=1, known_at_us=1, rows=_ROWS, positives=1, excluded={}, tables={}),
        metrics={},
        weeks=(),
        limits=None,
        golden=tuple(golden),
    )
    return text, manifest


def _fitted(rows: Floats, labels: Floats, seed: int) -> bytes:
    import lightgbm

    parameters = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), num_boost_round=_TREES)
    return str(booster.model_to_string(num_iteration=-1)).encode()
