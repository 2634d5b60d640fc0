"""The bootstrap of a running plane: which jobs must stand still, where history ends, and what may not fall between (S11).

`streaming.bootstrap` writes one view; this decides when that may be, and refuses before anything is written.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.kafka_backlog import committed_offsets
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.kafka_reader import KafkaReader
from headway.adapters.kafka_topics import admin_client, group_members
from headway.adapters.redis_online import OnlineWriter
from headway.adapters.redis_views import OnlineViews
from headway.clock import format_us, from_us, monotonic_s, to_us
from headway.commands import Say
from headway.contracts import Domain
from headway.errors import PermanentFailure, TransientFailure
from headway.features.changelog import changelog_table
from headway.features.definitions import FeatureView
from headway.features.wire import decode_row
from headway.ports import LogReader, TopicPartition
from headway.settings import Settings
from headway.ticks import is_watermark
from headway.topics import EVENTS_ENRICHED, FEATURES_INPUT, features_topic
from streaming.bootstrap import began_from_nothing, bootstrap_view
from streaming.cut import check_cut, check_loaded, check_whole_past, cut_us
from streaming.jobs import AGGREGATE, FAN_OUT, LAKE_LOADER, group_name

# The loader writes every 3 s; longer, and it does not run.
_LOADED_WITHIN_S = 30.0
_POLL_S = 0.2


def bootstrap(
    settings: Settings,
    domain: Domain,
    *,
    until_us: int | None,
    say: Say,
    views: tuple[FeatureView, ...] | None = None,
) -> list[dict[str, object]]:
    """Bootstrap views of the domain from the lake, all of them unless some are given.

    Args:
        settings: where the plane is.
        domain: whose views.
        until_us: T0; None cuts at the newest event of the lake, or at the watermark where that is newer.
        say: told each view.
        views: new versions beside old ones. Then stage 1 must stand still too: it may run the code from before them.

    Raises:
        PermanentFailure: a job runs that must not, or `streaming.cut` refuses the cut; nothing is written then.
        TransientFailure: the lake has not caught up with the feature job, or a store is away; repeat.
    """
    check_stopped(settings, domain, AGGREGATE, what="bootstrap", why="would restore half a state")
    if views is not None:
        check_stopped(settings, domain, FAN_OUT, what="bootstrap", why="may run the code from before the new version")
    lake, chosen = Lake(Path(settings.lake)), domain.views if views is None else views
    passed = _passed(settings, domain, whole=views is None)
    reader = KafkaReader(bootstrap=settings.kafka_bootstrap)
    publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
    store = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    marks = OnlineViews(f"redis://{settings.online_store}", settings.feast_project)
    try:
        if until_us is None:
            until_us = _newest_cut(lake, store, domain)
            say(f"T0 is {format_us(until_us)}")
        events = lake.read("events", predicate=pl.col("time") <= pl.lit(from_us(until_us)))
        check_cut(_after(lake, until_us), passed, until_us=until_us)
        for view in chosen:
            _check_past(view, lake, events, reader)
        written = []
        for view in chosen:
            done = bootstrap_view(
                view,
                events,
                until_us=until_us,
                restore=reader.read_compacted,
                publisher=publisher,
                online=store,
                marks=marks,
            )
            say(f"{done.view}: {done.state_records} state records, {done.online_rows} online rows")
            written.append(asdict(done))
        return written
    finally:
        publisher.close()
        reader.close()
        store.close()
        marks.close()


def check_stopped(settings: Settings, domain: Domain, job: str, *, what: str, why: str) -> None:
    """Refuse to go on while a job runs.

    Raises:
        PermanentFailure: it has members in its group; says how to stop it.
    """
    running = group_members(admin_client(settings.kafka_bootstrap), group_name(domain, job))
    if running:
        raise PermanentFailure(
            f"features {what}: {job} runs ({running} members in its group) and {why}. Stop it first, "
            f"here with `headway pause {job}`, and start it afterwards with `headway resume {job}`"
        )


def _passed(settings: Settings, domain: Domain, *, whole: bool) -> Mapping[TopicPartition, int]:
    """Return up to where stage 1 has read, once the lake has it too; nothing where stage 2 begins at its beginning."""
    admin = admin_client(settings.kafka_bootstrap)
    if whole and not any(committed_offsets(admin, group_name(domain, AGGREGATE), [FEATURES_INPUT]).values()):
        return {}
    passed = committed_offsets(admin, group_name(domain, FAN_OUT), [EVENTS_ENRICHED])
    deadline_s = monotonic_s() + _LOADED_WITHIN_S
    while True:
        try:
            check_loaded(passed, committed_offsets(admin, group_name(domain, LAKE_LOADER), [EVENTS_ENRICHED]))
        except TransientFailure:
            if monotonic_s() > deadline_s:
                raise
            time.sleep(_POLL_S)
        else:
            return passed


def _newest_cut(lake: Lake, store: OnlineWriter, domain: Domain) -> int:
    newest = lake.scan("events").select(pl.col("time").max()).collect().item()
    watermarks_us = store.read_watermarks_us([view.online_name for view in domain.views])
    return cut_us(None if newest is None else to_us(newest), watermarks_us.values())


def _after(lake: Lake, until_us: int) -> pl.DataFrame:
    place = ("time", "topic", "partition", "offset")
    return lake.read("events", columns=place, predicate=pl.col("time") > pl.lit(from_us(until_us)))


def _check_past(view: FeatureView, lake: Lake, events: pl.DataFrame, log: LogReader) -> None:
    if not began_from_nothing(view, log.read_compacted):
        return
    rows = (each for each in log.read(features_topic(view.qualified)) if not is_watermark(each))
    instants = [decode_row(each.value or b"").event_time_us for each in rows]
    table = changelog_table(view).name
    if lake.exists(table):  # it keeps what the log no longer has, and lacks what the loader has not read yet
        streamed = lake.scan(table).filter(pl.col("source") == "stream")
        instants += map(to_us, streamed.select(pl.col("event_timestamp").min()).collect().to_series().drop_nulls())
    if instants:
        check_whole_past(view, events, first_row_us=min(instants))
