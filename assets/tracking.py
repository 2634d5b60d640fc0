"""`dagster-mlflow`, imported when a run needs it and not when definitions load: MLflow's import takes 5 s.

The resource is dagster-mlflow's own; this only gives it its configuration in the run (the address from `Settings`, the
experiment from the product) and waits with the import. See ADR 0009 for what it is used for and what not.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from assets.resources import settings

PRODUCT_TAG = "headway/product"
# Of runs that nobody tagged with a product: assets materialized by hand in Dagster's pages.
_BY_HAND = "by-hand"


@dg.resource(
    config_schema={
        "url": dg.Field(str, default_value="", description="tracking server; empty = as the environment says")
    },
    description="The MLflow run of this Dagster run (dagster-mlflow).",
)
def tracking_run(context: dg.InitResourceContext) -> Iterator[Any]:  # Any: dagster-mlflow's MlFlow object
    """Open the MLflow run of a Dagster run, in the experiment of its product."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        from dagster_mlflow import mlflow_tracking

        tags = context.run.tags if context.run is not None else {}
        config = {
            "experiment_name": tags.get(PRODUCT_TAG, _BY_HAND),
            "mlflow_tracking_uri": context.resource_config["url"] or settings().mlflow_url,
            "env": {},
            "extra_tags": {name: value for name, value in tags.items() if name.startswith(("headway/", "retrain/"))},
        }
        opened: Any = mlflow_tracking.resource_fn  # Any: Dagster allows functions with and without a context
        yield from opened(context.replace_config(config))


def _end(context: dg.HookContext, events: Sequence[dg.DagsterEvent]) -> Any:  # Any: Dagster's HookExecutionResult
    from dagster_mlflow import end_mlflow_on_run_finished

    return end_mlflow_on_run_finished.hook_fn(context, events)


# On the last step's success the MLflow run is finished, on a failure it is failed.
end_tracking = dg.HookDefinition(
    name="end_mlflow_on_run_finished", hook_fn=_end, required_resource_keys={"mlflow"}, decorated_fn=None
)
