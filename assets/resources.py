"""What assets need of the outside: lake, log, registry, results, tracking. Addresses come from `Settings`, read in the run.

Empty attributes mean "as the environment says"; a test or a cluster may set them. Nothing is read at import, so that
definitions load with an empty environment.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import dagster as dg

from headway.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, decode_manifest
from headway.registry import ModelRegistry

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from headway.adapters.delta import Lake
    from headway.adapters.kafka_reader import KafkaReader
    from headway.adapters.results_database import ResultsDatabase
    from headway.adapters.scaling_table import ScalingTable
    from headway.settings import Settings


class LakeResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # the parameter is what it gives; itself
    """The Delta tables."""

    root: str = ""

    def open(self) -> "Lake":
        """Return the lake; costs nothing until a table is read."""
        from headway.adapters.delta import Lake

        return Lake(Path(self.root or settings().lake))


class LogResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # likewise
    """The event log, for reading: offsets and ledgers."""

    bootstrap: str = ""

    def admin(self) -> "AdminClient":
        """Return a client that asks brokers about topics."""
        from headway.adapters.kafka_topics import admin_client

        return admin_client(self.address)

    def reader(self) -> "KafkaReader":
        """Return a reader of what is committed."""
        from headway.adapters.kafka_reader import KafkaReader

        return KafkaReader(bootstrap=self.address)

    @property
    def address(self) -> str:
        """The brokers."""
        return self.bootstrap or settings().kafka_bootstrap


class ScalingResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # likewise
    """What the scaler of stream jobs decided, and from what."""

    file: str = ""

    def open(self) -> "ScalingTable | None":
        """Return the table; None where no scaler has ever decided anything."""
        from headway.adapters.scaling_table import ScalingTable, scaling_file

        file = Path(self.file) if self.file else scaling_file(settings().state)
        return ScalingTable(file) if file.exists() else None


class RegistryResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # likewise
    """The model registry, through MLflow's client: no global tracking address and no active run.

    `dagster-mlflow` opens a run in every step that names its resource, which is right where a model is made and wrong
    where one is looked up; so it serves the ``model`` asset alone (ADR 0009).
    """

    url: str = ""

    def open(self) -> ModelRegistry:
        """Return the registry; 2 s the first time, for MLflow's import."""
        from headway.adapters.mlflow import MlflowRegistry

        return MlflowRegistry(self.address)

    def kept(self, run_id: str, *, folder: str) -> tuple[bytes, Manifest]:
        """Return the model and manifest a tracking run holds in a folder of its artifacts, verified.

        Raises:
            ContractViolation: the bytes are not the manifest's.
        """
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.address)
        with tempfile.TemporaryDirectory() as local:
            model, manifest = (
                Path(client.download_artifacts(run_id, f"{folder}/{name}", local)).read_bytes()
                for name in (MODEL_FILE, MANIFEST_FILE)
            )
        decoded = decode_manifest(manifest)
        decoded.verify(model)
        return model, decoded

    @property
    def address(self) -> str:
        """The tracking server."""
        return self.url or settings().mlflow_url


class ResultsResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # likewise
    """The database of batch results."""

    url: str = ""

    @contextmanager
    def open(self) -> "Iterator[ResultsDatabase]":
        """Give the results; connections end with the block. 0.4 s the first time, for SQLAlchemy's import."""
        from headway.adapters.results_database import ResultsDatabase

        results = ResultsDatabase(self.address)
        try:
            yield results
        finally:
            results.close()

    @property
    def address(self) -> str:
        """The database."""
        return self.url or settings().results_url


class Tracking(Protocol):
    """One open tracking run; the part of `dagster-mlflow`'s resource that the model asset uses."""

    mlflow_run_id: str | None

    def log_params(self, params: Mapping[str, str]) -> object:
        """Record settings."""

    def log_metrics(self, metrics: Mapping[str, float]) -> object:
        """Record figures."""

    def set_tags(self, tags: Mapping[str, str]) -> object:
        """Record facts."""

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> object:
        """Record all files of a folder."""

    def active_run(self) -> object:
        """Return MLflow's run; its ``info.run_id`` names it."""


def settings() -> "Settings":
    """Return where things are, as the environment says now."""
    from headway.settings import Settings

    return Settings()
