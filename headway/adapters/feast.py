"""Feast over our stores: how a project is configured, and training rows asked of it.

Writes nothing but Feast's registry, which is derived: delete it and apply again. Feast never materialises here; the
online store is written by ``headway.adapters.redis_online`` and read through Feast only as the reference.

The one thing that bites: order and number of returned rows are the store's choice. Feast's DuckDB store returns another
order and its dask store loses rows, both silently, so ``historical`` carries a row id and refuses an answer that misses one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import yaml

from headway.errors import ContractViolation, PermanentFailure
from headway.settings import Settings

if TYPE_CHECKING:
    import feast

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"
_ROW_ID = "__row_id"

# ``lake`` is ours and reads Delta (ADR 0004); ``duckdb`` is Feast's, reads Parquet, and is the reference in tests.
OfflineKind = Literal["lake", "duckdb"]
_OFFLINE_TYPES: dict[OfflineKind, str] = {"lake": "headway.adapters.feast_lake.LakeOfflineStore", "duckdb": "duckdb"}


class ViewDefinition(Protocol):
    """What the adapter needs to know of a feature view."""

    @property
    def name(self) -> str:
        """Name without version."""

    @property
    def version(self) -> int:
        """Version, from 1."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Join keys; all strings."""

    @property
    def columns(self) -> Mapping[str, Literal["int64", "float64"]]:
        """Feature names and types."""

    @property
    def owner(self) -> str:
        """Who answers for it."""

    @property
    def description(self) -> str:
        """What it means."""

    @property
    def digest(self) -> str:
        """Hash of the meaning; one per version, for good (S19)."""


@dataclass(frozen=True, kw_only=True)
class LakeTable:
    """Where a view's changelog rows lie.

    One row per (key, event_timestamp, revision), with columns ``event_timestamp``, ``created_timestamp`` (see
    ``created_timestamp_us``), the join keys and the features.

    Attributes:
        path: of the Delta table; for the ``duckdb`` store, of one Parquet file.
        version: of the Delta table, for training that can be repeated; None reads the newest.
    """

    path: str
    version: int | None


@dataclass(frozen=True, kw_only=True)
class FeastConfig:
    """One Feast project.

    Attributes:
        registry_url: SQLAlchemy's address of a database that several machines share, such as
            ``postgresql+psycopg2://host/feast``; None keeps the registry in one file below ``repo_dir``.
    """

    project: str
    repo_dir: Path
    redis_url: str
    offline: OfflineKind
    registry_url: str | None = None


def feature_store_config(settings: Settings) -> FeastConfig:
    """The project of an installation, as its settings say where things are."""
    return FeastConfig(
        project=settings.feast_project,
        repo_dir=settings.state / "feast",
        redis_url=f"redis://{settings.online_store}",
        offline="lake",
        registry_url=settings.feast_registry or None,
    )


def view_name(view: ViewDefinition) -> str:
    """The view's name in Feast and in the online store: ``origin_delay_v1``.

    Feast reserves ``@``, and the dot of ``origin_delay.v1`` (S20) is not a legal name in its SQL stores. Feast's own
    ``enable_online_feature_view_versioning`` stays off: it would append a second ``_v<N>``.
    """
    return f"{view.name}_v{view.version}"


def created_timestamp_us(revision: int) -> int:
    """``created_timestamp`` of a changelog row, microseconds UTC: monotone in revision, so Feast's join takes the last."""
    return revision


def write_feature_repo(config: FeastConfig) -> Path:
    """Write ``feature_store.yaml`` for Feast's own command line, and return its path.

    Raises:
        PermanentFailure: an address carries a password, which does not belong in a file.
    """
    for what, url in (("Redis", config.redis_url), ("registry", config.registry_url or "")):
        if urlsplit(url).password:
            raise PermanentFailure(
                f"feature_store.yaml: the {what} URL carries a password; pass it to feature_store() only"
            )
    config.repo_dir.mkdir(parents=True, exist_ok=True)
    path = config.repo_dir / "feature_store.yaml"
    path.write_text(yaml.safe_dump(_settings(config), sort_keys=True))
    return path


def feature_store(config: FeastConfig) -> "feast.FeatureStore":
    """A Feast store over the online Redis, the lake and its registry. The first call imports Feast: over 6 s."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    config.repo_dir.mkdir(parents=True, exist_ok=True)
    return FeatureStore(config=RepoConfig(repo_path=config.repo_dir, **_settings(config)))


def historical(store: "feast.FeatureStore", service: str, entity_df: pa.Table) -> pa.Table:
    """``entity_df`` in its own order, with a column ``<view>__<feature>`` for every feature of ``service``.

    Args:
        store: with ``service`` applied.
        service: name of a feature service.
        entity_df: one row per request: ``event_timestamp`` (UTC), the join keys, and columns that are passed through.

    An entity without a row at or before its time has nulls; the caller turns absent counts into 0 (S10).

    Raises:
        ContractViolation: Feast returned other rows than it was asked for.
    """
    requests = entity_df.append_column(_ROW_ID, pa.array(range(entity_df.num_rows), pa.int64()))
    answer = store.get_historical_features(
        entity_df=requests.to_pandas(), features=store.get_feature_service(service), full_feature_names=True
    ).to_arrow()
    answer = answer.sort_by(_ROW_ID)
    if not answer[_ROW_ID].combine_chunks().equals(requests[_ROW_ID].combine_chunks()):
        raise ContractViolation(
            f"feast service {service}: asked for {entity_df.num_rows} rows, got {answer.num_rows} "
            f"with {len(answer[_ROW_ID].unique())} distinct ids; an offline store that loses rows cannot be used"
        )
    features = [name for name in answer.column_names if name not in requests.column_names]
    for name in features:
        entity_df = entity_df.append_column(name, answer[name])
    return entity_df


def _settings(config: FeastConfig) -> dict[str, object]:
    return {
        "project": config.project,
        "provider": "local",
        "registry": _registry(config),
        "offline_store": {"type": _OFFLINE_TYPES[config.offline]},
        "online_store": {"type": "redis", "connection_string": _connection_string(config.redis_url)},
        "entity_key_serialization_version": 3,
    }


def _registry(config: FeastConfig) -> dict[str, str]:
    if config.registry_url is None:
        return {"registry_type": "file", "path": str(config.repo_dir / "registry.db")}
    return {"registry_type": "sql", "path": config.registry_url}


def _connection_string(redis_url: str) -> str:
    """Feast's own spelling of a Redis URL: ``host:port,db=0,ssl=true,password=...``."""
    url = urlsplit(redis_url)
    options = {"db": url.path.strip("/") or "0", **dict(parse_qsl(url.query))}
    if url.scheme == "rediss":
        options["ssl"] = "true"
    if url.password:
        options["password"] = url.password
    return ",".join([f"{url.hostname}:{url.port or 6379}", *(f"{name}={value}" for name, value in options.items())])
