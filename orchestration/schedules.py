"""What happens by the calendar: a training a month, whether anything drifted or not."""

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
