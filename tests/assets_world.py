"""A few days of January in a lake, and runs of single assets on it, in this process."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.resources import LakeResource, LogResource, RegistryResource, ResultsResource
from headway.adapters.delta import Lake
from headway.adapters.memory_registry import MemoryRegistry
from headway.registry import ModelRegistry

REGISTRIES: dict[str, MemoryRegistry] = {}


class HeldRegistry(RegistryResource):
    """A registry in memory, found again by name: a resource's own attributes must be configuration."""

    def open(self) -> ModelRegistry:
        return REGISTRIES.setdefault(self.url, MemoryRegistry())


@dataclass
class World:
    """One lake, one registry, one Dagster instance."""

    root: Path
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return Lake(self.root)

    @property
    def registry(self) -> ModelRegistry:
        return HeldRegistry(url=str(self.root)).open()

    def run(
        self,
        assets: Sequence[Any],
        *,
        select: Sequence[dg.AssetKey] | None = None,
        config: Mapping[str, Any] | None = None,
        partitions: tuple[str, str] | None = None,
        checked: Sequence[dg.AssetKey] = (),
        resources: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets, with all checks of ``checked``; the result says whether they succeeded."""
        tags = {}
        if partitions is not None:
            names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
            tags = dict(zip(names, partitions, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            return dg.materialize(
                list(assets),
                selection=None if select is None else _selection(select, checked),
                instance=self.instance,
                resources={
                    "lake": LakeResource(root=str(self.root)),
                    "registry": HeldRegistry(url=str(self.root)),
                    "results": ResultsResource(url=f"sqlite:///{self.root / 'results.sqlite'}"),
                    "log": LogResource(bootstrap="127.0.0.1:1"),  # nobody there
                    "mlflow": dg.ResourceDefinition.none_resource(),  # no run: no model is made here
                    **(resources or {}),
                },
                run_config={"ops": {step: {"config": dict(values)} for step, values in (config or {}).items()}},
                tags=tags,
                raise_on_error=False,
            )


def _selection(select: Sequence[dg.AssetKey], checked: Sequence[dg.AssetKey]) -> dg.AssetSelection:
    chosen = dg.AssetSelection.assets(*select).without_checks()
    return chosen | dg.AssetSelection.checks_for_assets(*checked) if checked else chosen
