"""Feature job, both stages, state, changelog and online writes: rows per CPU-second beside the same rows through Feast's push.

Headway computes the rows: stage 1, stage 2 and the online writer, three processes as the stack runs them, are fed real
events with their ticks, no faster than values come online, and their processor seconds count together. Feast is given the
rows ready computed and only has to store them. Broker and store are counted for neither.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import children
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.machine import tree_cpu_s
from benchmarks.peers.environment import FOLDER
from benchmarks.report import outcome
from domains.flights.domain import DOMAIN
from domains.flights.source import events_between, iter_events
from headway.adapters.kafka_topics import admin_client, apply_topics
from headway.clock import DAY_US, from_us, parse_instant_us
from headway.commands import Outcome, Say
from headway.errors import ContractViolation, PermanentFailure
from headway.features.offline import changelog
from headway.local.valkey import valkey_command, valkey_ready
from headway.settings import LOOPBACK, Settings
from orchestration.chaos.features import await_watermark, online_values, reach_watermark
from orchestration.chaos.feed import Feed, Item, Tick, in_steps
from orchestration.chaos.stack import free_block
from streaming.jobs import JOBS
from streaming.provision import declared_cluster

_JOBS = ("features-fan-out", "features-aggregate", "online-writer")
_START_US = parse_instant_us("2013-01-01T00:00:00Z", field="start")
# More than all windows take, those that are taken again among them.
_DAYS = 240
_SAMPLE_DAYS, _PEER_DAYS = 3, 60
# Values that are not online yet are work that was not done: the feed is never further ahead than this.
_AHEAD_US = DAY_US
_UNMOVED_S = 60.0
_PEER = "feast"
_LIMIT_S = 180.0


@dataclass
class Ours:
    """The feature job as processes, and history that goes on from window to window."""

    settings: Settings
    pids: Sequence[int]
    feed: Feed
    days: Iterator[list[Item]]
    rows_of: dict[int, int]
    reached_us: int

    def measure(self, seconds: float) -> Sample:
        """Feed whole days for so long; count the rows that they change, and what all three processes used."""
        begun_s, used_s, rows, events = time.monotonic(), self._used_s(), 0, 0
        while time.monotonic() - begun_s < seconds:
            more_rows, more_events = self.take_day()
            rows, events = rows + more_rows, events + more_events
        reach_watermark(self.settings, DOMAIN, self.reached_us, unmoved_s=_UNMOVED_S)
        took_s, cpu_s = time.monotonic() - begun_s, self._used_s() - used_s
        facts = {"rows_per_s": rows / took_s, "events_per_s": events / took_s, "events_per_cpu_s": events / cpu_s}
        return Sample(value=rows / cpu_s, facts=facts)

    def take_day(self) -> tuple[int, int]:
        """Feed one day; return how many rows it changes, and how many events it has."""
        items = next(self.days)
        self.feed.play(items)
        day = (self.reached_us - _START_US) // DAY_US
        self.reached_us = max(item.at_us for item in items if isinstance(item, Tick))
        await_watermark(self.settings, DOMAIN, self.reached_us - _AHEAD_US, unmoved_s=_UNMOVED_S)
        return self.rows_of.get(day, 0), sum(not isinstance(item, Tick) for item in items)

    def _used_s(self) -> float:
        return sum(map(tree_cpu_s, self.pids))


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Feast as a process per window, on an empty store of its own."""

    redis: str
    folder: Path
    log: Path

    def measure(self, seconds: float) -> Sample:
        """Push rows for so long."""
        said = self.run(self.folder / "rows", window_s=seconds)
        facts = {"rows_per_s": said["events"] / said["seconds"], "peak_mib": said["peak_mib"]}
        return Sample(value=said["events"] / said["cpu_s"], facts=facts)

    def run(self, rows: Path, *, window_s: float) -> dict[str, Any]:
        """Start the process, wait for its end, and return what its meter says."""
        import redis

        with redis.Redis.from_url(f"redis://{self.redis}") as store:
            store.flushall()
        script = [sys.executable, str(FOLDER / "feast_push.py"), str(rows), self.redis, _PEER, str(window_s)]
        environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent.parent), "FEAST_USAGE": "False"}
        with self.log.open("ab") as errors:
            done = subprocess.run(
                script, env=environment, stdout=subprocess.PIPE, stderr=errors, check=False, timeout=_LIMIT_S + window_s
            )
        if done.returncode != 0:
            raise PermanentFailure(f"feast: ended with {done.returncode}; it said {self.log.read_text()[-500:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


def run(plan: Plan, say: Say) -> Outcome:
    """Prove that both stores hold the same, then compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p8-") as name, contextlib.ExitStack() as started:
        folder = Path(name)
        say("computing the rows in bulk")
        rows_of = _write_rows(folder)
        settings = _settings(folder, started)
        pids = [_job(job, settings, folder, started) for job in _JOBS]
        feed = started.enter_context(Feed(settings, DOMAIN))
        ours = Ours(settings=settings, pids=pids, feed=feed, days=_days(), rows_of=rows_of, reached_us=_START_US)
        peer = Peer(redis=_store(folder, started, "peer-store"), folder=folder, log=folder / "feast.log")
        _check_same_values(ours, peer, folder / "sample", say)
        compared = compare(
            "Feature rows to the online store",
            unit="rows/CPU-s",
            ours=Contestant(name="headway, computed", measure=ours.measure),
            peers=[Contestant(name="feast, given", measure=peer.measure)],
            targets=[Target(peer="feast, given", at_least=5.0)],
            plan=plan,
            say=say,
        )
    return outcome("P8", [compared])


def _days() -> Iterator[list[Item]]:
    """Yield history by days, each with its ticks, the last of which ends it."""
    items: list[Item] = []
    events = iter_events(_START_US, _START_US + _DAYS * DAY_US)
    for item in in_steps(events, start_us=_START_US, end_us=_START_US + _DAYS * DAY_US):
        items.append(item)
        if isinstance(item, Tick) and item.at_us % DAY_US == 0:
            yield items
            items = []


def _write_rows(folder: Path) -> dict[int, int]:
    """Write what Feast is to push, all of it and the sample; return how many rows each day has."""
    events = events_between(_START_US, _START_US + _DAYS * DAY_US)
    rows_of: Counter[int] = Counter()
    views = {view.online_name: {"keys": view.keys, "columns": view.columns} for view in DOMAIN.views}
    for name in ("rows", "sample"):
        (folder / name).mkdir()
        (folder / name / "views.json").write_text(json.dumps(views))
    for view in DOMAIN.views:
        rows = changelog(events, view, start_us=_START_US, until_us=_START_US + _DAYS * DAY_US)
        day = (pl.col("event_timestamp").dt.timestamp("us") - _START_US - 1) // DAY_US
        rows_of.update(dict(rows.group_by(day.alias("day")).len().iter_rows()))
        ready = rows.select(*view.keys, "event_timestamp", *view.columns).sort("event_timestamp")
        ready = ready.with_columns(pl.col("event_timestamp").alias("created_timestamp"))
        for name, days in (("rows", _PEER_DAYS), ("sample", _SAMPLE_DAYS)):
            until = from_us(_START_US + days * DAY_US)
            ready.filter(pl.col("event_timestamp") <= until).write_parquet(
                folder / name / f"{view.online_name}.parquet"
            )
    return dict(rows_of)


def _settings(folder: Path, started: contextlib.ExitStack) -> Settings:
    """Start broker and store, and return what reaches them."""
    kafka = started.enter_context(children.broker(folder, heap_mb=768)).bootstrap
    store = _store(folder, started, "store")
    settings = Settings(state=folder, port_base=free_block(), kafka_bootstrap=kafka, online_store=store)
    apply_topics(admin_client(kafka), declared_cluster(settings).topics)
    return settings


def _store(folder: Path, started: contextlib.ExitStack, name: str) -> str:
    port = children.free_port()
    (folder / name).mkdir()
    command = valkey_command(folder / name, port)
    started.enter_context(children.child(name, command, folder=folder, ready=lambda: valkey_ready(port)))
    return f"{LOOPBACK}:{port}"


def _job(name: str, settings: Settings, folder: Path, started: contextlib.ExitStack) -> int:
    port = settings.ports.job_first + [job.name for job in JOBS].index(name)
    command = children.module("streaming.main", name)
    ready = children.answers(port, "/readyz")
    return started.enter_context(
        children.child(name, command, folder=folder, ready=ready, env=settings.environment())
    ).pid


def _check_same_values(ours: Ours, peer: Peer, sample: Path, say: Say) -> None:
    """Let both do the sample, and compare every value of every entity."""
    say(f"{_SAMPLE_DAYS} days by both")
    for _ in range(_SAMPLE_DAYS):
        ours.take_day()
    reach_watermark(ours.settings, DOMAIN, ours.reached_us, unmoved_s=_UNMOVED_S)
    peer.run(sample, window_s=0)
    theirs = ours.settings.model_copy(update={"online_store": peer.redis, "feast_project": _PEER})
    compared = 0
    for view in DOMAIN.views:
        keys = pl.read_parquet(sample / f"{view.online_name}.parquet").select(view.keys).unique().sort(view.keys)
        mine, given = (online_values(settings, view, keys) for settings in (ours.settings, theirs))
        wrong = [key for key, one, other in zip(keys.iter_rows(), mine, given, strict=True) if one != other]
        if wrong:
            raise ContractViolation(
                f"{view.qualified}: {len(wrong)} of {keys.height} entities differ, first {wrong[:3]}"
            )
        compared += keys.height
    say(f"both stores hold the same values of {compared:,} entities")
