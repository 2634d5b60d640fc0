"""A product's batch answers in the database that product applications read, by week, as the lake holds them."""

import dagster as dg

from assets.declared import Materialized, without_beta_warning
from assets.names import predictions_key, results_key
from assets.resources import LakeResource, ResultsResource, settings
from assets.scoring import weeks
from assets.shown import owners, table
from headway.clock import format_us, to_us
from headway.drift import Window
from headway.product import Product
from headway.result_rows import publish

# Of the week's first answers and refusals: enough to see what a row is.
_SHOWN = 10


def results_asset(product: Product) -> dg.AssetsDefinition:
    """Return the asset of a product's results, by week of their as-of."""

    def results(context: dg.AssetExecutionContext, lake: LakeResource, results: ResultsResource) -> Materialized:
        found = context.partition_time_window
        window = Window(from_us=to_us(found.start), until_us=to_us(found.end))
        with results.open() as database:
            count = publish(product, lake.open(), database, window)
            first = database.page(product.name, window, rows=_SHOWN, after=None, version=None)
            refused = database.refused(product.name, window, rows=_SHOWN, after=None)
        rows = (
            {
                "as_of": format_us(r.as_of_us),
                "subject": r.subject,
                "probability": r.probability,
                "version": r.model_version,
            }
            for r in first
        )
        return dg.MaterializeResult(
            metadata={
                "rows_of_run": count,
                "interval": str(window),
                "database": database.address,
                "read": dg.MetadataValue.url(f"{settings().load_balancer_url}/v1/batches/docs"),
                "first": table(rows),
                "refused": table({"subject": r.subject, "reason": r.reason} for r in refused),
            }
        )

    with without_beta_warning():
        return dg.asset(
            key=results_key(product),
            deps=[predictions_key(product)],
            partitions_def=weeks(product),
            backfill_policy=dg.BackfillPolicy.single_run(),
            description=(
                "One row per thing asked about in batch: probability (0 to 1), model version and run, for applications; "
                "GET /v1/batches/<product> reads it."
            ),
            group_name=product.name,
            owners=owners(product.owner),
            kinds={"sql"},
        )(results)
