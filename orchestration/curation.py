"""Which days of the curated tables to make, as a sensor: days that are over, and days that got events since they were made.

What decides is the data, not the calendar, so a replay of 2013 and a stream of today are treated alike.
"""

import dagster as dg

from assets.curated import days_to_make
from assets.resources import LakeResource
from headway.contracts import Domain
from headway.errors import HeadwayError
from orchestration.jobs import Job

# A look costs a scan of two columns of all events, and only when there are new ones.
_EVERY_S = 300


def curation_sensor(domain: Domain, job: Job) -> dg.SensorDefinition:
    """Return the sensor that starts the job of a domain's curated tables. Stopped by default: a person decides for it."""

    @dg.sensor(
        name=f"{domain.name}_days_to_curate",
        job=job,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Makes days of the curated tables once all their events are due, and again when more came; one run each time.",
    )
    def watch(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.RunRequest | dg.SkipReason:
        opened = lake.open()
        try:
            version = str(opened.version("events"))
            if context.cursor == version:
                return dg.SkipReason(f"no events since version {version} of the lake's table")
            days = days_to_make(opened, domain)
        except HeadwayError as error:
            return dg.SkipReason(str(error))
        context.update_cursor(version)
        if not days:
            return dg.SkipReason("every day that is over has been made from all its events")
        return dg.RunRequest(
            # The same events never start a second run, whatever became of the first.
            run_key=f"v{version} {days[0]} {days[-1]}",
            tags={
                "dagster/asset_partition_range_start": days[0],
                "dagster/asset_partition_range_end": days[-1],
                "curate/days": str(len(days)),
            },
        )

    return watch
