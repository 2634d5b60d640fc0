"""A bootstrapped plane whose jobs are killed during a replay: they restore what was written for them, and go on.

R1 (test_chaos.py) kills more, and harder; its features start from nothing.
"""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families

from domains.flights.domain import DOMAIN
from domains.flights.source import events_between
from headway.adapters.delta import Lake
from headway.adapters.kafka_reader import KafkaReader
from headway.clock import DAY_US, HOUR_US, monotonic_s, parse_instant_us
from headway.errors import PermanentFailure
from headway.features.offline import values_at
from headway.lake import TRANSPORT
from headway.ledger import JUDGED_HOURS
from headway.local import lifecycle
from headway.settings import Settings
from headway.topics import EVENTS_RAW
from orchestration.chaos.faults import Injector, Planned
from orchestration.chaos.features import online_values
from orchestration.chaos.stack import processes_of
from streaming.accounts import Stores, read_ledger
from streaming.bootstrapping import bootstrap
from streaming.commands import replay
from tests.free_ports import free_block

START_US = parse_instant_us("2013-07-01T15:00:00Z", field="start")
END_US = START_US + 6 * HOUR_US
JOBS = ("enricher", "features-fan-out", "features-aggregate", "online-writer", "lake-loader")
SETTLE_S = 60.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("HEADWAY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWAY_PORT_BASE", str(free_block()))
    settings = Settings()
    lifecycle.up(settings, only=["streams", "collector", "haproxy"], say=print)
    yield settings
    lifecycle.down(settings, say=print)


def ask(settings: Settings, job: str, path: str) -> bytes:
    port = settings.ports.job_first + JOBS.index(job)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def metrics_of(settings: Settings, job: str) -> dict[str, float]:
    """Every sample of a job by name and labels, the job's own label left out."""
    found = {}
    for family in text_string_to_metric_families(ask(settings, job, "/metrics").decode()):
        for sample in family.samples:
            labels = [f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "job"]
            found[" ".join([sample.name, *labels])] = sample.value
    return found


def metrics_once_caught_up(settings: Settings, job: str) -> dict[str, float]:
    deadline = time.monotonic() + SETTLE_S
    while (found := metrics_of(settings, job))["headway_job_lag_seconds"] > 0:
        assert time.monotonic() < deadline, f"{job} does not catch up"
        threading.Event().wait(0.2)
    return found


def check_metrics(settings: Settings) -> None:
    """A running job says what it did, how long each stage took, how far behind it is, and what it owns."""
    for job in JOBS:
        said = json.loads(ask(settings, job, "/readyz"))
        assert (said["ready"], said["idle"], said["breaker"], said["paused"]) == (True, False, "closed", None), said
        assert said["partitions"] % 4 == 0
        found = metrics_once_caught_up(settings, job)
        assert found["headway_job_partitions"] == said["partitions"]
        assert found["headway_job_idle"] == found["headway_job_breaker_open"] == found["headway_job_paused"] == 0
        assert found["headway_job_rebalances_total kind=assigned"] >= 1
        assert [name for name in found if name.startswith("headway_job_lag_messages topic=")]
    enricher = metrics_of(settings, "enricher")
    assert enricher["headway_job_messages_total"] > 0
    assert enricher["headway_job_records_total"] > 0
    for stage in ("poll", "restore", "handle", "commit"):
        assert enricher[f"headway_job_stage_seconds_count stage={stage}"] > 0
    assert metrics_of(settings, "lake-loader")["headway_job_stage_seconds_count stage=write"] > 0


@pytest.mark.integration
def test_killing_every_job_under_load_loses_nothing_doubles_nothing_and_changes_no_feature(settings: Settings) -> None:
    lake = Lake(Path(settings.lake))
    history = events_between(START_US - 3 * DAY_US, START_US + 1)
    lake.bulk_load(DOMAIN, history, start_us=START_US - 3 * DAY_US, end_us=START_US + 1)
    with pytest.raises(PermanentFailure, match="headway pause features-aggregate"):
        bootstrap(settings, DOMAIN, until_us=START_US, say=print)
    lifecycle.direct(settings, "pause", "features-aggregate", within_s=30)
    bootstrap(settings, DOMAIN, until_us=START_US, say=print)
    lifecycle.direct(settings, "resume", "features-aggregate", within_s=60)
    injector = Injector(lambda: processes_of(settings), print)
    kills = [Planned(at_s=2.0 * place, kind=job, what="kill") for place, job in enumerate(JOBS)]
    faults = threading.Thread(target=injector.inject, args=(kills,), kwargs={"begun_s": monotonic_s()})
    faults.start()
    report = replay(settings, DOMAIN, None, start_us=START_US, end_us=END_US, speed=None, planted_from_us=None)
    faults.join()
    injector.wait_until_proven(within_s=60)
    injector.close()

    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    deadline = time.monotonic() + SETTLE_S
    while (
        not (ledger := read_ledger(Stores(reader, lake, None), hours=JUDGED_HOURS)).balanced
        and time.monotonic() < deadline
    ):
        threading.Event().wait(0.5)
    raw = sum(1 for _ in reader.read(EVENTS_RAW))
    reader.close()

    assert sorted(fault.name for fault in injector.faults if fault.proof) == sorted(JOBS)
    assert ledger.balanced, ledger.facts(limit=20)
    assert (ledger.raw, ledger.enriched, ledger.letters) == (report.events_accepted, report.events_sent, 0)
    assert raw > ledger.raw  # ticks are in the log and not in the ledger
    check_metrics(settings)
    expected = events_between(START_US + 1, END_US + 1).drop(TRANSPORT).sort("id")
    streamed = lake.read("events", predicate=pl.col("topic").is_not_null()).drop(TRANSPORT).sort("id")
    assert streamed.equals(expected)
    events = pl.concat([history, events_between(START_US + 1, END_US + 1)])
    for view in DOMAIN.views:
        touched = expected.filter(pl.col("type") == view.source).select(view.keys).drop_nulls().unique().sort(view.keys)
        asked = touched.with_columns(as_of_us=pl.lit(END_US, dtype=pl.Int64))
        wanted = values_at(events, view, asked, mode="truth").select(list(view.columns)).rows()
        assert online_values(settings, view, touched) == wanted, view.qualified
