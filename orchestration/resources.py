"""The resources of the code location; addresses are read from the environment in the run, not here."""

from typing import Any

from assets.resources import LakeResource, LogResource, RegistryResource, ResultsResource, ScalingResource
from assets.tracking import tracking_run


def all_resources() -> dict[str, Any]:  # Any: Dagster takes resources of every kind
    """Return every resource by the name assets ask for it; ``mlflow`` is dagster-mlflow's, for the model asset alone."""
    return {
        "lake": LakeResource(),
        "log": LogResource(),
        "registry": RegistryResource(),
        "results": ResultsResource(),
        "scaling": ScalingResource(),
        "mlflow": tracking_run,
    }
