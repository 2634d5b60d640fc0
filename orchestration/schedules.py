"""What happens by the calendar: a training a month, drift or not; a look at Kafka's replication; the lake's compaction."""

import dagster as dg

from headway.product import Product
from orchestration.jobs import Job


def monthly_training(product: Product, job: Job) -> dg.ScheduleDefinition:
    """Return the schedule of a product's training, once a month.

    The run has no period in its configuration: it takes the newest mature week the lake has (`PeriodConfig`), so the
    calendar decides when to look and the data what to see. Stopped by default: history does not grow by itself.
    """
    return dg.ScheduleDefinition(
        name=f"{product.name}_monthly_training",
        job=job,
        cron_schedule="0 6 3 * *",
        execution_timezone=product.drift.zone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Trains on everything known, on the third of the month: the last labels of the month are mature by then.",
    )


def replication_watch(job: Job) -> dg.ScheduleDefinition:
    """Return the schedule of the replication checks.

    The metrics see a lost copy within seconds and raise the alert; this is the record of it beside the data it concerns.
    """
    return dg.ScheduleDefinition(
        name="replication_watch",
        job=job,
        cron_schedule="*/30 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Checks every topic's replication twice an hour.",
    )


def daily_compaction(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule of the lake's compaction.

    Running by default: a loader that writes every 3 s leaves up to 28,800 files a day in a table.
    """
    return dg.ScheduleDefinition(
        name="daily_compaction",
        job=job,
        cron_schedule="30 4 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Merges the lake's small files once a day, at half past four UTC.",
    )
