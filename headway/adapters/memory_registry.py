"""A model registry in memory, for tests and for trying a pipeline out; nothing is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headway.errors import ContractViolation, PermanentFailure
from headway.manifest import Manifest, decode_manifest, encode_manifest, sha256
from headway.registry import ModelVersion


@dataclass
class MemoryRegistry:
    """Holds bytes as a server would. ``stored`` is public so that a test can damage a model."""

    stored: dict[tuple[str, int], tuple[bytes, bytes]] = field(default_factory=dict)
    runs: dict[str, tuple[dict[str, float], dict[str, str]]] = field(default_factory=dict)
    _versions: dict[str, list[ModelVersion]] = field(default_factory=dict)
    _aliases: dict[tuple[str, str], int] = field(default_factory=dict)

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
        """Keep a version; see the port."""
        manifest.verify(model)
        known = self._versions.setdefault(manifest.product, [])
        for version in known:
            if version.digest == manifest.digest:
                return version
        run = run or f"run-{len(self.runs) + 1}"
        self.runs[run] = (dict(metrics), dict(params))
        made = ModelVersion(
            product=manifest.product,
            version=len(known) + 1,
            digest=manifest.digest,
            model_sha256=manifest.model_sha256,
            run=run,
            tags=dict(tags),
        )
        known.append(made)
        self.stored[made.product, made.version] = (model, encode_manifest(manifest))
        return made

    def load(self, product: str, version: int) -> tuple[bytes, Manifest]:
        """Return model and manifest, verified; see the port."""
        kept = self._version(product, version)
        model, raw = self.stored[product, version]
        if sha256(raw) != kept.digest:
            raise ContractViolation(f"{product} {version}: manifest hash is {sha256(raw)}, registered {kept.digest}")
        manifest = decode_manifest(raw)
        manifest.verify(model)
        return model, manifest

    def versions(self, product: str) -> list[ModelVersion]:
        """Return all versions, oldest first."""
        return list(self._versions.get(product, []))

    def alias(self, product: str, alias: str) -> ModelVersion | None:
        """Return the version an alias names, or None."""
        version = self._aliases.get((product, alias))
        return None if version is None else self._version(product, version)

    def set_alias(self, product: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        self._aliases[product, alias] = self._version(product, version).version

    def delete_alias(self, product: str, alias: str) -> None:
        """Remove an alias."""
        self._aliases.pop((product, alias), None)

    def set_tag(self, product: str, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        kept = self._version(product, version)
        self._versions[product][version - 1] = replace(kept, tags={**kept.tags, key: value})

    def _version(self, product: str, version: int) -> ModelVersion:
        known = self._versions.get(product, [])
        if not 1 <= version <= len(known):
            raise PermanentFailure(
                f"registry: {product} has no version {version} (found: {[v.version for v in known]}); register it first"
            )
        return known[version - 1]
