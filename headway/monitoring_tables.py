"""Lake tables of what happens after a prediction: outcomes, weekly verdicts, decisions to train. Declarations only."""

import polars as pl

from headway.drift import WindowStatistics
from headway.lake import INSTANT, LakeTable
from headway.product import Product

STATISTICS_STORED = WindowStatistics.__struct_fields__[2:]  # without the window's ends


def labels_table(product: Product) -> LakeTable:
    """Return the table of outcomes: one row per thing that was, or could have been, asked about."""
    return LakeTable(
        name=f"labels.{product.name}",
        columns={
            "subject": pl.String(),
            "request": pl.String(),
            "window": INSTANT,
            "due": INSTANT,
            "outcome": pl.String(),
            "label": pl.Boolean(),
            "label_known_at": INSTANT,
            "slice": pl.String(),
            "planted": pl.String(),
        },
        required=("subject", "request", "window", "due", "outcome"),
    )


def monitoring_table(product: Product) -> LakeTable:
    """Return the table of weekly verdicts: one row per model version and whole mature week."""
    numbers = [name for name in STATISTICS_STORED if name not in ("rows", "worst_slice")]
    return LakeTable(
        name=f"monitoring.{product.name}",
        columns={
            "model_version": pl.Int64(),
            "model_digest": pl.String(),
            "week": INSTANT,
            "until": INSTANT,
            "rows": pl.Int64(),
            **dict.fromkeys(numbers, pl.Float64()),
            "worst_slice": pl.String(),
            "warnings": pl.String(),
            "limit_divergence": pl.Float64(),
            "limit_excess_log_loss": pl.Float64(),
            "predictions": pl.Int64(),
            "degraded": pl.Int64(),
            "stale": pl.Int64(),
            "planted": pl.Int64(),
            "known_at": INSTANT,
        },
        required=("model_version", "model_digest", "week", "until", "rows", "predictions", "known_at"),
    )


def decisions_table(product: Product) -> LakeTable:
    """Return the table of decisions: one row per model version and last judged week.

    ``train_from`` to ``gate_until`` say on what to train and judge, when the decision is to train.
    """
    instants = ("until", "train_from", "train_until", "gate_until", "known_at", "decided_at")
    return LakeTable(
        name=f"decisions.{product.name}",
        columns={
            "model_version": pl.Int64(),
            "model_digest": pl.String(),
            "decision": pl.String(),
            "reason": pl.String(),
            **dict.fromkeys(instants, INSTANT),
        },
        required=("model_version", "model_digest", "decision", "reason", "known_at", "decided_at"),
    )
