"""The commands of docs/features/definitions.md that bring a changed definition out, on a running plane.

The stack runs a checkout whose domain is edited under its feet, as a person would.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from domains.flights.contracts import DEPARTED
from domains.flights.domain import DOMAIN
from domains.flights.source import events_between
from domains.flights.views import ORIGIN_DELAY
from headway.adapters.delta import Lake
from headway.backfill import backfill
from headway.clock import DAY_US, HOUR_US, format_us, parse_instant_us
from headway.drift import Window
from headway.features.definitions import Aggregate
from headway.features.offline import values_at
from headway.settings import Settings, project_root
from orchestration.chaos.features import online_values
from tests.free_ports import free_block

# Feast warns about its own deprecations.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),
]

START_US = parse_instant_us("2013-07-01T15:00:00Z", field="start")
HISTORY_US = START_US - 3 * DAY_US
HOURS = [START_US + hour * HOUR_US for hour in range(4)]
TWO_DAYS = (
    Aggregate(function="count", window=timedelta(hours=48)),
    Aggregate(function="mean", field="dep_delay_min", window=timedelta(hours=48)),
)
SECOND, THIRD = (replace(ORIGIN_DELAY, version=version, aggregates=TWO_DAYS) for version in (2, 3))
EDIT = """
from dataclasses import replace

_48H = timedelta(hours=48)
VIEWS = (
    *VIEWS,
    replace(
        ORIGIN_DELAY,
        version={version},
        aggregates=(
            Aggregate(function="count", window=_48H),
            Aggregate(function="mean", field="dep_delay_min", window=_48H),
        ),
    ),
)
"""
JOBS = ("features-fan-out", "features-aggregate")
READERS = ("topics", "lake-loader", "online-writer")


class Checkout:
    """A checkout with a domain of its own, and the command line run from it."""

    def __init__(self, folder: Path) -> None:
        self.views = folder / "code" / "domains" / "flights" / "views.py"
        self._facts = folder / "facts.json"
        shutil.copytree(project_root() / "domains", folder / "code" / "domains")
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{folder / 'code'}{os.pathsep}{project_root()}",
            "HEADWAY_STATE": str(folder / "state"),
            "HEADWAY_PORT_BASE": str(free_block()),
        }
        self._folder = folder

    def run(self, *call: str) -> tuple[int, dict[str, Any]]:
        """Run a command; return its exit code and facts."""
        command = [sys.executable, "-P", "-m", "headway.cli", *call, "--json", str(self._facts)]
        self._facts.unlink(missing_ok=True)
        done = subprocess.run(
            command, env=self._environment, cwd=self._folder, timeout=240, check=False, capture_output=True, text=True
        )
        sys.stdout.write(f"$ headway {' '.join(call)}\n{done.stdout}{done.stderr}")
        return done.returncode, json.loads(self._facts.read_text())

    def must(self, *call: str) -> dict[str, Any]:
        code, facts = self.run(*call)
        assert code == 0, facts
        return facts

    def each(self, verb: str, names: tuple[str, ...]) -> None:
        for name in names:
            self.must(verb, name)

    def edit(self, version: int) -> None:
        self.views.write_text(self.views.read_text() + EDIT.format(version=version))

    def ready(self, view: str) -> str:
        """What the plane says of one view."""
        told = {each["view"]: each["ready"] for each in self.run("features", "status")[1]["views"]}
        return str(told[view])

    def play(self, hour: int) -> None:
        self.must("replay", "--from", format_us(HOURS[hour - 1]), "--to", format_us(HOURS[hour]))


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    try:
        made.must("up", "--only", "streams,collector,haproxy")
        yield made
    finally:
        made.must("down")


@pytest.fixture
def settings(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("HEADWAY_STATE", "HEADWAY_PORT_BASE"):
        monkeypatch.setenv(name, checkout._environment[name])
    return Settings()


def test_a_changed_definition_is_a_new_version_that_serves_once_it_has_its_past(
    checkout: Checkout, settings: Settings
) -> None:
    """And one that was let run without its past never does."""
    lake = Lake(Path(settings.lake))
    lake.bulk_load(DOMAIN, events_between(HISTORY_US, START_US + 1), start_us=HISTORY_US, end_us=START_US + 1)
    checkout.must("pause", "features-aggregate")
    checkout.must("features", "bootstrap")
    checkout.must("resume", "features-aggregate")
    checkout.play(1)

    checkout.edit(2)
    code, said = checkout.run("features", "status")
    assert (code, "origin_delay.v2 is not in it; add it with `headway features lock`" in said["error"]) == (1, True)
    assert checkout.must("features", "lock")["added"] == ["origin_delay.v2"]
    code, said = checkout.run("features", "bootstrap", "--view", "origin_delay.v2")
    assert (code, "headway pause features-aggregate" in said["error"]) == (1, True)

    checkout.each("pause", JOBS)
    checkout.each("restart", READERS)
    assert checkout.ready("origin_delay.v2").startswith("was never backfilled")
    early = ("features", "bootstrap", "--view", "origin_delay.v2", "--until", format_us(START_US))
    code, said = checkout.run(*early)
    assert (code, "from after it" in said["error"]) == (1, True)
    assert checkout.ready("origin_delay.v2").startswith("was never backfilled")
    [done] = checkout.must("features", "bootstrap", "--view", "origin_delay.v2")["views"]
    assert done["online_rows"] == 3
    assert checkout.ready("origin_delay.v2") == "ready"
    checkout.each("resume", JOBS)
    checkout.play(2)
    check_online(settings, lake)

    held = checkout.run("features", "apply")[1]["held"]["origin_delay.v2"]
    assert "backfill it first (asset features/origin_delay_v2)" in held
    backfill(lake, SECOND, Window(from_us=HISTORY_US, until_us=START_US), mode="as_served")
    assert "origin_delay.v2" in checkout.run("features", "apply")[1]["views"]

    checkout.edit(3)
    checkout.must("features", "lock")
    checkout.each("restart", (*READERS, *JOBS))
    checkout.play(3)
    checkout.each("pause", JOBS)
    code, said = checkout.run("features", "bootstrap", "--view", "origin_delay.v3")
    assert (code, "Make it origin_delay version 4" in said["error"]) == (1, True)
    assert checkout.ready("origin_delay.v3").startswith("was never backfilled")


def check_online(settings: Settings, lake: Lake) -> None:
    """Its windows hold what happened before the stream, before the version, and since."""
    keys = (
        lake.read("events", predicate=pl.col("type") == DEPARTED).select("origin").drop_nulls().unique().sort("origin")
    )
    asked = keys.with_columns(as_of_us=pl.lit(HOURS[2], pl.Int64))
    events = events_between(HISTORY_US, HOURS[2] + 1)
    wanted = values_at(events, SECOND, asked, mode="truth").select(list(SECOND.columns)).rows()
    assert online_values(settings, SECOND, keys) == wanted
    recent = events.filter(pl.col("time").dt.timestamp("us") > HOURS[1])
    assert wanted != values_at(recent, SECOND, asked, mode="truth").select(list(SECOND.columns)).rows()
