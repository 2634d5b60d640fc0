"""The reading half of the registry over MLflow's REST API: aliases and files, without MLflow.

For processes that answer and never register: MLflow's package costs 2 s and 200 MB in each of them, and is in no image of
theirs. What bites: an alias that nobody has set is a 400 here, and a version that does not exist a 404.
"""

from collections.abc import Mapping
from typing import Any

import httpx

from headway.errors import PermanentFailure, TransientFailure
from headway.manifest import MANIFEST_FILE, MODEL_FILE, Manifest
from headway.registry import ModelVersion, verified

FOLDER = "model"
DIGEST_TAG, MODEL_TAG = "headway.manifest_sha256", "headway.model_sha256"
# A version that does not exist is RESOURCE_DOES_NOT_EXIST; an alias that does not exist is INVALID_PARAMETER_VALUE.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_TIMEOUT_S = 10.0


class MlflowReader:
    """`headway.registry.ModelSource` on one MLflow server; connects at the first call. Safe to use from several threads."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._client = httpx.Client(base_url=tracking_uri, timeout=_TIMEOUT_S)

    def load(self, product: str, version: int) -> tuple[bytes, Manifest]:
        """See `headway.registry.ModelSource.load`."""
        said = self._ask("model-versions/get", {"name": product, "version": str(version)})
        if said is None:
            raise PermanentFailure(f"MLflow at {self._uri}: {product} has no version {version}; register it first")
        kept = _version(said)
        model, raw = (self._file(kept, name) for name in (MODEL_FILE, MANIFEST_FILE))
        return verified(model, raw, kept)

    def alias(self, product: str, alias: str) -> ModelVersion | None:
        """See `headway.registry.ModelSource.alias`."""
        said = self._ask("registered-models/alias", {"name": product, "alias": alias})
        return None if said is None else _version(said)

    def close(self) -> None:
        """Release the connections."""
        self._client.close()

    def _ask(self, what: str, about: Mapping[str, str]) -> dict[str, Any] | None:  # Any: JSON
        answer = self._get(f"/api/2.0/mlflow/{what}", about)
        try:
            said = answer.json()
            if answer.is_success:
                found: dict[str, Any] = said["model_version"]
                return found
            code = said["error_code"]
        except (ValueError, KeyError, TypeError) as error:
            raise TransientFailure(
                f"{self._where(what, about)}: got {answer.status_code} and no answer of MLflow's"
            ) from error
        if code in ABSENT:
            return None
        raise TransientFailure(f"{self._where(what, about)}: {answer.status_code} {code}; ask again")

    def _file(self, kept: ModelVersion, name: str) -> bytes:
        about = {"run_id": kept.run, "path": f"{FOLDER}/{name}"}
        answer = self._get("/get-artifact", about)
        if answer.is_success:
            return answer.content
        raise TransientFailure(f"{self._where('get-artifact', about)}: got {answer.status_code}; ask again")

    def _get(self, path: str, about: Mapping[str, str]) -> httpx.Response:
        try:
            return self._client.get(path, params=dict(about))
        except httpx.HTTPError as error:
            raise TransientFailure(f"{self._where(path, about)}: {error!r}; is the server up?") from error

    def _where(self, what: str, about: Mapping[str, str]) -> str:
        return f"MLflow at {self._uri}: {what} {dict(about)}"


def version_of(product: str, version: int | str, *, run: str, tags: dict[str, str]) -> ModelVersion:
    """Return a version as MLflow tells it, its hashes taken from its tags."""
    return ModelVersion(
        product=product,
        version=int(version),
        digest=tags.pop(DIGEST_TAG, ""),
        model_sha256=tags.pop(MODEL_TAG, ""),
        run=run,
        tags=tags,
    )


def _version(said: Mapping[str, Any]) -> ModelVersion:
    tags = {tag["key"]: tag.get("value", "") for tag in said.get("tags", [])}
    return version_of(said["name"], said["version"], run=said.get("run_id", ""), tags=tags)
