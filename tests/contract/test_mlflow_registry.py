"""One registry contract, in memory and on a real MLflow server."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import pytest

from headway.adapters.memory_registry import MemoryRegistry
from headway.adapters.mlflow import MlflowRegistry
from headway.adapters.mlflow_reader import MlflowReader
from headway.errors import ContractViolation, PermanentFailure, TransientFailure
from headway.manifest import FORMAT, Manifest, TrainingFacts, golden_request, sha256
from headway.registry import CANDIDATE, CHAMPION, ModelRegistry, ModelVersion
from headway.vector import Column
from tests.free_ports import free_port

MODEL = b"tree\nversion=v4\n"
START_TIMEOUT_S = 180.0
BACKENDS = [pytest.param("memory"), pytest.param("mlflow", marks=pytest.mark.integration)]


def wait_for(ready: Callable[[], bool], server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            break
        if ready():
            return
        time.sleep(0.2)
    raise RuntimeError(f"MLflow did not start: {log.read_text()[-2000:]}")


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=1).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address, log = f"http://127.0.0.1:{port}", folder / "log"
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    with log.open("wb") as sink:
        server = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink, cwd=folder)
    try:
        wait_for(lambda: healthy(address), server, log)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(params=BACKENDS)
def registry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    if request.param == "memory":
        return MemoryRegistry()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    return MlflowRegistry(request.getfixturevalue("server_address"))


@pytest.fixture
def product() -> str:
    return f"flight_{uuid4().hex[:8]}"


def make_manifest(product: str, *, rows: int = 3, model: bytes = MODEL) -> Manifest:
    return Manifest(
        format=FORMAT,
        product=product,
        spec="regularised",
        spec_digest="5" * 16,
        columns=(Column(name="hour", kind="number", source="hour"),),
        views={},
        reference_version="b" * 16,
        model_sha256=sha256(model),
        model_bytes=len(model),
        training=TrainingFacts(from_us=0, until_us=1, known_at_us=2, rows=rows, positives=1, excluded={}, tables={}),
        metrics={"holdout_log_loss": 0.5},
        weeks=(),
        limits=None,
        golden=(golden_request(request="{}", as_of_us=0, vector=np.array([np.nan]), score=0.1),),
    )


def register(registry: ModelRegistry, product: str, *, rows: int = 3) -> ModelVersion:
    return registry.register(
        MODEL,
        make_manifest(product, rows=rows),
        metrics={"log_loss": 0.5},
        params={"trees": "200"},
        tags={"verdict": "passed"},
        run=None,
    )


def test_what_is_registered_is_loaded_bit_for_bit(registry: ModelRegistry, product: str) -> None:
    version = register(registry, product)

    assert registry.load(product, version.version) == (MODEL, make_manifest(product))
    assert version.model_sha256 == sha256(MODEL)
    assert version.tags["verdict"] == "passed"
    assert version.run


def test_versions_count_up_and_are_listed_oldest_first(registry: ModelRegistry, product: str) -> None:
    made = [register(registry, product, rows=rows) for rows in (3, 4, 5)]

    assert [version.version for version in made] == [1, 2, 3]
    assert registry.versions(product) == made


def test_registering_again_after_a_lost_answer_makes_no_second_version(registry: ModelRegistry, product: str) -> None:
    assert register(registry, product) == register(registry, product)
    assert len(registry.versions(product)) == 1


def test_an_unknown_product_has_no_versions_and_no_alias(registry: ModelRegistry, product: str) -> None:
    assert registry.versions(product) == []
    assert registry.alias(product, CHAMPION) is None


def test_an_alias_moves_and_goes(registry: ModelRegistry, product: str) -> None:
    first, second = (register(registry, product, rows=rows) for rows in (3, 4))
    registry.set_alias(product, CHAMPION, first.version)
    registry.set_alias(product, CANDIDATE, second.version)

    registry.set_alias(product, CHAMPION, second.version)
    found = registry.alias(product, CHAMPION)
    registry.delete_alias(product, CHAMPION)
    registry.delete_alias(product, CHAMPION)

    assert found is not None
    assert (found.version, found.digest) == (second.version, second.digest)
    assert registry.alias(product, CHAMPION) is None
    assert registry.alias(product, CANDIDATE) is not None


def test_bytes_that_are_not_the_manifests_are_never_registered(registry: ModelRegistry, product: str) -> None:
    with pytest.raises(ContractViolation, match="manifest says"):
        registry.register(b"other", make_manifest(product), metrics={}, params={}, tags={}, run=None)

    assert registry.versions(product) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda registry, product: registry.load(product, 7),
        lambda registry, product: registry.set_alias(product, CHAMPION, 7),
        lambda registry, product: registry.set_tag(product, 7, "veto", "yes"),
    ],
    ids=["load", "alias", "tag"],
)
def test_a_version_that_does_not_exist_is_a_permanent_failure(
    registry: ModelRegistry, product: str, use: Callable[[ModelRegistry, str], object]
) -> None:
    register(registry, product)

    with pytest.raises(PermanentFailure):
        use(registry, product)


def test_a_tag_is_kept_with_its_version(registry: ModelRegistry, product: str) -> None:
    version = register(registry, product)

    registry.set_tag(product, version.version, "veto", "latency")

    assert registry.versions(product)[0].tags["veto"] == "latency"


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_exchanged_in_memory_is_found_when_it_is_loaded(product: str, place: int) -> None:
    registry = MemoryRegistry()
    version = register(registry, product)
    other = list(registry.stored[product, version.version])
    other[place] = other[place].replace(b"e", b"x", 1)
    registry.stored[product, version.version] = (other[0], other[1])

    with pytest.raises(ContractViolation, match="hash is"):
        registry.load(product, version.version)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["model.txt", "manifest.json"])
def test_a_file_exchanged_in_the_artifact_store_is_found_when_it_is_loaded(
    server_address: str, artifacts: Path, product: str, name: str
) -> None:
    registry = MlflowRegistry(server_address)
    version = register(registry, product)
    [stored] = {path.resolve() for path in artifacts.glob(f"mlflow*/artifacts/*/{version.run}/artifacts/model/{name}")}
    stored.write_bytes(stored.read_bytes().replace(b"e", b"x", 1))

    with pytest.raises(ContractViolation, match="hash"):
        registry.load(product, version.version)


@pytest.mark.integration
def test_a_version_attaches_to_an_open_run_and_leaves_it_open(server_address: str, product: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server_address)
    run = client.create_run(client.create_experiment(product))

    version = MlflowRegistry(server_address).register(
        MODEL, make_manifest(product), metrics={"log_loss": 0.5}, params={"trees": "200"}, tags={}, run=run.info.run_id
    )

    found = client.get_run(run.info.run_id)
    assert version.run == run.info.run_id
    assert found.info.status == "RUNNING"
    assert found.data.metrics == {"log_loss": 0.5}
    assert found.data.params == {"trees": "200"}


@pytest.mark.integration
def test_the_adapter_leaves_no_run_active_and_no_global_address(server_address: str, product: str) -> None:
    """Dagster's MLflow resource owns the process's active run; another one would nest or end it."""
    import mlflow

    before = mlflow.get_tracking_uri()
    register(MlflowRegistry(server_address), product)

    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before


@pytest.mark.integration
def test_a_server_that_does_not_answer_is_a_transient_failure_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")

    with pytest.raises(TransientFailure, match="MLflow at http"):
        MlflowRegistry(f"http://127.0.0.1:{free_port()}").alias("flight_delay", CHAMPION)


@pytest.mark.integration
def test_the_reader_without_mlflow_reads_the_same(server_address: str, product: str) -> None:
    registry, reader = MlflowRegistry(server_address), MlflowReader(server_address)
    assert reader.alias(product, CHAMPION) is None
    version = register(registry, product)
    assert reader.alias(product, CHAMPION) is None
    registry.set_alias(product, CHAMPION, version.version)

    assert reader.alias(product, CHAMPION) == version
    assert reader.load(product, version.version) == registry.load(product, version.version)
    with pytest.raises(PermanentFailure, match=f"{product} has no version 9"):
        reader.load(product, 9)
    reader.close()


@pytest.mark.integration
def test_the_reader_finds_a_file_exchanged_in_the_artifact_store(
    server_address: str, product: str, artifacts: Path
) -> None:
    version = register(MlflowRegistry(server_address), product)
    for stored in artifacts.rglob(f"{version.run}/artifacts/model/model.txt"):
        stored.write_bytes(b"tree\nversion=v5\n")
    reader = MlflowReader(server_address)

    with pytest.raises(ContractViolation, match="hash"):
        reader.load(product, version.version)
    reader.close()


def test_a_reader_whose_server_is_away_or_somebody_else_says_so() -> None:
    reader = MlflowReader(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientFailure, match="is the server up"):
        reader.alias("p", CHAMPION)
    reader.close()


def test_a_manifest_of_a_later_format_is_not_guessed_at(product: str) -> None:
    registry = MemoryRegistry()
    later = msgspec.structs.replace(make_manifest(product), format=FORMAT + 1)
    version = registry.register(MODEL, later, metrics={}, params={}, tags={}, run=None)

    with pytest.raises(ContractViolation, match="format 2, this code reads 1"):
        registry.load(product, version.version)
