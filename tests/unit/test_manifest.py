from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import ContractViolation
from headway.manifest import (
    Manifest,
    TrainingFacts,
    decode_manifest,
    encode_manifest,
    golden_request,
    sha256,
)
from headway.predictor import Predictor, measure_row_latency_us, open_predictor
from headway.vector import Column

MODEL = b"tree\n"


def make_manifest(**changes: Any) -> Manifest:
    columns = (
        Column(name="hour", kind="number", source="hour"),
        Column(name="carrier", kind="category", source="carrier", categories=("B6", "UA")),
        Column(name="v__count_1h", kind="count", source="count_1h", view="v.v1", default=9.0),
    )
    made = Manifest(
        format=1,
        product="flight_delay",
        spec="regularised",
        spec_digest="5" * 16,
        columns=columns,
        views={"v.v1": "a" * 16},
        reference_version="b" * 16,
        model_sha256=sha256(MODEL),
        model_bytes=len(MODEL),
        training=TrainingFacts(
            from_us=0, until_us=1, known_at_us=2, rows=3, positives=1, excluded={"cancelled": 1}, tables={"events": 4}
        ),
        metrics={"holdout_log_loss": 0.5},
        weeks=(),
        limits=None,
        golden=(
            golden_request(request="{}", as_of_us=0, vector=np.array([8.0, 1.0, 2.0]), score=0.11),
            golden_request(request="{}", as_of_us=0, vector=np.array([8.0, np.nan, 0.0]), score=0.08),
        ),
    )
    return msgspec.structs.replace(made, **changes)


class Sum:
    """A model anyone can check: a hundredth of the sum of what is not missing."""

    def __init__(self, fault: Callable[[float], float] = lambda score: score) -> None:
        self.fault = fault

    def score_row(self, vector: np.ndarray) -> float:
        return self.fault(float(np.nansum(vector)) / 100)

    def score(self, matrix: np.ndarray) -> np.ndarray:
        return np.array([self.score_row(row) for row in matrix])


def test_a_manifest_survives_its_bytes_and_they_do_not_depend_on_luck() -> None:
    manifest = make_manifest()

    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert encode_manifest(decode_manifest(encode_manifest(manifest))) == encode_manifest(manifest)


@given(st.lists(st.one_of(st.just(np.nan), st.floats(allow_infinity=False)), min_size=1), st.floats(0, 1))
def test_golden_vectors_survive_bit_for_bit(vector: list[float], score: float) -> None:
    golden = golden_request(request="{}", as_of_us=0, vector=np.array(vector), score=score)

    manifest = decode_manifest(encode_manifest(make_manifest(golden=(golden,))))

    np.testing.assert_array_equal(manifest.golden[0].array(), np.array(vector))
    assert manifest.golden[0].score == score


def test_an_infinite_feature_cannot_become_null_unseen() -> None:
    with pytest.raises(ContractViolation, match="infinity"):
        golden_request(request="{}", as_of_us=0, vector=np.array([np.inf]), score=0.5)


@pytest.mark.parametrize(
    ("model", "said"), [(MODEL + b" ", "model has 6 bytes, manifest says 5"), (b"trea\n", "model hash is")]
)
def test_other_bytes_are_refused_by_what_differs(model: bytes, said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        make_manifest().verify(model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"product": "flight_ranking"}, "product: code has flight_ranking, model wants flight_delay"),
        ({"view_digests": {"v.v1": "c" * 16}}, r"v\.v1: code has c{16}, model wants a{16}"),
        ({"view_digests": {}}, r"v\.v1: code has no such view"),
        ({"reference_version": "d"}, "reference data: found d, model wants b{16}"),
    ],
)
def test_code_that_computes_other_inputs_is_refused(change: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {
        "product": "flight_delay",
        "view_digests": {"v.v1": "a" * 16},
        "reference_version": "b" * 16,
    }
    make_manifest().verify_definitions(**good)

    with pytest.raises(ContractViolation, match=said):
        make_manifest().verify_definitions(**(good | change))


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"format": 1}', encode_manifest(make_manifest()).replace(b'"format":1', b'"format":2')]
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ContractViolation, match="manifest: "):
        decode_manifest(raw)


def test_the_digest_names_model_and_manifest() -> None:
    digests = {
        make_manifest().digest,
        make_manifest(model_sha256=sha256(b"x")).digest,
        make_manifest(metrics={}).digest,
    }

    assert len(digests) == 3
    assert make_manifest().digest == make_manifest().digest


def test_a_predictor_answers_with_vector_and_degraded_views() -> None:
    predictor = open_predictor(MODEL, make_manifest(), load=lambda _: Sum())

    whole = predictor.predict({"hour": 8.0, "carrier": "UA"}, {"v.v1": (2,)}, 0)
    without = predictor.predict({"hour": 8.0, "carrier": "UA"}, {"v.v1": None}, 0)

    assert (whole.score, whole.degraded) == (0.11, ())
    assert (without.score, without.degraded) == (0.18, ("v.v1",))
    assert whole.vector.tolist() == [8.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "fault", [lambda s: s + 1e-9, lambda s: 1 - s, lambda _: 0.11, lambda _: float("nan"), lambda s: s * 1.0001]
)
def test_a_model_that_answers_otherwise_never_becomes_a_predictor(fault: Callable[[float], float]) -> None:
    with pytest.raises(ContractViolation, match=r"golden request \d scored"):
        open_predictor(MODEL, make_manifest(), load=lambda _: Sum(fault))


def test_a_model_with_other_bytes_is_not_even_loaded() -> None:
    def load(_: bytes) -> Sum:
        raise AssertionError("loaded before it was verified")

    with pytest.raises(ContractViolation, match="bytes"):
        open_predictor(b"", make_manifest(), load=load)


def test_latency_is_measured_over_rows_in_turn() -> None:
    predictor = Predictor(make_manifest(), Sum())

    assert measure_row_latency_us(predictor, np.ones((3, 3)), calls=50) > 0
