"""Predictions meet what became of them: labels by subject, statistics by whole mature week, and the decision's memory.

Everything is a lake table, so a verdict can be traced to its rows. A week's verdict stands: labels corrected later do
not rewrite it (SEMANTICS S18); only further predictions of the same week do. What bites: a request names no subject, so
predictions and labels meet on the request itself, without its as-of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from headway.clock import DAY_US, from_us, to_us
from headway.drift import (
    DriftLimits,
    Hold,
    Retrain,
    Window,
    WindowStatistics,
    from_us_local,
    is_mature,
    warnings,
    weekly_windows,
    window_statistics,
)
from headway.errors import ContractViolation
from headway.lake import INSTANT
from headway.monitoring_tables import STATISTICS_STORED, decisions_table, monitoring_table
from headway.product import Product
from headway.registry import ModelVersion


def label_rows(product: Product, events: pl.DataFrame) -> pl.DataFrame:
    """Return the labels that events tell, in the table's columns; ``planted`` says which event about it was."""
    planted = events.filter(pl.col("planted").is_not_null()).group_by("subject").agg(pl.col("planted").min())
    examples = product.examples(events).join(planted, on="subject", how="left").sort("window_us", "subject")
    names = [name for name in product.request.__struct_fields__ if name != "as_of"]
    requests = (product.request(**values) for values in examples.select(names).iter_rows(named=True))
    return examples.select(
        "subject",
        pl.Series("request", [msgspec.json.encode(request).decode() for request in requests], dtype=pl.String),
        *(pl.col(f"{name}_us").cast(INSTANT).alias(name) for name in ("window", "due")),
        "outcome",
        "label",
        pl.col("label_known_at_us").cast(INSTANT).alias("label_known_at"),
        pl.col(product.drift_slice).cast(pl.String).alias("slice"),
        "planted",
    )


def judged_predictions(product: Product, predictions: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Return one row per subject with its outcome and the newest answer given before the outcome was due.

    ``predictions`` are rows of one model version; those about nothing the events know are left out. Of answers as of one
    instant a degraded one counts only when there is no other: in a replay the stream may come too late for the store.
    """
    rows = predictions.select(
        pl.Series("request", [_without_as_of(product, text) for text in predictions["request"]], dtype=pl.String),
        pl.col("as_of").alias("asked"),
        "requested_at",
        "probability",
        "degraded",
        (pl.col("stale") != "").alias("stale"),
    )
    known = rows.join(labels, on="request", how="inner").filter(pl.col("asked") < pl.col("due"))
    return known.sort("asked", ~pl.col("degraded"), "requested_at").unique("subject", keep="last", maintain_order=True)


@dataclass(frozen=True, kw_only=True)
class JudgedWeek:
    """One whole mature week of one model version."""

    statistics: WindowStatistics
    predictions: int
    degraded: int
    stale: int
    planted: int


def judge_weeks(product: Product, judged: pl.DataFrame, *, labels: pl.DataFrame, known_at_us: int) -> list[JudgedWeek]:
    """Return the statistics of each whole mature week the version answered in, oldest first.

    A week counts when the answers span it: the version was asked on its first day or before, and on its last or after.
    """
    if judged.is_empty():
        return []
    policy = product.drift
    instants = judged["window"].dt.timestamp("us")
    first_us, last_us = int(instants.min()), int(instants.max())  # type: ignore[arg-type]  # int64, no nulls
    found = []
    for week in weekly_windows(
        policy.zone, from_us=_midnight(first_us, policy.zone), until_us=_midnight(last_us + DAY_US, policy.zone)
    ):
        inside = _inside(week)
        last_due = labels.filter(inside)["due"].dt.timestamp("us").max()
        rows = judged.filter(inside)
        known = (pl.col("label").is_not_null() & (pl.col("label_known_at") <= from_us(known_at_us))).fill_null(
            value=False
        )
        labelled = rows.filter(known)
        if last_due is None or labelled.is_empty():
            continue
        if not is_mature(last_due_us=int(last_due), watermark_us=known_at_us, policy=policy):  # type: ignore[arg-type]
            continue
        found.append(
            JudgedWeek(
                statistics=window_statistics(
                    week,
                    labels=labelled["label"].to_numpy().astype(np.bool_),
                    predictions=labelled["probability"].to_numpy(),
                    slices=labelled["slice"].to_numpy().astype(object),
                    policy=policy,
                ),
                predictions=rows.height,
                degraded=int(rows["degraded"].sum()),
                stale=int(rows["stale"].sum()),
                planted=labelled["planted"].count(),
            )
        )
    return found


def monitoring_rows(
    product: Product, weeks: Sequence[JudgedWeek], *, model: ModelVersion, limits: DriftLimits | None, known_at_us: int
) -> pl.DataFrame:
    """Return the weekly verdicts in the table's columns."""
    rows = [
        {
            "model_version": model.version,
            "model_digest": model.digest,
            "week": from_us(week.statistics.from_us),
            "until": from_us(week.statistics.until_us),
            **{name: getattr(week.statistics, name) for name in STATISTICS_STORED},
            "warnings": ", ".join(() if limits is None else warnings(week.statistics, limits)),
            "limit_divergence": None if limits is None else limits.divergence,
            "limit_excess_log_loss": None if limits is None else limits.excess_log_loss,
            "predictions": week.predictions,
            "degraded": week.degraded,
            "stale": week.stale,
            "planted": week.planted,
            "known_at": from_us(known_at_us),
        }
        for week in weeks
    ]
    return pl.DataFrame(rows, schema=dict(monitoring_table(product).columns))


def merge_verdicts(kept: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Return all verdicts of a version: a week keeps its verdict unless it has more predictions now."""
    known = kept.select("week", pl.col("predictions").alias("before"))
    newer = found.join(known, on="week", how="left").filter(
        pl.col("before").is_null() | (pl.col("predictions") > pl.col("before"))
    )
    rest = kept.join(newer, on="week", how="anti")
    return pl.concat([rest, newer.select(kept.columns)]).sort("week")


def weeks_in(rows: pl.DataFrame) -> list[WindowStatistics]:
    """Return the statistics in rows of the monitoring table, oldest first."""
    return [
        WindowStatistics(
            from_us=row["week_us"], until_us=row["until_us"], **{name: row[name] for name in STATISTICS_STORED}
        )
        for row in rows.sort("week")
        .with_columns(week_us=pl.col("week").dt.timestamp("us"), until_us=pl.col("until").dt.timestamp("us"))
        .iter_rows(named=True)
    ]


@dataclass(frozen=True, kw_only=True)
class TrainingPeriod:
    """What a retraining learns from and is judged on: [from, until) and [until, gate_until)."""

    from_us: int
    until_us: int
    gate_until_us: int


def training_period(trained: Window, last_week: WindowStatistics) -> TrainingPeriod:
    """Return the period of the training a week gives reason for.

    The newest week is what the candidate must be good at, so it is held out; everything before it, as long as the live
    model's own training window was, is learned from.
    """
    length_us = trained.until_us - trained.from_us
    return TrainingPeriod(
        from_us=last_week.from_us - length_us, until_us=last_week.from_us, gate_until_us=last_week.until_us
    )


def decision_row(
    product: Product,
    decision: Retrain | Hold,
    *,
    model: ModelVersion,
    trained: Window,
    weeks: Sequence[WindowStatistics],
    known_at_us: int,
    decided_at_us: int,
) -> pl.DataFrame:
    """Return one decision in the table's columns."""
    period = training_period(trained, weeks[-1]) if weeks and isinstance(decision, Retrain) else None
    row = {
        "model_version": model.version,
        "model_digest": model.digest,
        "decision": "retrain" if isinstance(decision, Retrain) else "hold",
        "reason": decision.reason,
        "until": from_us(weeks[-1].until_us) if weeks else None,
        "train_from": None if period is None else from_us(period.from_us),
        "train_until": None if period is None else from_us(period.until_us),
        "gate_until": None if period is None else from_us(period.gate_until_us),
        "known_at": from_us(known_at_us),
        "decided_at": from_us(decided_at_us),
    }
    return pl.DataFrame([row], schema=dict(decisions_table(product).columns))


def past_trainings_us(decisions: pl.DataFrame, *, before_us: int | None) -> tuple[int, ...]:
    """Return the ends of the weeks that led to trainings before the week that is judged now, oldest first."""
    rows = decisions.filter((pl.col("decision") == "retrain") & pl.col("until").is_not_null())
    if before_us is not None:
        rows = rows.filter(pl.col("until") < from_us(before_us))
    return tuple(rows["until"].dt.timestamp("us").unique().sort())


def _without_as_of(product: Product, text: str) -> str:
    try:
        request = msgspec.json.decode(text, type=product.request)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"predictions of {product.name}: a logged request is none: {error}") from error
    return msgspec.json.encode(msgspec.structs.replace(request, as_of=None)).decode()


def _inside(week: Window) -> pl.Expr:
    return (pl.col("window") >= from_us(week.from_us)) & (pl.col("window") < from_us(week.until_us))


def _midnight(instant_us: int, zone: str) -> int:
    return to_us(from_us_local(instant_us, zone).replace(hour=0, minute=0, second=0, microsecond=0))
