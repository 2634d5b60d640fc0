"""Feast's registry, made from our definitions: entities, views over the lake's tables, feature services.

A registry is derived and can be deleted; two made from the same definitions, in a file or in a database, read the same.
The one thing that bites: a registry that is shared outlives the code that wrote it, so a view version in it is compared
by hash before anything is applied, and another meaning is refused.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headway.adapters.feast import CREATED_TIMESTAMP, EVENT_TIMESTAMP, LakeTable, ViewDefinition, view_name
from headway.errors import ContractViolation

if TYPE_CHECKING:
    import feast

DIGEST_TAG = "digest"


def apply_views(
    store: "feast.FeatureStore",
    views: Sequence[ViewDefinition],
    lake_tables: Mapping[str, LakeTable],
    services: Mapping[str, Sequence[str]],
) -> None:
    """Register ``views``, each over ``lake_tables[view_name]``, and ``services`` as lists of features.

    Args:
        store: the project.
        views: view versions; one that is registered already has to mean the same.
        lake_tables: by view name.
        services: Feast's references by service: ``<view>`` for all of a view, ``<view>:<feature>`` for one feature.

    Raises:
        ContractViolation: a view has no lake table, a service names what is not there, or a registered view version
            has another meaning.
    """
    from feast import Entity, FeatureService
    from feast.value_type import ValueType

    names = [view_name(view) for view in views]
    used = {reference.partition(":")[0] for references in services.values() for reference in references}
    missing = sorted(({*names} - {*lake_tables}) | (used - {*names}))
    if missing:
        raise ContractViolation(f"feast: {missing} are not among the views {names} with lake tables {[*lake_tables]}")
    _check_meanings(store, views)
    keys = sorted({key for view in views for key in view.keys})
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys}
    built = {view_name(view): _feast_view(view, entities, lake_tables[view_name(view)]) for view in views}
    feature_services = [
        FeatureService(name=service, features=_projections(service, references, built))
        for service, references in services.items()
    ]
    store.apply([*entities.values(), *built.values(), *feature_services])


def _check_meanings(store: "feast.FeatureStore", views: Sequence[ViewDefinition]) -> None:
    known = {found.name: found.tags.get(DIGEST_TAG) for found in store.list_feature_views()}
    for view in views:
        digest = known.get(view_name(view), view.digest)
        if digest != view.digest:
            raise ContractViolation(
                f"feast: {view_name(view)} is registered with hash {digest}, wanted {view.digest}: another code has "
                "given this version another meaning; make the change the next version (S19)"
            )


def _projections(
    service: str, references: Sequence[str], built: "Mapping[str, feast.FeatureView]"
) -> list[Any]:  # Any: what Feast types as a list of any kind of view
    """Feast's views cut to the features a service names, in its order."""
    chosen: dict[str, list[str]] = {}
    for reference in references:
        view, _, feature = reference.partition(":")
        chosen.setdefault(view, []).extend([feature] if feature else [f.name for f in built[view].features])
    for view, features in chosen.items():
        known = [f.name for f in built[view].features]
        if odd := sorted(set(features) - set(known)):
            raise ContractViolation(f"feast service {service}: {view} has no feature {odd} (found: {known})")
    return [built[view][features] for view, features in chosen.items()]


def _feast_view(view: ViewDefinition, entities: "Mapping[str, feast.Entity]", table: LakeTable) -> "feast.FeatureView":
    from feast import FeatureView, Field, FileSource
    from feast.data_format import DeltaFormat, ParquetFormat
    from feast.types import Float64, Int64, String

    from headway.adapters.feast_lake import VERSION_TAG

    types = {"int64": Int64, "float64": Float64}
    schema = [Field(name=key, dtype=String) for key in view.keys]
    schema += [Field(name=name, dtype=types[dtype]) for name, dtype in view.columns.items()]
    source = FileSource(
        name=f"{view_name(view)}_changelog",
        path=table.path,
        file_format=ParquetFormat() if table.path.endswith(".parquet") else DeltaFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        tags={} if table.version is None else {VERSION_TAG: str(table.version)},
    )
    return FeatureView(
        name=view_name(view),
        entities=[entities[key] for key in view.keys],
        # Three parts of Feast read ttl in three ways; staleness is our watermark's business (S10).
        ttl=timedelta(0),
        schema=schema,
        source=source,
        online=True,
        owner=view.owner,
        description=view.description,
        tags={DIGEST_TAG: view.digest},
    )
