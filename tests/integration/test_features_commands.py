"""``headway features`` against a running plane: held until backfilled, fresh, registered, and an aircraft forgotten."""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from domains.flights.contracts import ARRIVED, DEPARTED
from domains.flights.domain import DOMAIN
from domains.flights.source import events_between
from headway.adapters.delta import Lake
from headway.adapters.feast import feature_store, feature_store_config
from headway.cli import main
from headway.clock import HOUR_US, format_us, monotonic_s, parse_instant_us
from headway.features.changelog import changelog_table
from headway.local import lifecycle
from headway.ports import TopicPartition
from headway.settings import Settings
from headway.topics import features_topic
from orchestration.chaos.features import online_values
from products.flight_delay.product import PRODUCT
from streaming.commands import replay
from streaming.forget_command import applied_up_to
from streaming.forgetting import FORGOTTEN
from streaming.jobs import AGGREGATE, FAN_OUT
from tests.free_ports import free_block

# Feast warns about its own deprecations.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),
]

START_US = parse_instant_us("2013-07-01T15:00:00Z", field="start")
FIRST_US, SECOND_US = START_US + 2 * HOUR_US, START_US + 4 * HOUR_US
SETTLE_S = 60.0
ONLINE_WRITER = 3  # its place in the row of jobs' ports


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWAY_PORT_BASE", str(free_block()))
    monkeypatch.setenv("HEADWAY_FEAST_REGISTRY", f"sqlite:///{tmp_path / 'registry.sqlite'}")
    settings = Settings()
    try:
        lifecycle.up(settings, only=["streams", "collector", "haproxy"], say=print)
        yield settings
    finally:
        lifecycle.down(settings, say=print)


class Cli:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "facts.json"

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["features", *arguments, "--json", str(self._file)])
        return code, json.loads(self._file.read_text())


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def flown(start_us: int, end_us: int, *types: str) -> set[str]:
    events = events_between(start_us + 1, end_us + 1).filter(pl.col("type").is_in(types))
    return set(events["tail"].drop_nulls())


def stream(settings: Settings, start_us: int, end_us: int) -> None:
    report = replay(settings, DOMAIN, None, start_us=start_us, end_us=end_us, speed=None, planted_from_us=None)
    assert report.events_refused == 0


def departure_of(settings: Settings, tail: str) -> list[tuple[Any, ...]]:
    return online_values(settings, DOMAIN.view("aircraft_departure.v1"), pl.DataFrame({"tail": [tail]}))


def test_the_features_of_a_running_plane(settings: Settings, cli: Cli) -> None:
    """One plane for one story: bringing it up takes most of the time."""
    code, status = cli("status")
    assert code == 1
    assert {view["ready"].partition(":")[0] for view in status["views"]} == {"was never backfilled"}

    lifecycle.direct(settings, "pause", AGGREGATE, within_s=30)
    one = ("bootstrap", "--until", format_us(START_US), "--view", "origin_delay.v1")
    code, said = cli(*one)
    assert (code, "headway pause features-fan-out" in said["error"]) == (1, True)
    lifecycle.direct(settings, "pause", FAN_OUT, within_s=30)
    assert cli(*one)[0] == 0
    code, status = cli("status")
    assert [view["view"] for view in status["views"] if view["ready"] == "ready"] == ["origin_delay.v1"]
    lifecycle.direct(settings, "resume", FAN_OUT, within_s=60)
    assert cli("bootstrap", "--until", format_us(START_US))[0] == 0
    assert cli("refresh")[0] == 0
    lifecycle.direct(settings, "resume", AGGREGATE, within_s=60)
    assert cli("status")[0] == 0

    stream(settings, START_US, FIRST_US)
    status = cli("status")[1]
    assert {view["watermark"] for view in status["views"] if view["view"] != "aircraft.v1"} == {format_us(FIRST_US)}
    check_metrics(settings)
    lake = Lake(Path(settings.lake))
    wait_until_applied(settings)
    check_registered(settings, cli, lake)

    # Two that no later event names: one is forgotten, the other is what it would have been.
    tail, other, *_ = sorted(flown(START_US, FIRST_US, DEPARTED) - flown(FIRST_US, SECOND_US, DEPARTED, ARRIVED))
    code, said = cli("forget", "all", f"tail={tail}", "--reason", "asked to")
    assert (code, "headway pause features-aggregate" in said["error"]) == (1, True)
    lifecycle.direct(settings, "pause", AGGREGATE, within_s=30)
    said = forgotten(cli, tail)
    lifecycle.direct(settings, "resume", AGGREGATE, within_s=60)

    by_view = {each["view"]: each for each in said["forgotten"]}
    assert set(by_view) == {"aircraft_arrival.v1", "aircraft_departure.v1", "aircraft.v1"}
    streamed = [by_view["aircraft_arrival.v1"], by_view["aircraft_departure.v1"]]
    assert sum(each["lake_rows"] for each in streamed) > 0
    assert sum(each["state_records"] for each in streamed) > 0
    assert lake.read(FORGOTTEN.name).height == 3

    stream(settings, FIRST_US, SECOND_US)
    wait_until_applied(settings)
    assert departure_of(settings, tail) == [(None, None, None)]
    for name in ("aircraft_arrival.v1", "aircraft_departure.v1"):
        rows = lake.read(changelog_table(DOMAIN.view(name)).name)
        assert tail not in set(rows["tail"]), name
    assert departure_of(settings, other) != [(None, None, None)]


def forgotten(cli: Cli, tail: str) -> dict[str, Any]:
    """Repeat while rows wait to be applied, as the command says."""
    deadline_s = monotonic_s() + SETTLE_S
    while True:
        code, said = cli("forget", "all", f"tail={tail}", "--reason", "asked to")
        if code == 0:
            return said
        assert "wait in features." in said["error"], said
        assert monotonic_s() < deadline_s, said
        threading.Event().wait(0.5)


def wait_until_applied(settings: Settings) -> None:
    """Wait until both writers have read every changelog to its end."""
    from headway.adapters.kafka_reader import KafkaReader

    deadline = time.monotonic() + SETTLE_S
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    try:
        for view in DOMAIN.views:
            topic = features_topic(view.qualified)
            ends = {message.partition: message.offset for message in reader.read(topic)}
            while any(
                applied_up_to(settings, DOMAIN, topic)[TopicPartition(topic, p)] <= end for p, end in ends.items()
            ):
                assert time.monotonic() < deadline, f"{topic} is not applied"
                threading.Event().wait(0.2)
    finally:
        reader.close()


def freshness(settings: Settings) -> dict[str, float]:
    """What the online writer shows, by metric and view."""
    port = settings.ports.job_first + ONLINE_WRITER
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    shown = (line.removeprefix("headway_view_").rsplit(" ", 1) for line in lines if line.startswith("headway_view_"))
    return {name: float(value) for name, value in shown}


def check_metrics(settings: Settings) -> None:
    streamed = [f'{{view="{view.qualified}"}}' for view in DOMAIN.views]
    deadline_s = monotonic_s() + SETTLE_S
    # The store knows a watermark a moment before its writer shows it.
    while {(shown := freshness(settings)).get(f"watermark_seconds{each}") for each in streamed} != {FIRST_US / 1e6}:
        assert monotonic_s() < deadline_s, shown
        threading.Event().wait(0.2)
    for view in DOMAIN.every_view:
        label = f'{{view="{view.qualified}"}}'
        assert shown[f"max_lag_seconds{label}"] == view.max_lag.total_seconds()
        # The streamed past is years old, the static view was loaded just now.
        assert (shown[f"lag_seconds{label}"] > shown[f"max_lag_seconds{label}"]) == (label in streamed)


def check_registered(settings: Settings, cli: Cli, lake: Lake) -> None:
    """All that has rows is registered, and the product's service with it, in the database the settings name."""
    empty = [view.qualified for view in DOMAIN.views if not lake.files(changelog_table(view).name)]
    code, said = cli("apply")
    assert (code, set(said["held"]) - {PRODUCT.name}) == (1 if empty else 0, set(empty))
    store = feature_store(feature_store_config(settings))
    assert {view.name for view in store.list_feature_views()} == {
        view.online_name for view in DOMAIN.every_view if view.qualified not in empty
    }
    assert [service.name for service in store.list_feature_services()] == ([] if empty else [PRODUCT.name])
    assert not (settings.state / "feast" / "registry.db").exists()
