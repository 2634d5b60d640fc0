"""What a model version is: which bytes, which inputs in which order, trained on what, judged how, proven by which answers.

The manifest travels beside the model text and pins everything serving must agree on: vector order, category codes, view
digests (SEMANTICS S20), reference version. Golden requests carry their full vectors and scores, so a replica proves
itself without an online read (S21). What bites: JSON has no NaN; here a missing number is null, and infinities are
refused.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from headway.drift import DriftLimits, WindowStatistics
from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.vector import Column

FORMAT = 1
MODEL_FILE = "model.txt"
MANIFEST_FILE = "manifest.json"
# `exp` differs in the last bit between C libraries; beyond that a score is another model's.
SCORE_TOLERANCE = 1e-12


class GoldenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request with everything the model saw and what it answered.

    Attributes:
        request: as JSON text, as a client would send it.
        vector: in the manifest's order; null = NaN.
    """

    request: str
    as_of_us: int
    vector: tuple[float | None, ...]
    score: float

    def array(self) -> Floats:
        """Return the vector as the model takes it, shape (f,)."""
        return np.array([math.nan if value is None else value for value in self.vector], dtype=np.float64)


class TrainingFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model was trained on: the interval, what was known, and the versions of every table read."""

    from_us: int
    until_us: int
    known_at_us: int
    rows: int
    positives: int
    excluded: dict[str, int]
    tables: dict[str, int]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a model version that is not its bytes.

    Attributes:
        spec: name of the model spec; ``spec_digest`` covers its fields.
        columns: the vector's columns, in order, with category values in the order of their codes.
        views: digest of each view by qualified name.
        metrics: of the verdict, by name; a figure that could not be computed is absent.
        weeks: out-of-fold weekly statistics of the training period, which ``limits`` come from.
    """

    format: int
    product: str
    spec: str
    spec_digest: str
    columns: tuple[Column, ...]
    views: dict[str, str]
    reference_version: str
    model_sha256: str
    model_bytes: int
    training: TrainingFacts
    metrics: dict[str, float]
    weeks: tuple[WindowStatistics, ...]
    limits: DriftLimits | None
    golden: tuple[GoldenRequest, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the manifest's bytes; it covers the model through ``model_sha256``, so it names a version."""
        return sha256(encode_manifest(self))

    def verify(self, model: bytes) -> None:
        """Check that these are the bytes this manifest describes.

        Raises:
            ContractViolation: size or hash differs; says which and both values.
        """
        if len(model) != self.model_bytes:
            raise ContractViolation(
                f"{self._where}: model has {len(model):,} bytes, manifest says {self.model_bytes:,}"
            )
        found = sha256(model)
        if found != self.model_sha256:
            raise ContractViolation(
                f"{self._where}: model hash is {found}, manifest says {self.model_sha256}; do not serve it, register it "
                "again from its training run"
            )

    def verify_definitions(self, *, product: str, view_digests: Mapping[str, str], reference_version: str) -> None:
        """Check that the code at hand computes the inputs this model was trained on.

        Raises:
            ContractViolation: product, a view or the reference differs; names all that do.
        """
        differing = [
            f"{name}: code has {view_digests.get(name, 'no such view')}, model wants {digest}"
            for name, digest in self.views.items()
            if view_digests.get(name) != digest
        ]
        if product != self.product:
            differing.insert(0, f"product: code has {product}, model wants {self.product}")
        if reference_version != self.reference_version:
            differing.append(f"reference data: found {reference_version}, model wants {self.reference_version}")
        if differing:
            raise ContractViolation(f"{self._where}: {'; '.join(differing)}; train again or run the older code (S20)")

    def verify_scores(self, scores: Sequence[float]) -> None:
        """Check scores of the golden vectors, in order, against the registered ones.

        Raises:
            ContractViolation: a score differs by more than 1e-12 or is missing; names the first.
        """
        if len(scores) != len(self.golden):
            raise ContractViolation(f"{self._where}: got {len(scores)} golden scores, wanted {len(self.golden)}")
        for place, (found, golden) in enumerate(zip(scores, self.golden, strict=True)):
            if not abs(found - golden.score) <= SCORE_TOLERANCE:
                raise ContractViolation(
                    f"{self._where}: golden request {place} scored {found!r}, registered {golden.score!r}; this is not "
                    "the model that was judged"
                )

    @property
    def _where(self) -> str:
        return f"manifest {self.product} {self.model_sha256[:12]}"


_DECODER = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON, the same bytes for the same manifest."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(raw: bytes) -> Manifest:
    """Return the manifest in the bytes.

    Raises:
        ContractViolation: no manifest, a field is missing or wrong (names it), or a format this code does not know.
    """
    try:
        manifest = _DECODER.decode(raw)
    except msgspec.DecodeError as error:
        raise ContractViolation(f"manifest: {error}") from error
    if manifest.format != FORMAT:
        raise ContractViolation(f"manifest: format {manifest.format}, this code reads {FORMAT}")
    return manifest


def golden_request(*, request: str, as_of_us: int, vector: Floats, score: float) -> GoldenRequest:
    """Return a golden request.

    Raises:
        ContractViolation: the vector holds an infinity, which JSON would turn into null.
    """
    if np.isinf(vector).any():
        raise ContractViolation(f"golden request: the vector holds an infinity ({vector.tolist()})")
    values = tuple(None if math.isnan(value) else value for value in vector.tolist())
    return GoldenRequest(request=request, as_of_us=as_of_us, vector=values, score=score)


def sha256(content: bytes) -> str:
    """Return the hash as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()
