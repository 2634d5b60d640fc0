"""The online writer shows, per view, the watermark the store holds and how far it is behind now."""

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from domains.flights.dimensions import PLANES
from domains.flights.statics import AIRCRAFT
from headway.adapters.memory_online import MemoryOnlineStore
from headway.clock import FrozenClock
from headway.settings import project_root
from headway.ticks import watermark_record
from headway.topics import PARTITIONS, features_topic
from streaming.freshness import ViewFreshness
from streaming.sinks.online import OnlineSink
from tests.streaming_world import DELAY, DOMAIN, World, instant

CHANGELOG = features_topic(DELAY.qualified)
RULES = project_root() / "deploy" / "alerts" / "features.yml"


class Watched:
    """The sink of a job whose clock stands at 10:07."""

    def __init__(self) -> None:
        self.world, self.store, self.registry = World(), MemoryOnlineStore(), CollectorRegistry()
        self.clock = FrozenClock(datetime(2013, 7, 1, 10, 7, tzinfo=UTC))
        self.sink = OnlineSink(DOMAIN, self.store, ViewFreshness(DOMAIN, registry=self.registry, clock=self.clock))
        self.read = 0

    def tick(self, at: str, *, partitions: int = PARTITIONS) -> None:
        for partition in range(partitions):
            self.world.broker.append(watermark_record(CHANGELOG, instant(at), partition=partition))
        messages = list(self.world.reader.read(CHANGELOG))
        self.sink.offer(messages[self.read :])
        self.read = len(messages)
        self.sink.flush()

    def value(self, name: str, view: str = DELAY.qualified) -> float | None:
        return self.registry.get_sample_value(f"headway_view_{name}", {"view": view})


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_view_shows_its_watermark_and_its_lag(watched: Watched) -> None:
    watched.tick("10:05")

    assert watched.value("watermark_seconds") == instant("10:05") / 1e6
    assert watched.value("lag_seconds") == 120.0
    assert watched.value("max_lag_seconds") == 15 * 60


def test_the_lag_grows_while_nothing_comes(watched: Watched) -> None:
    """A metric that is set when something arrives would stay small exactly while the stream is down."""
    watched.tick("10:05")

    watched.clock.advance(timedelta(minutes=30))

    assert watched.value("lag_seconds") == 120.0 + 30 * 60


def test_a_partition_that_is_behind_holds_the_view_back(watched: Watched) -> None:
    watched.tick("10:05")

    watched.tick("10:10", partitions=PARTITIONS - 1)

    assert watched.value("watermark_seconds") == instant("10:05") / 1e6


def test_a_view_nobody_knows_anything_of_shows_nothing(watched: Watched) -> None:
    watched.tick("10:05", partitions=PARTITIONS - 1)

    assert watched.value("watermark_seconds") is None
    assert watched.value("lag_seconds") is None


def test_a_static_view_shows_how_old_its_load_is(watched: Watched) -> None:
    domain = replace(DOMAIN, statics=(AIRCRAFT,), dimensions=(PLANES,))
    watched.registry = CollectorRegistry()
    freshness = ViewFreshness(domain, registry=watched.registry, clock=watched.clock)
    watched.sink = OnlineSink(domain, watched.store, freshness)
    watched.store.write_watermarks(AIRCRAFT.online_name, {0: instant("09:07") // 1000}, 1)

    watched.tick("10:05")

    assert watched.value("lag_seconds", AIRCRAFT.qualified) == 3600.0
    assert watched.value("max_lag_seconds", AIRCRAFT.qualified) == 2 * 24 * 3600
    assert watched.value("lag_seconds") == 120.0


def test_the_alerts_ask_for_metrics_that_there_are(watched: Watched) -> None:
    watched.tick("10:05")
    there = {metric.name for metric in watched.registry.collect()}
    rules = yaml.safe_load(Path(RULES).read_text())["groups"][0]["rules"]

    assert rules
    for rule in rules:
        named = {
            word for word in rule["expr"].replace("(", " ").replace(")", " ").split() if word.startswith("headway_")
        }
        assert named
        assert named <= there


def test_the_alert_rules_hold_to_their_examples() -> None:
    """One of them: an instance that lost its partitions shows an old watermark for as long as it idles."""
    subprocess.run(["promtool", "test", "rules", str(RULES.with_name("features_test.yml"))], check=True)
