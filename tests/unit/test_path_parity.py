"""The same rows along every path; a bug planted in one of them is named by path, row and feature."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.path_parity import PathAnswer, Scored, Unanswered, compare_paths
from headway.predictions import Prediction
from headway.predictor import Predictor
from orchestration.asking import Asking, Recorder
from orchestration.batch_paths import by_batch
from orchestration.parity_command import path_outcome
from orchestration.request_paths import by_grpc, by_rest
from orchestration.scoring_paths import PATHS, Answers, check_paths
from orchestration.scoring_rows import Row, rows_of
from orchestration.stream_paths import by_stream
from tests.receipt_world import answer
from tests.serving_world import flight, product, trained

ROWS = 28
# Carriers and destinations that the small model has seen, has not seen, and that there are.
_CARRIERS, _DESTINATIONS = ("UA", "B6", "AA", "DL"), ("IAH", "BOS", "ORD", "LAX")


def logged(number: int) -> Prediction:
    request = product().parse_request(
        flight(
            tail=None if number % 7 == 3 else f"N{number:05}",
            carrier=_CARRIERS[number % 4],
            dest=_DESTINATIONS[number // 2 % 4],
            flight=1000 + number,
        )
    )
    given = answer(f"row-{number}", number=number)
    views = tuple(msgspec.structs.replace(v, key=product().entity(v.view, request)) for v in given.views)
    return msgspec.structs.replace(given, request=msgspec.Raw(msgspec.json.encode(request)), views=views)


def rows() -> list[Row]:
    return rows_of(product(), [logged(number) for number in range(ROWS)], at_most=ROWS)


def asking() -> Asking:
    model = trained(1)
    return Asking(
        product=product(),
        reference=product().domain.load_reference(),
        version=1,
        model=model.text,
        manifest=model.manifest,
        rows=rows(),
    )


class Planted(Asking):
    """An asking whose models are given other vectors than were assembled."""

    def open(self) -> tuple[Predictor, Recorder]:
        predictor, recorder = super().open()
        bug, row, rows = BUG[self.version], recorder.score_row, recorder.score
        recorder.score_row = lambda vector: row(bug(vector))  # type: ignore[method-assign]  # planted
        recorder.score = lambda matrix: rows(bug(matrix))  # type: ignore[method-assign]  # planted
        return predictor, recorder


def single(vectors: Floats) -> Floats:
    """Numbers went through float32 once."""
    with np.errstate(over="ignore"):
        return vectors.astype(np.float32).astype(np.float64)


def shifted(vectors: Floats) -> Floats:
    """Categories begin at 1."""
    found = vectors.copy()
    found[..., [column.kind == "category" for column in trained(1).manifest.columns]] += 1
    return found


BUG: dict[int, Callable[[Floats], Floats]] = {32: single, 33: shifted}


def planted(path: Answers, number: int) -> Answers:
    def answers(clean: Asking) -> list[PathAnswer]:
        parts: dict[str, Any] = {name: getattr(clean, name) for name in Asking.__dataclass_fields__}
        return path(Planted(**{**parts, "version": number}))

    return answers


def test_every_path_scores_adversarial_rows_bit_for_bit_alike() -> None:
    in_process = {name: path for name, path in PATHS.items() if name != "spark"}

    report = check_paths(asking(), in_process)

    assert report.held, report.mismatches
    assert (report.rows, report.compared) == (ROWS, ROWS * (len(in_process) - 1))
    assert set(report.seen) == set(in_process)


def test_rows_are_at_the_ends_of_what_they_may_hold() -> None:
    found = {value for row in rows() for values in row.views.values() for value in values}

    assert found >= {None, 2**63 - 1, -(2**63), 2**53 + 1, 5e-324, -1.7976931348623157e308}
    assert any(row.request.tail is None for row in rows())  # type: ignore[attr-defined]  # a flight's
    assert len({row.name for row in rows()}) == ROWS


def test_rows_with_the_keys_of_another_and_answers_without_features_are_left_out() -> None:
    views = tuple(msgspec.structs.replace(view, values=None) for view in logged(9).views)
    degraded = msgspec.structs.replace(logged(9), views=views)

    assert [row.name for row in rows_of(product(), [logged(1), logged(1), degraded], at_most=9)] == ["row-1"]


@pytest.mark.parametrize(("number", "features"), [(32, "distance_mi|delay|dep_|at_"), (33, "carrier|origin|dest")])
@pytest.mark.parametrize("path", [by_rest, by_grpc, by_stream, by_batch])
def test_a_planted_cast_and_a_planted_category_bug_are_named_by_path_row_and_feature(
    path: Answers, number: int, features: str
) -> None:
    report = check_paths(asking(), {"rest": by_rest, "buggy": planted(path, number)})

    assert not report.held
    assert {mismatch.path for mismatch in report.mismatches} == {"buggy"}
    columns = {column.name: column.kind for column in trained(1).manifest.columns}
    named = {m.feature for m in report.mismatches if m.feature in columns}
    assert named
    assert number == 32 or {columns[name] for name in named} == {"category"}
    assert {mismatch.row for mismatch in report.mismatches} <= {row.name for row in rows()}


def scored(score: float = 0.5, *vector: float, logged: float | None = None) -> Scored:
    return Scored(score=score, logged=score if logged is None else logged, vector=np.array(vector) if vector else None)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (scored(0.5, 1.0, 0.0), []),
        (scored(0.5, 1.0, -0.0), ["b"]),
        (scored(0.5, float("nan"), 0.0), ["a"]),
        (scored(np.nextafter(0.5, 1), 1.0, 0.0), ["score"]),
        (scored(0.5), []),
        (scored(0.5, 1.0, 0.0, logged=0.25), ["logged"]),
        (Unanswered("503: no replica"), ["answer"]),
    ],
)
def test_one_bit_is_a_difference_and_says_where(other: PathAnswer, named: list[str]) -> None:
    report = compare_paths({"rest": [scored(0.5, 1.0, 0.0)], "other": [other]}, rows=["r"], columns=["a", "b"])

    assert [mismatch.feature for mismatch in report.mismatches] == named
    assert (report.mismatched, report.held) == (len(named), not named)


def test_a_missing_number_is_a_missing_number_whatever_its_bits() -> None:
    other = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    answers = {"rest": [scored(0.5, float("nan"))], "other": [replace(scored(), vector=other)]}

    assert compare_paths(answers, rows=["r"], columns=["a"]).held


def test_paths_that_all_refuse_a_row_do_not_agree_about_its_score() -> None:
    refused: list[PathAnswer] = [Unanswered("400: dest")]

    assert not compare_paths({"rest": refused, "other": refused}, rows=["r"], columns=[]).held


def test_one_path_alone_is_no_parity() -> None:
    assert not compare_paths({"rest": [scored()]}, rows=["r"], columns=[]).held


def test_a_path_that_loses_a_row_is_refused() -> None:
    with pytest.raises(ContractViolation, match="gave 0 answers to 1 rows"):
        compare_paths({"rest": [scored()], "other": []}, rows=["r"], columns=[])


def test_the_command_names_paths_and_the_first_differences() -> None:
    report = compare_paths({"rest": [scored(0.5)], "grpc": [scored(0.25)]}, rows=["r-1"], columns=[])

    outcome = path_outcome(report)

    assert not outcome.holds
    assert outcome.lines == [
        "1 rows along grpc held to rest: 1 of 1 differ",
        "grpc, r-1, score: got 0.25, wanted 0.5",
    ]
