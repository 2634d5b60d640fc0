"""Which version a stream job answers with, as the registry and the files tell."""

from functools import partial
from pathlib import Path

import pytest

from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory_registry import MemoryRegistry
from headway.errors import ContractViolation, DependencyDown, TransientFailure
from headway.manifest import Manifest
from headway.model_files import fetch_model, proven_predictor
from headway.predictions import ModelId
from headway.registry import LIVE, ModelVersion
from streaming.live_models import LiveModels
from tests.scoring_world import opened
from tests.serving_world import product, trained

NAME = product().name


class Registry(MemoryRegistry):
    """A registry that can be away, and counts loads."""

    away = False
    loads = 0

    def alias(self, product: str, alias: str) -> ModelVersion | None:
        if self.away:
            raise TransientFailure("MLflow is away")
        return super().alias(product, alias)

    def load(self, product: str, version: int) -> tuple[bytes, Manifest]:
        if self.away:
            raise TransientFailure("MLflow is away")
        self.loads += 1
        return super().load(product, version)


def released(registry: MemoryRegistry, seed: int) -> ModelId:
    version = trained(seed).register(registry)
    registry.set_alias(NAME, LIVE, version)
    return ModelId(name=NAME, version=version, digest=trained(seed).manifest.digest)


def models_of(registry: Registry) -> LiveModels:
    return LiveModels(NAME, registry, partial(opened, registry))


def test_what_is_live_answers_next() -> None:
    registry = Registry()
    first = released(registry, 1)
    models = models_of(registry)
    models.look()

    assert models.successor(None) == first
    second = released(registry, 2)
    assert models.successor(first) == first
    models.look()
    assert models.successor(first) == second


def test_nothing_live_is_an_answer_and_a_registry_that_is_away_is_none() -> None:
    registry = Registry()
    models = models_of(registry)
    registry.away = True
    models.look()
    with pytest.raises(DependencyDown, match="MLflow is away"):
        models.successor(None)

    registry.away = False
    models.look()

    assert models.successor(None) is None


def test_a_registry_that_goes_away_ends_nothing() -> None:
    registry = Registry()
    first = released(registry, 1)
    models = models_of(registry)
    models.look()
    registry.away = True
    models.look()

    assert models.successor(first) == first
    assert models.predictor(first).digest == first.digest


def test_a_version_that_cannot_be_had_does_not_answer_and_the_one_before_it_goes_on() -> None:
    registry = Registry()
    first = released(registry, 1)
    models = models_of(registry)
    models.look()
    second = released(registry, 2)
    text, manifest = registry.stored[NAME, second.version]
    registry.stored[NAME, second.version] = (text + b" ", manifest)

    models.look()

    assert models.successor(first) == first
    with pytest.raises(DependencyDown, match="flight_delay version 2 is down"):
        models.predictor(second)


def test_a_version_is_loaded_once_and_few_are_kept() -> None:
    registry = Registry()
    models = models_of(registry)
    versions = [released(registry, seed) for seed in range(1, 7)]
    for version in versions:
        models.predictor(version)
    models.predictor(versions[-1])
    assert registry.loads == 6

    models.predictor(versions[0])

    assert registry.loads == 7


def test_files_that_were_fetched_serve_while_the_registry_is_away(tmp_path: Path) -> None:
    registry = Registry()
    model = released(registry, 1)
    fetch = partial(fetch_model, registry, tmp_path, product=NAME, version=model.version, digest=model.digest)
    first = fetch()
    registry.away = True

    again = fetch()

    assert again == first
    reference = product().domain.load_reference()
    assert proven_predictor(product(), reference, again, load=LightGbm().load).digest == model.digest
    (again / "model.txt").write_bytes(b"other")
    with pytest.raises(TransientFailure):
        fetch()
    with pytest.raises(ContractViolation):
        proven_predictor(product(), reference, again, load=LightGbm().load)
