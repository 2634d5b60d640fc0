"""Pictures of models and weeks as PNG bytes, for Dagster's metadata and MLflow's artifacts.

Uses matplotlib's figures without pyplot: no global state, no display, safe in threads. Its import takes 0.5 s, so it
happens inside the functions. Refuses to compute: figures come from `headway.evaluation` and `headway.drift`.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headway.drift import STATISTICS, DriftLimits, WindowStatistics, from_us_local, warnings
from headway.evaluation import Bools, Floats, average_precision, roc_auc
from headway.gates import Evidence
from headway.memory_configuration import MIB
from headway.memory_plan import MemoryPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_BINS = 20
_MEMORY = {
    "reserved": "tab:gray",
    "user": "tab:olive",
    "storage": "tab:blue",
    "execution": "tab:orange",
    "off-heap storage": "lightskyblue",
    "off-heap execution": "bisque",
    "PySpark": "tab:green",
    "overhead": "lightgray",
}


def evidence_pictures(evidence: Evidence) -> dict[str, bytes]:
    """Return the pictures of one candidate's evidence, champion beside it: ``ranking`` and ``calibration``."""
    models = {"candidate": evidence.candidate}
    if evidence.champion is not None:
        models["champion"] = evidence.champion
    return {
        "ranking": ranking_picture(evidence.labels, models),
        "calibration": calibration_picture(evidence.labels, models),
    }


def ranking_picture(labels: Bools, models: Mapping[str, Floats]) -> bytes:
    """Return the ROC and the precision-recall curves of models on the same rows; needs both outcomes."""
    figure = _figure(width_in=9)
    left, right = figure.subplots(1, 2)
    for name, predictions in models.items():
        ordered = labels[np.argsort(-predictions, kind="stable")]
        hits = np.cumsum(ordered)
        counted = np.arange(1, len(ordered) + 1)
        recall, miss_rate = hits / hits[-1], (counted - hits) / (counted[-1] - hits[-1])
        left.plot(miss_rate, recall, label=f"{name}: {roc_auc(labels, predictions):.3f}")
        right.plot(recall, hits / counted, label=f"{name}: {average_precision(labels, predictions):.3f}")
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    right.axhline(float(labels.mean()), color="grey", linewidth=0.8)
    left.set(title="ROC (area)", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="precision-recall (average precision)", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend(loc="best")
    return _png(figure)


def calibration_picture(labels: Bools, models: Mapping[str, Floats]) -> bytes:
    """Return predicted against true rates in twenty bins of equal size, per model."""
    figure = _figure(width_in=5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, predictions in models.items():
        bins = np.array_split(np.argsort(predictions, kind="stable"), min(_BINS, len(labels)))
        axes.plot([predictions[b].mean() for b in bins], [labels[b].mean() for b in bins], marker="o", label=name)
    axes.set(title="calibration", xlabel="mean prediction", ylabel="true rate", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="best")
    return _png(figure)


def weeks_picture(weeks: Sequence[WindowStatistics], limits: DriftLimits, *, zone: str) -> bytes:
    """Return rate and mean prediction by week, and below them each watched statistic with its limit."""
    figure = _figure(width_in=9, height_in=7)
    top, *watched = figure.subplots(1 + len(STATISTICS), 1, sharex=True)
    days = [f"{from_us_local(week.from_us, zone):%m-%d}" for week in weeks]
    top.plot(days, [week.rate for week in weeks], marker="o", label="true rate")
    top.plot(days, [week.mean_prediction for week in weeks], marker="o", label="mean prediction")
    top.legend(loc="best")
    for name, axes in zip(STATISTICS, watched, strict=True):
        found = [np.nan if (value := getattr(week, name)) is None else value for week in weeks]
        colors = ["tab:red" if name in warnings(week, limits) else "tab:blue" for week in weeks]
        axes.bar(days, found, color=colors)
        axes.axhline(getattr(limits, name), color="tab:red", linewidth=1, linestyle="--")
        axes.set(ylabel=name.replace("_", " "))
    watched[-1].tick_params(axis="x", rotation=90)
    top.set(title="weeks from Monday (red: over the limit)")
    return _png(figure)


def memory_picture(plan: MemoryPlan) -> bytes:
    """Return a Spark executor's memory as two bars to scale: what is in the heap, and what lies beside it."""
    figure = _figure(width_in=9, height_in=3.5)
    axes = figure.subplots()
    for row, region in enumerate(("beside", "heap")):
        start = 0.0
        for segment in (each for each in plan.segments() if each.region == region):
            size_mib = segment.size_bytes / MIB
            axes.barh(
                row, size_mib, left=start, label=f"{segment.name} {size_mib:,.0f} MiB", color=_MEMORY[segment.name]
            )
            start += size_mib
    axes.set_yticks([0, 1], ["beside\nthe heap", "heap"])
    of = plan.configuration
    axes.set(
        xlabel="MiB",
        title=f"executor, {of.deployment}: {plan.container_bytes / MIB:,.0f} MiB with {of.tasks} tasks at once",
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return _png(figure)


def _figure(*, width_in: float, height_in: float = 4.5) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    # Without matplotlib's version in the file the same picture is the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
