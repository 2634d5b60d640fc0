"""What is served under one name: the views of a product, the features taken from each, and what an entity is asked by.

Feast's services, the feature API and the predictor's read are all made from this value, so that they cannot differ.
Pure: no store, no clock.
"""

from dataclasses import dataclass
from functools import cached_property

from headway.clock import duration_us
from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.online import OnlineView
from headway.product import Product


@dataclass(frozen=True, kw_only=True)
class ServedFeatures:
    """The features taken from one view, in the order of the vector."""

    view: FeatureView
    features: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """The view's qualified name, as answers and logs carry it."""
        return self.view.qualified

    @cached_property
    def counts(self) -> frozenset[str]:
        """The features that are 0, and not null, for an entity nothing happened to (S10)."""
        return frozenset(a.name for a in self.view.aggregates if a.function == "count") & {*self.features}

    @cached_property
    def empty(self) -> dict[str, Value]:
        """What an entity without a row has: an empty window, count 0 and the rest null (S10)."""
        return {name: 0 if name in self.counts else None for name in self.features}

    @cached_property
    def max_lag_us(self) -> int:
        """How far the view's watermark may be behind before its values are stale (S10)."""
        return duration_us(self.view.max_lag)

    @cached_property
    def online(self) -> OnlineView:
        """How it is read from the online store."""
        return OnlineView(view=self.view.online_name, keys=self.view.keys, features=self.features)


@dataclass(frozen=True, kw_only=True)
class FeatureService:
    """The features of one product; ``name`` is the product's."""

    name: str
    description: str
    owner: str
    served: tuple[ServedFeatures, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """What names the entities of one row, in the order of first use."""
        return tuple(dict.fromkeys(key for each in self.served for key in each.view.keys))

    @cached_property
    def references(self) -> tuple[str, ...]:
        """The features as Feast refers to them, ``<view>:<feature>``, in the order of the vector."""
        return tuple(f"{each.view.online_name}:{name}" for each in self.served for name in each.features)

    @cached_property
    def online(self) -> tuple[OnlineView, ...]:
        """What is read from the online store for one row."""
        return tuple(each.online for each in self.served)


def feature_service(product: Product) -> FeatureService:
    """Return the service of a product."""
    return FeatureService(
        name=product.name,
        description=product.description,
        owner=product.owner,
        served=tuple(
            ServedFeatures(view=product.feature_views[use.view], features=use.features) for use in product.views
        ),
    )
