"""Whether every path gives the same score for the same row, bit for bit (DESIGN 7.11), and if not, which feature differs.

The first path is what the others are held to. Compared are the vector that the model was given, feature by feature, where
a path lets it be seen; the score as a client or reader gets it; and the score as it was logged. Refuses a tolerance. What
bites: any NaN equals any other, as a missing number has no other bits to keep; 0.0 and -0.0 differ.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headway.errors import ContractViolation
from headway.evaluation import Floats

# A broken path makes every row wrong; these tell the story, the counts tell the size.
MAX_LISTED = 200
_BITS = struct.Struct("<d")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One row along one path: the score told and logged, and the vector, shape (f,), None where it cannot be seen."""

    score: float
    logged: float
    vector: Floats | None


@dataclass(frozen=True)
class Unanswered:
    """Why a path gave no score for a row."""

    reason: str


PathAnswer = Scored | Unanswered


@dataclass(frozen=True, kw_only=True)
class PathMismatch:
    """A row of one path that differs from the first path; ``feature`` is a column, ``score``, ``logged`` or ``answer``."""

    path: str
    row: str
    feature: str
    got: str
    wanted: str

    @property
    def told(self) -> str:
        """Path, row, feature and both values as one line."""
        return f"{self.path}, {self.row}, {self.feature}: got {self.got}, wanted {self.wanted}"


@dataclass(frozen=True, kw_only=True)
class PathReport:
    """The verdict over ``rows`` rows of ``paths``; ``seen`` are the paths whose vectors were compared, too."""

    paths: tuple[str, ...]
    seen: tuple[str, ...]
    rows: int
    compared: int
    mismatched: int
    mismatches: tuple[PathMismatch, ...]

    @property
    def held(self) -> bool:
        """Whether two paths at least were compared, and all was equal."""
        return self.compared > 0 and self.mismatched == 0


def compare_paths(
    answers: Mapping[str, Sequence[PathAnswer]], *, rows: Sequence[str], columns: Sequence[str]
) -> PathReport:
    """Hold every path to the first.

    Args:
        answers: by path, aligned with ``rows``.
        rows: how each row is named.
        columns: names of the vector's columns.

    Raises:
        ContractViolation: a path answered another number of rows.
    """
    for path, found in answers.items():
        if len(found) != len(rows):
            raise ContractViolation(f"path {path}: gave {len(found)} answers to {len(rows)} rows")
    first, *others = answers
    mismatched = 0
    listed: list[PathMismatch] = []
    for path in others:
        for row, wanted, got in zip(rows, answers[first], answers[path], strict=True):
            differing = [
                PathMismatch(path=path, row=row, feature=feature, got=is_, wanted=should_be)
                for feature, is_, should_be in _differing(got, wanted, columns)
            ]
            mismatched += bool(differing)
            listed += differing[: MAX_LISTED - len(listed)]
    return PathReport(
        paths=tuple(answers),
        seen=tuple(path for path, found in answers.items() if any(_vector(each) is not None for each in found)),
        rows=len(rows),
        compared=len(others) * len(rows),
        mismatched=mismatched,
        mismatches=tuple(listed),
    )


def _differing(got: PathAnswer, wanted: PathAnswer, columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    if isinstance(got, Unanswered) or isinstance(wanted, Unanswered):
        # Two refusals may say it in other words; that a row without a score is no agreement is what counts.
        yield "answer", _words(got), _words(wanted)
        return
    if got.vector is not None and wanted.vector is not None:
        for place in np.flatnonzero(_bits(got.vector) != _bits(wanted.vector)).tolist():
            yield columns[place], repr(float(got.vector[place])), repr(float(wanted.vector[place]))
    if not _same(got.score, wanted.score):
        yield "score", repr(got.score), repr(wanted.score)
    if not _same(got.logged, got.score):
        yield "logged", repr(got.logged), repr(got.score)


def _vector(answer: PathAnswer) -> Floats | None:
    return answer.vector if isinstance(answer, Scored) else None


def _words(answer: PathAnswer) -> str:
    return answer.reason if isinstance(answer, Unanswered) else repr(answer.score)


def _same(one: float, other: float) -> bool:
    return _BITS.pack(one) == _BITS.pack(other) or (math.isnan(one) and math.isnan(other))


def _bits(vector: Floats) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint64]]":
    return np.where(np.isnan(vector), np.nan, vector).view(np.uint64)
