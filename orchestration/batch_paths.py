"""The batch path of `orchestration.scoring_paths`: batch scoring, given rows instead of a lake."""

import polars as pl

from headway.batch import BatchRun, score_batch
from headway.drift import Window
from headway.features.changelog import DTYPES
from headway.features.definitions import FeatureView
from headway.path_parity import PathAnswer, Scored
from headway.predictions import ModelId
from headway.training import AS_OF
from orchestration.asking import Asking


def by_batch(asking: Asking) -> list[PathAnswer]:
    """Score all rows in one batch of this process."""
    predictor, recorder = asking.open()
    names = [name for name in asking.product.request.__struct_fields__ if name != "as_of"]
    asked = pl.DataFrame(
        {
            "subject": [row.name for row in asking.rows],
            **{name: [getattr(row.request, name) for row in asking.rows] for name in names},
            AS_OF: [row.as_of_us for row in asking.rows],
        }
    )
    instants = [row.as_of_us for row in asking.rows]
    run = BatchRun(
        model=ModelId(name=asking.product.name, version=asking.version, digest=predictor.digest),
        interval=Window(from_us=min(instants), until_us=max(instants) + 1),
        known_at_us=max(instants),
        started_us=max(instants),
    )
    scored = score_batch(
        asking.product,
        asked,
        predictor=predictor,
        reference=asking.reference,
        values_at=lambda view, _: _held(asking, view),
        run=run,
    )
    return [
        Scored(score=each.probability, logged=each.probability, vector=vector)
        for each, vector in zip(list(scored), recorder.vectors, strict=True)
    ]


def _held(asking: Asking, view: FeatureView) -> pl.DataFrame:
    features = asking.product.use(view.qualified).features
    schema = {name: DTYPES[view.columns[name]] for name in features}
    return pl.DataFrame([row.views[view.qualified] for row in asking.rows], schema=schema, orient="row")
