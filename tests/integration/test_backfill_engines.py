"""The past of views by every engine, Spark's real session included: the same rows, to the bit (S9)."""

from pathlib import Path
from typing import Any

import pytest

from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.clock import parse_instant_us
from tests.free_ports import free_block
from tests.spark_world import run_headway

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]

# Sums and a maximum; what is newest, of entities that come and go; floats and nulls.
KINDS = ("origin_delay.v1", "aircraft_arrival.v1", "weather.v1")
# Which value each engine's digest has to be, so that three empty results are no success.
ENGINES = {"process", "spark", "stream"}


def world(folder: Path, *, until: str) -> dict[str, Any]:
    """Return where a command runs: a state folder whose lake has the events up to an instant."""
    load = DOMAIN.load_history
    assert load is not None
    start_us, end_us = (parse_instant_us(at, field="at") for at in ("2012-12-01T00:00:00Z", until))
    lake = Lake(folder / "lake")
    lake.bulk_load(DOMAIN, load().events_between(start_us, end_us), start_us=start_us, end_us=end_us)
    return {"state": folder, "port_base": free_block()}


def views(*names: str) -> list[str]:
    return [argument for name in names for argument in ("--view", name)]


def test_spark_this_process_and_the_stream_make_the_same_rows(tmp_path: Path) -> None:
    here = world(tmp_path, until="2013-01-05T00:00:00Z")

    code, facts = run_headway("features", "compare", "--from", "2013-01-02T00:00:00Z", *views(*KINDS), **here)

    assert code == 0, facts
    assert [view["view"] for view in facts["views"]] == list(KINDS)
    for view in facts["views"]:
        assert view["rows"] > 0
        assert view["digests"].keys() == ENGINES
        assert len(set(view["digests"].values())) == 1


def test_a_backfill_on_spark_may_be_repeated_and_truth_has_its_own_table(tmp_path: Path) -> None:
    here = world(tmp_path, until="2013-02-03T00:00:00Z")
    lake, table = Lake(tmp_path / "lake"), "features.dest_delay.v1"
    chosen = [*views("dest_delay.v1"), "--until", "2013-02-01T00:00:00Z"]
    process, spark = (["features", "backfill", "--engine", engine, *chosen] for engine in ("process", "spark"))
    assert run_headway(*process, **here)[0] == 0
    once = lake.read(table)

    told = [run_headway(*spark, **here) for _ in range(2)]
    truth = run_headway(*spark, "--mode", "truth", **here)

    assert [(code, facts["views"][0]["rows"]) for code, facts in told] == [(0, once.height)] * 2
    assert lake.read(table).sort(once.columns).equals(once.sort(once.columns))
    assert truth[1]["views"][0]["table"] == "truth.dest_delay.v1"
    assert not list((tmp_path / "lake" / ".staging").iterdir())


def test_the_engine_of_the_settings_is_used_unless_one_is_named(tmp_path: Path) -> None:
    here = world(tmp_path, until="2013-01-03T00:00:00Z")
    chosen = ["features", "backfill", *views("weather.v1")]
    by_spark = {"HEADWAY_BACKFILL_ENGINE": "spark"}

    named = run_headway(*chosen, "--engine", "process", **here, variables=by_spark)
    code, facts = run_headway(*chosen, **here, variables=by_spark | {"HEADWAY_SPARK_HEAP": "400m"})

    assert (named[0], named[1]["engine"]) == (0, "process")
    assert code != 0, facts  # the heap that Spark is refused with says that Spark was asked


@pytest.mark.timeout(1_800)
def test_spark_this_process_and_the_stream_make_the_same_year(tmp_path: Path) -> None:
    here = world(tmp_path, until="2014-02-01T00:00:00Z")

    code, facts = run_headway("features", "compare", **here, deadline_s=1_700)

    assert code == 0, facts
    assert [view["view"] for view in facts["views"]] == [view.qualified for view in DOMAIN.views]
    assert sum(view["rows"] for view in facts["views"]) > 3_000_000
    for view in facts["views"]:
        assert view["digests"].keys() == ENGINES
        assert len(set(view["digests"].values())) == 1
