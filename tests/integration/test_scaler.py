"""The scaler at work on a real stack: a backlog brings a second Enricher, a calm minute takes it away again."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from domains.flights.source import iter_events
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.scaling_table import ScalingTable, scaling_file
from headway.clock import DAY_US, parse_instant_us
from headway.events import encode_event
from headway.local import lifecycle
from headway.ports import Record
from headway.settings import Settings
from headway.ticks import is_tick
from headway.topics import EVENTS_ENRICHED, EVENTS_RAW
from tests.free_ports import free_block

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

START_US = parse_instant_us("2013-06-01T00:00:00Z", field="start")
EVENTS = 120_000
PATIENCE_S = 240.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWAY_PORT_BASE", str(free_block()))
    # As patient as by default, but in seconds: behind after 1 s of backlog, a backlog of 3 s brings another one.
    monkeypatch.setenv("HEADWAY_SCALER_EVERY_S", "0.5")
    monkeypatch.setenv("HEADWAY_SCALER_DRAIN_S", "3")
    settings = Settings()
    lifecycle.up(settings, only=["scaler"], say=print)
    yield settings
    lifecycle.down(settings, say=print)


def until(holds: Callable[[], bool], told: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


def counts(settings: Settings) -> dict[str, Any]:
    return lifecycle.instances(settings, "enricher")["enricher"]


def send(settings: Settings) -> int:
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap, linger_ms=20)
    events, sent = iter_events(START_US, START_US + 90 * DAY_US), 0
    chosen = islice(events, EVENTS)
    while records := [Record(EVENTS_RAW, e.subject.encode(), encode_event(e)) for e in islice(chosen, 10_000)]:
        publisher.publish(records)
        sent += len(records)
    publisher.close()
    return sent


def test_a_backlog_brings_a_second_enricher_and_calm_takes_it_away_with_every_reason_recorded(
    settings: Settings,
) -> None:
    # The others would follow the Enricher through the backlog, and compete with it for the machine and its budget.
    for job in lifecycle.instances(settings, None):
        lifecycle.direct(settings, "pause", job, within_s=60)
    sent = send(settings)
    table = ScalingTable(scaling_file(settings.state))

    lifecycle.direct(settings, "resume", "enricher", within_s=90)
    until(lambda: counts(settings)["ready"] == 2, lambda: table.read(job="enricher", last=5, changes=False))
    while_two = [process["name"] for process in lifecycle.status(settings)["processes"]]
    until(lambda: counts(settings)["instances"] == 1, lambda: table.read(job="enricher", last=5, changes=False))

    changes = table.read(job=None, last=10, changes=True)
    assert [(row.job, row.before, row.after) for row in changes] == [("enricher", 1, 2), ("enricher", 2, 1)]
    assert "enricher-1" in while_two
    up, down = changes
    assert up.inputs["load"]["behind"]
    assert up.inputs["load"]["lag"] > 3 * up.inputs["load"]["handled_per_s"]
    assert down.inputs["load"]["calm_s"] >= down.inputs["policy"]["calm_s"]
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    enriched = sum(not is_tick(message) for message in reader.read(EVENTS_ENRICHED))
    reader.close()
    assert enriched == sent
