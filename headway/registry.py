"""Where model versions live and which of them has which alias: the port and its one value.

A version is model text plus manifest; both are verified when they are registered and again when they are loaded
(DESIGN 10). ``champion`` is what people want, ``live`` what is served (SEMANTICS S15); `candidate` is what passed a
gate. Registering the same manifest twice gives the version it already has, so a retry makes no second one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headway.errors import ContractViolation
from headway.manifest import Manifest, decode_manifest, sha256

CANDIDATE, CHAMPION, LIVE = "candidate", "champion", "live"


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One registered version; ``digest`` is its manifest's, ``run`` the tracking run that made it."""

    product: str
    version: int
    digest: str
    model_sha256: str
    run: str
    tags: Mapping[str, str]


class ModelSource(Protocol):
    """What whoever answers asks of a model registry: which version an alias names, and its files."""

    def load(self, product: str, version: int) -> tuple[bytes, Manifest]:
        """Return model and manifest, verified against the hashes kept at registration.

        Raises:
            PermanentFailure: there is no such version.
            ContractViolation: what is stored is not what was registered; says what differs.
            TransientFailure: the registry did not answer.
        """
        ...

    def alias(self, product: str, alias: str) -> ModelVersion | None:
        """Return the version an alias names, or None when nobody has set it."""
        ...


class ModelRegistry(ModelSource, Protocol):
    """What Headway asks of a model registry."""

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
        """Keep a version under its product's name and return it.

        Args:
            model: the bytes the manifest describes.
            manifest: names the product.
            metrics: figures for the tracking run.
            params: settings for the tracking run.
            tags: for the version, e.g. the verdict.
            run: an open tracking run to attach to; None makes one and ends it.

        Raises:
            ContractViolation: the bytes are not the manifest's.
            TransientFailure: the registry did not answer; try again.
        """
        ...

    def versions(self, product: str) -> list[ModelVersion]:
        """Return all versions, oldest first; empty for an unknown product."""
        ...

    def set_alias(self, product: str, alias: str, version: int) -> None:
        """Point an alias at a version.

        Raises:
            PermanentFailure: there is no such version.
        """
        ...

    def delete_alias(self, product: str, alias: str) -> None:
        """Remove an alias; removing one that is not set is done already."""
        ...

    def set_tag(self, product: str, version: int, key: str, value: str) -> None:
        """Set a tag of a version.

        Raises:
            PermanentFailure: there is no such version.
        """
        ...


def verified(model: bytes, raw: bytes, kept: ModelVersion) -> tuple[bytes, Manifest]:
    """Return a version's files as they were stored, when they are those that were registered.

    Raises:
        ContractViolation: they are not; says what differs.
    """
    if sha256(raw) != kept.digest:
        raise ContractViolation(
            f"{kept.product} {kept.version}: the stored manifest has hash {sha256(raw)}, registered was {kept.digest}; "
            "the artifact store was changed, register the model again from its training run"
        )
    manifest = decode_manifest(raw)
    manifest.verify(model)
    return model, manifest
