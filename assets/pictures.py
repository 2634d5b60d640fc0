"""Pictures where a person would look: the model's ranking and calibration, its inputs' weight, the weeks it was judged in.

`headway.plots` draws; this chooses what exists to be drawn, and reads the weight of inputs from the model's own text.
"""

import io
from collections.abc import Mapping

import polars as pl

from headway.candidate import Candidate
from headway.drift import DriftLimits
from headway.gates import Evidence
from headway.monitoring import weeks_in
from headway.product import Product
from headway.training import TrainingSet
from headway.warehouse import DAY, FATES, Report

_SHOWN = 25
_DPI = 100


def candidate_pictures(product: Product, candidate: Candidate, evidence: Evidence) -> dict[str, bytes]:
    """Return a candidate's pictures as PNG by name; curves only when the held-out rows have both outcomes."""
    from headway.plots import evidence_pictures, weeks_picture

    pictures = {"importance": importance_picture(candidate.model)}
    if 0 < int(evidence.labels.sum()) < len(evidence.labels):
        pictures |= evidence_pictures(evidence)
    if candidate.manifest.limits is not None:
        pictures["weeks out of fold"] = weeks_picture(
            candidate.rolling.weeks, candidate.manifest.limits, zone=product.drift.zone
        )
    return pictures


def training_pictures(product: Product, rows: TrainingSet) -> dict[str, bytes]:
    """Return the label's share and the number of rows by local day."""
    local = pl.col("window_us").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(product.drift.zone).dt.date()
    days = rows.frame.group_by(local.alias("day")).agg(pl.col("label").mean(), pl.len()).sort("day")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=_DPI, layout="constrained")
    share, count = figure.subplots(2, 1, sharex=True)
    share.plot(days["day"], days["label"])
    share.set(title="training rows by day", ylabel="share of positives", ylim=(0, 1))
    count.bar(days["day"], days["len"], width=1.0)
    count.set(ylabel="rows")
    return {"labels by day": _png(figure)}


def monitoring_pictures(product: Product, verdicts: pl.DataFrame, limits: DriftLimits | None) -> dict[str, bytes]:
    """Return the judged weeks with each watched statistic and its limit; none before there is a week."""
    from headway.plots import weeks_picture

    if limits is None or verdicts.is_empty():
        return {}
    return {"weeks": weeks_picture(weeks_in(verdicts), limits, zone=product.drift.zone)}


def batch_pictures(answers: pl.DataFrame, *, zone: str) -> dict[str, bytes]:
    """Return a batch's answers by local day of their as-of, with their mean, and how they are spread."""
    from matplotlib.figure import Figure

    local = pl.col("as_of").dt.convert_time_zone(zone).dt.date().alias("day")
    days = answers.group_by(local).agg(pl.col("probability").mean(), pl.len()).sort("day")
    figure = Figure(figsize=(9, 6.5), dpi=_DPI, layout="constrained")
    mean, count, spread = figure.subplots(3, 1)
    mean.plot(days["day"], days["probability"], marker="o")
    mean.set(title="answers by day", ylabel="mean probability", ylim=(0, 1))
    count.bar(days["day"], days["len"], width=0.9)
    count.set(ylabel="rows")
    spread.hist(answers["probability"].to_numpy(), bins=50, range=(0, 1))
    spread.set(xlabel="probability", ylabel="rows")
    return {"answers": _png(figure)}


def importance_picture(model: bytes) -> bytes:
    """Return how often each input decides a split, most first, from the LightGBM text."""
    from matplotlib.figure import Figure

    splits = dict(sorted(split_counts(model).items(), key=lambda item: item[1])[-_SHOWN:])
    figure = Figure(figsize=(9, 0.25 * len(splits) + 1), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.barh(list(splits), list(splits.values()))
    axes.set(title="splits by input", xlabel="splits")
    return _png(figure)


def quality_picture(quality: pl.DataFrame) -> bytes:
    """Return how many events each day had, by what became of them; above, the same without those on time."""
    from matplotlib.figure import Figure

    days = quality.group_by(DAY).agg(pl.col(*FATES).sum()).sort(DAY)
    figure = Figure(figsize=(9, 4.5), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, fates in ((above, FATES[1:]), (below, FATES)):
        base = pl.zeros(days.height, eager=True)
        for fate in fates:
            axes.bar(
                days[DAY].str.to_date(),
                days[fate],
                bottom=base,
                width=1.0,
                label=fate.replace("_", " "),
                color=f"C{FATES.index(fate)}",
            )
            base = base + days[fate]
        axes.legend(loc="best")
    above.set(title="events by day, and what became of them", ylabel="not on time")
    below.set(ylabel="events")
    return _png(figure)


def report_picture(report: Report, rows: pl.DataFrame) -> bytes:
    """Return a report's measures as it says they are drawn."""
    from matplotlib.figure import Figure

    drawn = report.drawn
    weight = pl.col(drawn.weight)
    figure = Figure(figsize=(9, 3 * len(drawn.measures)), dpi=_DPI, layout="constrained")
    rows_of_axes = figure.subplots(len(drawn.measures), 1, sharex=True, squeeze=False)
    for axes, measure in zip(rows_of_axes[:, 0], drawn.measures, strict=True):
        known = rows.filter(pl.col(measure).is_not_null())
        averaged = known.group_by(drawn.by, drawn.over).agg((pl.col(measure) * weight).sum() / weight.sum())
        for (value,), line in sorted(averaged.partition_by(drawn.by, as_dict=True).items()):
            ordered = line.sort(drawn.over)
            axes.plot(ordered[drawn.over], ordered[measure], label=str(value))
        axes.set(ylabel=measure.replace("_", " "))
        axes.legend(loc="best")
    return _png(figure)


def split_counts(model: bytes) -> Mapping[str, int]:
    """Return the section ``feature_importances`` of a LightGBM text; inputs without a split are not in it."""
    _, _, section = model.decode().partition("\nfeature_importances:\n")
    lines = section.partition("\n\n")[0].splitlines()
    return {name: int(count) for name, _, count in (line.partition("=") for line in lines)}


def _png(figure: object) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # type: ignore[attr-defined]  # a Figure
    return buffer.getvalue()
