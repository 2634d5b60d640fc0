"""What Feast is told of a domain: its views over the lake, and one feature service per product, under the product's name.

Read from definitions and from the lake alone, so that any registry can be made again from nothing. A view version that
has not been backfilled is held back, and with it every service that needs it: joined, it would be nulls, and nothing
would say so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.adapters.delta import Lake
from headway.adapters.delta_gaps import why_incomplete
from headway.adapters.feast import LakeTable
from headway.contracts import Domain
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView
from headway.features.services import feature_service
from headway.features.static import StaticView
from headway.product import Product


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What `headway.adapters.feast_registry.apply_views` takes, and what is held back and why, by name.

    Attributes:
        tables: by name in Feast.
        services: Feast's references ``<view>:<feature>``, in the order of the product's vector.
    """

    views: tuple[FeatureView | StaticView, ...]
    tables: Mapping[str, LakeTable]
    services: Mapping[str, tuple[str, ...]]
    held: Mapping[str, str]


def register(domain: Domain, products: Iterable[Product], lake: Lake) -> Registration:
    """Return what may be registered now."""
    held = {view.qualified: why for view in domain.every_view if (why := _not_backfilled(view, lake)) is not None}
    views = tuple(view for view in domain.every_view if view.qualified not in held)
    services = {}
    for product in sorted(products, key=lambda product: product.name):
        lacking = [use.view for use in product.views if use.view in held]
        if lacking:
            held[product.name] = f"needs {', '.join(lacking)}"
        else:
            services[product.name] = service_of(product)
    tables = {view.online_name: LakeTable(path=str(lake.path(_table(view))), version=None) for view in views}
    return Registration(views=views, tables=tables, services=services, held=held)


def service_of(product: Product) -> tuple[str, ...]:
    """Return a product's features as Feast refers to them; the feature API serves the same."""
    return feature_service(product).references


def _table(view: FeatureView | StaticView) -> str:
    return changelog_table(view).name


def _not_backfilled(view: FeatureView | StaticView, lake: Lake) -> str | None:
    if isinstance(view, StaticView):
        loaded = lake.exists(_table(view)) and lake.files(_table(view))
        return None if loaded else "has no rows in the lake: load it first (headway features refresh)"
    why = why_incomplete(lake, view)
    return None if why is None else f"{why}: backfill it first (asset features/{view.online_name})"
