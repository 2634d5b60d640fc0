"""A model version's files in a folder of this machine, and the proven predictor in them: for replicas and stream jobs.

Fetched once and kept, so that what answers can start again while the registry is away. Several threads and processes
may fetch the same version at once: each writes whole files under names of its own and puts them in place.
"""

from pathlib import Path
from uuid import uuid4

from headway.contracts import Reference
from headway.errors import ContractViolation
from headway.manifest import MANIFEST_FILE, MODEL_FILE, decode_manifest, encode_manifest
from headway.predictor import LoadModel, Predictor, open_predictor
from headway.product import Product
from headway.registry import ModelSource

# Below the state folder.
MODELS_FOLDER = "models"


def fetch_model(source: ModelSource, folder: Path, *, product: str, version: int, digest: str) -> Path:
    """Return the folder below ``folder`` that holds the files of a version; asks the registry when none does.

    Raises:
        PermanentFailure, ContractViolation, TransientFailure: as `headway.registry.ModelSource.load`.
    """
    place = folder / product / str(version)
    if not _holds(place, digest):
        text, manifest = source.load(product, version)
        place.mkdir(parents=True, exist_ok=True)
        _replace(place / MODEL_FILE, text)
        _replace(place / MANIFEST_FILE, encode_manifest(manifest))
    return place


def proven_predictor(product: Product, reference: Reference, folder: Path, *, load: LoadModel) -> Predictor:
    """Return the proven model in a folder.

    Raises:
        ContractViolation: bytes, golden answers or definitions are not what the manifest says; names what differs.
    """
    manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
    manifest.verify_definitions(
        product=product.name, view_digests=product.view_digests, reference_version=reference.version
    )
    return open_predictor((folder / MODEL_FILE).read_bytes(), manifest, load=load)


def _holds(place: Path, digest: str) -> bool:
    """Whether an earlier fetch left exactly this version."""
    try:
        manifest = decode_manifest((place / MANIFEST_FILE).read_bytes())
        manifest.verify((place / MODEL_FILE).read_bytes())
    except (OSError, ContractViolation):
        return False
    return manifest.digest == digest


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(f"{path.suffix}.{uuid4().hex}")
    draft.write_bytes(content)
    draft.replace(path)
