"""How v1 does on July, beside the reference spec trained on the same rows and scored on the same rows (S25).

July is reported once and decides nothing: the gate judged v1 on weeks before it.
"""

from typing import Any

from assets.lake_reads import changelog_values, events_around, known_until
from assets.training import read_dataset
from headway.adapters.lightgbm import LightGbm
from headway.clock import parse_instant_us
from headway.drift import Window
from headway.evaluation import quality
from headway.predictor import open_predictor
from headway.training import assemble, training_set
from headway.training_table import part_of
from orchestration.demo.plane import Plane

JULY = Window(
    from_us=parse_instant_us("2013-07-01T04:00:00Z", field="July"),
    until_us=parse_instant_us("2013-08-01T04:00:00Z", field="July"),
)


def july_quality(plane: Plane, *, version: int, dataset: str) -> dict[str, Any]:
    """Return n, average precision and ROC AUC of a version and of the reference spec, on all labelled flights of July.

    The reference learns from the rows the version learned from: those of ``dataset``.
    """
    product, lake = plane.product, plane.lake
    model, manifest = plane.registry.load(product.name, version)
    learner = LightGbm()
    predictor = open_predictor(model, manifest, load=learner.load)
    rows = training_set(
        product,
        events=events_around(lake, product, JULY),
        reference=product.domain.load_reference(),
        values_at=changelog_values(lake, product.feature_views.values(), JULY),
        window=JULY,
        known_at_us=known_until(lake),
        views_shift_us=0,
    )
    july = assemble(product, rows, assembler=predictor.assembler)
    learned = part_of(read_dataset(product, lake, dataset), "train")
    reference = learner.load(
        learner.fit(assemble(product, learned, assembler=predictor.assembler), product.reference_model)
    )
    return {
        "rows": len(july.labels),
        **_figures(quality(july.labels, predictor.score(july.x))),
        "reference": _figures(quality(july.labels, reference.score(july.x))),
    }


def _figures(found: Any) -> dict[str, float]:  # Any: headway.evaluation.Quality, read by its own names
    return {"average_precision": round(found.average_precision, 4), "roc_auc": round(found.roc_auc, 4)}
