"""Keys of all assets, so that whoever depends on one says it the same way.

A topic is named as on the broker (``topics/events.raw``); everything else by table, domain or product, without dots,
because Dagster makes the name of a step from the key. The graph shows only the last part of a key, so that part says
what the thing is (``<product>/model``), and the product comes first.
"""

import dagster as dg

from headway.contracts import Domain
from headway.features.definitions import FeatureView
from headway.features.static import StaticView
from headway.product import Product
from headway.warehouse import CuratedTable, Dimension, Report

LAKE_EVENTS = dg.AssetKey(["lake", "events"])
LAKE_LETTERS = dg.AssetKey(["lake", "letters"])
CURATED_QUALITY = dg.AssetKey(["curated", "quality"])


def producers_key(domain: Domain) -> dg.AssetKey:
    """Whoever sends a domain's events, and the files its history comes from."""
    return dg.AssetKey([domain.name, "producers"])


def topic_key(topic: str) -> dg.AssetKey:
    """A topic of the event log."""
    return dg.AssetKey(["topics", topic])


def features_key(view: FeatureView | StaticView) -> dg.AssetKey:
    """A view's changelog in the lake."""
    return dg.AssetKey(["features", view.online_name])


def curated_key(table: CuratedTable) -> dg.AssetKey:
    """A curated table, by day."""
    return dg.AssetKey(["curated", table.name])


def dimension_key(dimension: Dimension) -> dg.AssetKey:
    """What is true of entities, and when."""
    return dg.AssetKey(["dimensions", dimension.name])


def report_key(report: Report) -> dg.AssetKey:
    """Figures over the warehouse."""
    return dg.AssetKey(["reports", report.name])


def online_key(domain: Domain) -> dg.AssetKey:
    """The online store, as far as a domain's views are in it."""
    return dg.AssetKey([domain.name, "online_store"])


def instances_key(domain: Domain) -> dg.AssetKey:
    """How many instances of each stream job run, and why."""
    return dg.AssetKey([domain.name, "job_instances"])


def training_set_key(product: Product) -> dg.AssetKey:
    """Labelled rows a model is made and judged from."""
    return dg.AssetKey([product.name, "training_set"])


def model_key(product: Product) -> dg.AssetKey:
    """A fitted model with its verdict, in the tracking server."""
    return dg.AssetKey([product.name, "model"])


def candidate_key(product: Product) -> dg.AssetKey:
    """The registry's newest version that passed the gate."""
    return dg.AssetKey([product.name, "candidate"])


def serving_key(product: Product) -> dg.AssetKey:
    """What the load balancer serves."""
    return dg.AssetKey([product.name, "serving"])


def predictions_key(product: Product) -> dg.AssetKey:
    """The lake's table of all answers, by request and in batch."""
    return dg.AssetKey([product.name, "predictions"])


def results_key(product: Product) -> dg.AssetKey:
    """The database's table of batch answers, for product applications."""
    return dg.AssetKey([product.name, "results"])


def labels_key(product: Product) -> dg.AssetKey:
    """What became of everything that was, or could have been, asked about."""
    return dg.AssetKey([product.name, "labels"])


def monitoring_key(product: Product) -> dg.AssetKey:
    """Statistics of whole mature weeks."""
    return dg.AssetKey([product.name, "monitoring"])


def decision_key(product: Product) -> dg.AssetKey:
    """Whether to train again, and why."""
    return dg.AssetKey([product.name, "retraining_decision"])
