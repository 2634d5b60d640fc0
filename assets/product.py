"""A product's assets: everything between a domain's features and the decision to train again."""

import dagster as dg

from assets.domain import Definition
from assets.model import candidate_asset, model_asset
from assets.monitoring import decision_asset, labels_asset, monitoring_asset
from assets.results import results_asset
from assets.scoring import parity_check, predictions_asset
from assets.topics import deployment_assets
from assets.training import training_set_asset, training_set_checks
from headway.product import Product


def product_assets(product: Product) -> list[Definition]:
    """Return the assets and checks of a product, in the order data goes through them."""
    making: list[dg.AssetsDefinition] = [training_set_asset(product), model_asset(product), candidate_asset(product)]
    watching = [
        predictions_asset(product),
        results_asset(product),
        labels_asset(product),
        monitoring_asset(product),
        decision_asset(product),
    ]
    checks = [training_set_checks(product), parity_check(product)]
    return [*making, *deployment_assets(product), *watching, *checks]
