"""Every flight of the year, scored in a batch by both engines and asked as a request: the same score to the bit."""

from pathlib import Path

import pytest

from benchmarks.flights_asked import VECTORS, make_asked
from benchmarks.p10 import check_same_scores, contestants
from tests.serving_world import product

FLIGHTS = 336_776
pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1800)]


def test_every_score_of_the_year_is_the_requests(tmp_path: Path) -> None:
    asked = make_asked(tmp_path, product(), 1, print, model=tmp_path / "model")
    process, *others = contestants(tmp_path, asked)

    check_same_scores(process, others, asked, tmp_path / VECTORS, print)

    assert asked.rows == FLIGHTS
