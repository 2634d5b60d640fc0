"""Feast's offline store over Delta tables: the files of one table version, joined as of each request by a sorted merge.

A plug-in through Feast's own extension point: ``offline_store: {type: headway.adapters.feast_lake.LakeOfflineStore}``.
Feast imports it by that name, which is why Feast is imported at module level here and nowhere else. Definitions, registry
and ``get_historical_features`` stay Feast's; ``tests/contract/test_feast_offline.py`` holds the values to those of
Feast's DuckDB store.

The one thing that bites is what it replaces. Feast 0.67's DuckDB store joins by inequality and builds every pair of
(request, earlier row of that key): 40,000 requests against 3 million rows took 236 s and 20 GB. Its dask store drops
requests older than their key's first row, and picks a wrong row at equal timestamps. Neither reads a Delta table offline.
Decision: ``docs/adr/0004-feast-over-the-lake.md``.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
from feast import FeatureView, FileSource, RepoConfig  # noqa: TID253 - Feast loads this module, nobody else does
from feast.data_source import DataSource  # noqa: TID253
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata  # noqa: TID253
from feast.infra.registry.base_registry import BaseRegistry  # noqa: TID253
from feast.on_demand_feature_view import OnDemandFeatureView  # noqa: TID253
from feast.repo_config import FeastConfigBaseModel  # noqa: TID253
from feast.saved_dataset import SavedDatasetStorage  # noqa: TID253

from headway.errors import ContractViolation
from headway.features.as_of import REQUEST_TIME, join_as_of

VERSION_TAG = "delta_version"
_INSTANT = pl.Datetime("us", "UTC")
# Why Feast's other verbs are refused: the feature job alone writes the lake, and OnlineWriter the online store.
_REFUSED = "lake offline store: {} is not supported; the feature job writes the lake and the online store"


class LakeRetrievalJob(RetrievalJob):
    """A point-in-time join that runs when its rows are asked for."""

    def __init__(self, run: Callable[[], pa.Table], metadata: RetrievalMetadata, *, full_feature_names: bool) -> None:
        self._run = run
        self._metadata = metadata
        self._full_feature_names = full_feature_names

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named ``<view>__<feature>``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None: request-time functions are ours and run after the join."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return self._metadata

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,
    ) -> None:
        """Refuse: training sets are written by the asset that asked."""
        raise NotImplementedError(_REFUSED.format("persist"))

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._run()


class LakeOfflineStoreConfig(FeastConfigBaseModel):
    """Selects this store in Feast's configuration."""

    type: Literal["headway.adapters.feast_lake.LakeOfflineStore"] = "headway.adapters.feast_lake.LakeOfflineStore"


class LakeOfflineStore(OfflineStore):
    """Reads each view's rows from a Delta table, at the version its source is tagged with or the newest."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,  # noqa: ARG004
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,  # noqa: ARG004
        project: str,  # noqa: ARG004
        full_feature_names: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,  # options of other Feast stores
    ) -> RetrievalJob:
        """Join every view's features onto the requests, in the requests' order."""
        if kwargs or not isinstance(entity_df, pd.DataFrame) or REQUEST_TIME not in entity_df:
            raise ContractViolation(f"lake offline store: wanted requests as a frame with {REQUEST_TIME}, got {kwargs}")

        def run() -> pa.Table:
            # Feast's own stores cut to microseconds too; pandas brings nanoseconds.
            joined = pl.from_pandas(entity_df).with_columns(pl.col(REQUEST_TIME).cast(_INSTANT))
            for view in feature_views:
                joined = _with_features(joined, view, feature_refs, full_feature_names=full_feature_names)
            return joined.to_arrow()

        metadata = RetrievalMetadata(feature_refs, [str(name) for name in entity_df if name != REQUEST_TIME])
        return LakeRetrievalJob(run, metadata, full_feature_names=full_feature_names)

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """Refuse: materialisation would go through Feast's unguarded online writer."""
        raise NotImplementedError(_REFUSED.format("materialize"))

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Refuse: see ``pull_latest_from_table_or_query``."""
        raise NotImplementedError(_REFUSED.format("reading a whole view"))


def _with_features(
    requests: pl.DataFrame, view: FeatureView, feature_refs: Sequence[str], *, full_feature_names: bool
) -> pl.DataFrame:
    """``requests`` with the asked features of one view."""
    source = view.batch_source
    if not isinstance(source, FileSource) or view.ttl or not source.created_timestamp_column:
        raise ContractViolation(f"{view.name}: wanted a Delta FileSource with a created timestamp, and ttl 0 (S10)")
    name: str = view.projection.name_to_use()  # type: ignore[no-untyped-call] # Feast types it not
    features = [feature for ref in feature_refs for prefix, feature in [ref.split(":")] if prefix == name]
    renamed = {feature: f"{name}__{feature}" if full_feature_names else feature for feature in features}
    order = {source.timestamp_field: "__row_time", source.created_timestamp_column: "__row_created"}
    keys = [column.name for column in view.entity_columns]
    version = source.tags.get(VERSION_TAG)
    rows = (
        pl.scan_delta(source.path, version=int(version) if version is not None else None)
        .select(*keys, *order, *features)
        .rename(order | renamed)
    )
    joined = join_as_of(requests, rows, keys=keys, order=list(order.values()))
    return joined.select(*requests.columns, *renamed.values())
