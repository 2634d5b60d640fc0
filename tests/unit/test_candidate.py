"""The path of a model from rows to a registered, proven version, without a server."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest

from domains.flights.reference import load_reference
from domains.flights.source import events_between
from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory_registry import MemoryRegistry
from headway.candidate import Candidate, gather_evidence, judged, make_candidate
from headway.clock import DAY_US, to_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.features.definitions import FeatureView
from headway.features.offline import values_at
from headway.gates import judge
from headway.manifest import sha256
from headway.plots import evidence_pictures, weeks_picture
from headway.predictor import Predictor, open_predictor
from headway.training import AS_OF, TrainingSet, training_set
from products.flight_delay.product import PRODUCT

START_US = to_us(datetime(2013, 1, 1, 5, tzinfo=UTC))
LEARNED = Window(from_us=START_US, until_us=START_US + 147 * DAY_US)
# Two real days are stretched over half a year: enough weeks for limits, few enough rows for a unit test.
SMALL = replace(
    PRODUCT,
    drift=replace(PRODUCT.drift, min_rows=20, min_slice_rows=5),
    model=replace(PRODUCT.model, trees=15, min_rows_in_leaf=20),
)
LEARNER = LightGbm()


@cache
def real_days(shift_us: int) -> TrainingSet:
    events = events_between(START_US - 2 * DAY_US, START_US + 6 * DAY_US)

    def read(view: FeatureView, queries: pl.DataFrame) -> pl.DataFrame:
        return values_at(events, view, queries.with_columns(served_watermark_us=pl.col(AS_OF)), mode="as_served")

    return training_set(
        SMALL,
        events=events,
        reference=load_reference(),
        values_at=read,
        window=Window(from_us=START_US + DAY_US, until_us=START_US + 4 * DAY_US),
        known_at_us=START_US + 6 * DAY_US,
        views_shift_us=shift_us,
    )


def stretched(window: Window, *, shift_us: int = 0) -> TrainingSet:
    rows = real_days(shift_us)
    step_us = (window.until_us - window.from_us) // rows.frame.height
    at_us = pl.Series(window.from_us + np.arange(rows.frame.height) * step_us)
    return replace(rows, frame=rows.frame.with_columns(window_us=at_us, due_us=at_us), window=window)


@cache
def made() -> Candidate:
    return make_candidate(SMALL, stretched(LEARNED), spec=SMALL.model, learner=LEARNER, tables={"events": 3})


def opened() -> Predictor:
    return open_predictor(made().model, made().manifest, load=LEARNER.load)


def test_a_candidates_manifest_describes_its_bytes_rows_and_tables() -> None:
    manifest = made().manifest

    assert manifest.model_sha256 == sha256(made().model)
    assert manifest.training.rows == real_days(0).frame.height
    assert manifest.training.tables == {"events": 3}
    assert manifest.views == SMALL.view_digests
    assert manifest.limits is not None
    assert manifest.limits.windows == len(manifest.weeks)
    assert [column.name for column in manifest.columns][:2] == ["local_hour", "weekday"]


def test_the_same_rows_give_the_same_version() -> None:
    again = make_candidate(SMALL, stretched(LEARNED), spec=SMALL.model, learner=LEARNER, tables={"events": 3})

    assert again.manifest.digest == made().manifest.digest


def test_golden_requests_spread_over_the_scores_and_can_be_asked_again() -> None:
    manifest = made().manifest
    scores = [golden.score for golden in manifest.golden]

    assert len(scores) == SMALL.golden_requests
    assert max(scores) - min(scores) > 0.2
    for golden in manifest.golden:
        request = SMALL.parse_request(golden.request.encode())
        assert SMALL.asked_at_us(request) == golden.as_of_us


def test_a_registered_candidate_comes_back_proven_and_judged() -> None:
    window = Window(from_us=LEARNED.until_us, until_us=LEARNED.until_us + 40 * DAY_US)
    evidence = gather_evidence(
        SMALL,
        candidate=opened(),
        champion=opened(),
        holdout=stretched(window),
        yesterday=stretched(window, shift_us=DAY_US),
        watermark_us=window.until_us + DAY_US,
    )
    verdict = judge(evidence, replace(SMALL.gate, min_rows=100, min_positives=50, min_slice_rows=100))
    manifest = judged(made().manifest, verdict)
    registry = MemoryRegistry()

    version = registry.register(made().model, manifest, metrics=manifest.metrics, params={}, tags={}, run=None)
    model, stored = registry.load(SMALL.name, version.version)
    predictor = open_predictor(model, stored, load=LEARNER.load)

    assert verdict.passed, verdict.reason
    assert verdict.difference is not None
    assert verdict.difference.mean == 0.0
    assert stored.metrics["holdout_average_precision"] == pytest.approx(stored.metrics["champion_average_precision"])
    assert predictor.digest == version.digest
    assert set(evidence.outages) == set(SMALL.feature_views)
    pictures = evidence_pictures(evidence)
    assert set(pictures) == {"ranking", "calibration"}
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())


def test_a_swapped_model_of_equal_size_is_refused() -> None:
    """A digit changed inside a leaf keeps the size and parses: only the hash and the golden requests see it."""
    head, mark, tail = made().model.partition(b"leaf_value=0.")
    swapped = head + mark + (b"9" if tail[:1] != b"9" else b"8") + tail[1:]
    manifest = made().manifest

    with pytest.raises(ContractViolation, match="model hash is"):
        open_predictor(swapped, manifest, load=LEARNER.load)


def test_a_wrong_feature_order_is_found_by_the_golden_requests() -> None:
    """The bytes are right, the vector is not."""
    predictor = opened()
    vectors = np.array([golden.array()[::-1] for golden in predictor.manifest.golden])

    with pytest.raises(ContractViolation, match="not the model that was judged"):
        predictor.manifest.verify_scores(predictor.score(vectors).tolist())


def test_weeks_are_drawn_with_their_limits() -> None:
    manifest = made().manifest
    assert manifest.limits is not None

    first, again = (weeks_picture(manifest.weeks, manifest.limits, zone=SMALL.drift.zone) for _ in range(2))

    assert first.startswith(b"\x89PNG")
    assert first == again
