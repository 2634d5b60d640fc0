"""The memory of Spark's executors as a job: no asset, as it makes no data; the picture is the step's output metadata.

Starts no Spark. The newest session's event log, when there is one, is judged beside the plan that made it.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from assets.shown import picture, table
from headway.errors import ContractViolation, PermanentFailure
from headway.memory_advice import advise
from headway.memory_configuration import MIB
from headway.memory_plan import MemoryPlan, plan_memory


@dg.op(
    name="plan_memory",
    description="Draws where the bytes of an executor go, as HEADWAY_SPARK_* sizes it, and says what the last run asks for.",
)
def plan_spark_memory(context: dg.OpExecutionContext) -> None:
    """Show the plan; a rule that is broken fails the step, as another try would break it again."""
    from headway.settings import Settings
    from headway.spark_settings import read_spark_settings

    try:
        plan = plan_memory(read_spark_settings({}).check().memory(machine_cores=os.cpu_count() or 1))
    except ContractViolation as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(told(plan) | advised(Settings().state / "spark" / "events"))


def told(plan: MemoryPlan) -> dict[str, Any]:  # Any: metadata of all kinds
    """Return a plan as metadata: the picture, every segment, and the sums to draw over time."""
    from headway.plots import memory_picture

    rows = ({"segment": each.name, "MiB": each.size_bytes / MIB, "for": each.meaning} for each in plan.segments())
    return {
        "executor memory": picture(memory_picture(plan), title="executor memory"),
        "segments": table(rows),
        "unified MiB": plan.unified_bytes / MIB,
        "container MiB": plan.container_bytes / MIB,
    }


def advised(events: Path) -> dict[str, Any]:  # Any: likewise
    """Return what the newest event log asks for, as metadata; nothing before the first run."""
    from headway.adapters.spark_history import newest_log, read_log

    try:
        run = read_log(newest_log(events))
    except PermanentFailure:
        return {}
    rows = ({"where": a.where, "seen": a.seen, "change": a.change, "reason": a.reason} for a in advise(run))
    return {"last run": run.application, "advice": table(rows)}


def spark_memory_job() -> dg.JobDefinition:
    """Return the job that shows the memory of Spark's executors."""

    @dg.job(
        name="plan_spark_memory", description="Where the bytes of a Spark executor go, and what its last run asks for."
    )
    def job() -> None:
        plan_spark_memory()

    return job
