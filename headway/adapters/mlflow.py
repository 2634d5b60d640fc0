"""The model registry on MLflow, through its client alone: no global tracking URI, no active run, no flavour, no pickle.

A version's source is a folder of its run's artifacts with two files, model text and manifest. Hashes are kept as tags
of the version, so files exchanged in the artifact store are found when they are loaded. What bites: MLflow's client
retries a server's 500 seven times with backoff, which looks like a hang of minutes; a process must call `tame_client`, or
have the same in its environment (the local stack gives it to ours).
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headway.adapters.mlflow_reader import ABSENT, DIGEST_TAG, FOLDER, MODEL_TAG, version_of
from headway.errors import PermanentFailure, TransientFailure
from headway.manifest import MANIFEST_FILE, MODEL_FILE, Manifest, encode_manifest
from headway.registry import ModelVersion, verified

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

# No bars over what a command prints, and no minutes of silent retries.
_TAME = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
# The artifacts are there before the version is; without this MLflow logs that it waits up to 300 s.
_NO_WAIT = 0


def tame_client() -> None:
    """Have MLflow's client of this process, a command's, show nothing and give up in seconds; what is set stays."""
    for name, value in _TAME.items():
        os.environ.setdefault(name, value)


class MlflowRegistry:
    """Talks to one MLflow server; construction opens no connection and takes 2 s the first time (MLflow's import)."""

    def __init__(self, tracking_uri: str) -> None:
        from mlflow import MlflowClient

        self._uri = tracking_uri
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def register(
        self,
        model: bytes,
        manifest: Manifest,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        run: str | None,
    ) -> ModelVersion:
        """Keep a version; see the port. Artifacts are written before the version, so no version is without them."""
        manifest.verify(model)
        name = manifest.product
        for known in self.versions(name):
            if known.digest == manifest.digest:
                return known
        with self._explained(f"register {name}"):
            own = None if run else self._client.create_run(self._experiment(name), run_name=manifest.digest[:12])
            run_id = run or own.info.run_id  # type: ignore[union-attr]  # one of the two is set
            self._log(run_id, model, manifest, metrics=metrics, params=params)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{FOLDER}"
            self._ensure_model(name)
            hashes = {DIGEST_TAG: manifest.digest, MODEL_TAG: manifest.model_sha256}
            made = self._client.create_model_version(
                name, source, run_id=run_id, tags={**tags, **hashes}, await_creation_for=_NO_WAIT
            )
            if own is not None:
                # `set_terminated` would print two lines with addresses to stdout, into whatever JSON stands there.
                self._client.update_run(run_id, status="FINISHED")
        return _version(made)

    def load(self, product: str, version: int) -> tuple[bytes, Manifest]:
        """Return model and manifest, verified; see the port."""
        kept = self._get(product, version)
        with self._explained(f"load {product} {version}"), tempfile.TemporaryDirectory() as folder:
            model, raw = (
                Path(self._client.download_artifacts(kept.run, f"{FOLDER}/{name}", folder)).read_bytes()
                for name in (MODEL_FILE, MANIFEST_FILE)
            )
        return verified(model, raw, kept)

    def versions(self, product: str) -> list[ModelVersion]:
        """Return all versions, oldest first."""
        with self._explained(f"versions of {product}"):
            found = [_version(v) for v in self._pages(f"name='{product}'")]
        return sorted(found, key=lambda version: version.version)

    def alias(self, product: str, alias: str) -> ModelVersion | None:
        """Return the version an alias names, or None."""
        from mlflow.exceptions import MlflowException

        with self._explained(f"alias {product}@{alias}"):
            try:
                return _version(self._client.get_model_version_by_alias(product, alias))
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return None
                raise

    def set_alias(self, product: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        with self._explained(f"set alias {product}@{alias} to {version}"):
            self._client.set_registered_model_alias(product, alias, str(version))

    def delete_alias(self, product: str, alias: str) -> None:
        """Remove an alias."""
        if self.alias(product, alias) is not None:
            with self._explained(f"delete alias {product}@{alias}"):
                self._client.delete_registered_model_alias(product, alias)

    def set_tag(self, product: str, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._explained(f"tag {product} {version}"):
            self._client.set_model_version_tag(product, str(version), key, value)

    def _log(
        self, run_id: str, model: bytes, manifest: Manifest, *, metrics: Mapping[str, float], params: Mapping[str, str]
    ) -> None:
        for key, param in params.items():
            self._client.log_param(run_id, key, param)
        for key, metric in metrics.items():
            self._client.log_metric(run_id, key, metric)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / MODEL_FILE).write_bytes(model)
            (Path(folder) / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
            self._client.log_artifacts(run_id, folder, artifact_path=FOLDER)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(name))

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _get(self, product: str, version: int) -> ModelVersion:
        with self._explained(f"version {product} {version}"):
            return _version(self._client.get_model_version(product, str(version)))

    def _pages(self, query: str) -> Iterator["MlflowVersion"]:
        token: str | None = None
        while True:
            page = self._client.search_model_versions(query, max_results=200, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code in ABSENT:
                raise PermanentFailure(f"MLflow at {self._uri}: {what}: {error.message}") from error
            raise TransientFailure(f"MLflow at {self._uri}: {what}: {error.message}") from error


def _version(found: "MlflowVersion") -> ModelVersion:
    return version_of(found.name, found.version, run=found.run_id or "", tags=dict(found.tags))
