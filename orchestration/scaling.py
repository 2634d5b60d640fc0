"""What the scaler of stream jobs decided, as observations of the jobs' instances. Decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.names import instances_key
from assets.resources import ScalingResource
from assets.shown import figures, table
from headway.adapters.scaling_table import Recorded
from headway.clock import format_us
from headway.contracts import Domain

_EVERY_S = 30
# Changes that a person wants to look back on.
_READ = 50
_FIGURES = ("lag", "lag_s", "input_per_s", "handled_per_s", "capacity_per_s")


def job_instances_sensor(domain: Domain) -> dg.SensorDefinition:
    """Return the sensor that records the numbers of instances, and the decisions that led to them, when one changed."""

    @dg.sensor(
        name=f"{domain.name}_job_instances",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records how many instances each stream job has, and why, when the scaler changed a number.",
    )
    def observe(context: dg.SensorEvaluationContext, scaling: ScalingResource) -> dg.SensorResult | dg.SkipReason:
        recorded = scaling.open()
        newest = {} if recorded is None else {row.job: row for row in recorded.newest() if _of_a_job(row)}
        if recorded is None or not newest:
            return dg.SkipReason("the scaler has decided nothing yet")
        changes = [row for row in recorded.read(job=None, last=_READ, changes=True) if _of_a_job(row)]
        numbers = ", ".join(f"{job} {row.after}" for job, row in sorted(newest.items()))
        cursor = f"{changes[-1].at_us if changes else 0}: {numbers}"
        if context.cursor == cursor:
            return dg.SkipReason(f"no number has changed: {numbers}")
        observed = dg.AssetObservation(instances_key(domain), metadata=told(newest, changes))
        return dg.SensorResult(asset_events=[observed], cursor=cursor)

    return observe


def told(newest: Mapping[str, Recorded], changes: Sequence[Recorded]) -> dict[str, Any]:  # Any: metadata of all kinds
    """Return the number of each job to draw over time, the newest decision of each, and all that changed a number."""
    return {
        **figures({job: row.after for job, row in sorted(newest.items())}, prefix="instances of "),
        "newest decisions": table(_row(row) for _, row in sorted(newest.items())),
        "changes": table(map(_row, changes)),
    }


def _of_a_job(row: Recorded) -> bool:
    """Whether a decision is about a stream job; those about model replicas are in the same table."""
    return "lag" in row.inputs["load"]


def _row(row: Recorded) -> dict[str, Any]:
    load = row.inputs["load"]
    return {
        "at": format_us(row.at_us),
        "job": row.job,
        "before": row.before,
        "after": row.after,
        "reason": row.reason,
        **{name: load[name] for name in _FIGURES},
    }
