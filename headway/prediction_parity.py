"""Parity of a product's prediction log: what each answer read online against the lake's events (SEMANTICS S8)."""

from collections.abc import Iterable

import polars as pl

from headway.features.definitions import FeatureView
from headway.features.parity import ParityReport, ServedView, check_parity, earliest
from headway.predictions import logged_views


def check_predictions(predictions: pl.DataFrame, events: pl.DataFrame, views: Iterable[FeatureView]) -> ParityReport:
    """Return the verdict over rows of the lake's table of predictions; ``events`` are rows of the lake's ``events``."""
    reports = [
        check_parity(logged, events, [_served(view)]) for view in views for logged in logged_views(predictions, view)
    ]
    return ParityReport(
        predictions=predictions.height,
        checked=sum(report.checked for report in reports),
        skipped=sum(report.skipped for report in reports),
        mismatched=sum(report.mismatched for report in reports),
        mismatches=earliest(mismatch for report in reports for mismatch in report.mismatches),
        corrected=sum(report.corrected for report in reports),
        corrected_later=earliest(correction for report in reports for correction in report.corrected_later),
        lag=tuple(lag for report in reports for lag in report.lag),
    )


def _served(view: FeatureView) -> ServedView:
    return ServedView(
        view=view,
        keys={key: key for key in view.keys},
        features={name: name for name in view.columns},
        watermark="served_watermark_us",
    )
