"""Answers of every path in one lake: a day of January in a batch of each engine; the first's rows asked by the other paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from headway.adapters.delta import Lake
from headway.adapters.memory import MemoryPublisher
from headway.batch_engine import Engine
from headway.clock import DAY_US
from headway.drift import Window
from headway.features.changelog import changelog_table
from headway.predictions import Source, predictions_in
from headway.receipt_view import receipt_facts
from headway.settings import Settings
from orchestration.asking import Asking
from orchestration.request_paths import ask_replica, over_grpc, over_http
from orchestration.scoring_paths import PATHS, Answers, check_paths
from orchestration.scoring_rows import rows_of
from orchestration.stream_paths import ask_scorer
from serving.receipt_command import sampled
from serving.receipts import ReceiptDesk
from tests.batch_world import ASKED, batch_in, lake_of, model_of, written
from tests.receipt_world import Installation
from tests.serving_world import product

SOURCES: Mapping[Engine, Source] = {"process": "batch", "spark": "spark"}
# More than a fifth of a thousand.
ROWS = 260
VERSION = 1
# The view whose rows the feature job made, by the revision it gave them.
STREAMED, REVISION = "origin_delay.v1", 42


def with_spark() -> dict[str, Any]:
    """Compare all paths below the state of the settings, and compute a thousand receipts again; for a process."""
    return _compared(Settings().state, ["process", "spark"], paths=PATHS, receipts=1_000)


def in_this_process(state: Path) -> dict[str, Any]:
    """Compare all paths but Spark, and compute a hundred receipts again."""
    paths = {name: path for name, path in PATHS.items() if name != "spark"}
    return _compared(state, ["process"], paths=paths, receipts=100)


def _compared(state: Path, engines: Sequence[Engine], *, paths: Mapping[str, Answers], receipts: int) -> dict[str, Any]:
    lake = lake_of(state / "lake")
    _told_by_the_job(lake)
    for day, engine in enumerate(engines):
        from_us = ASKED.from_us + day * DAY_US
        interval = Window(from_us=from_us, until_us=from_us + DAY_US)
        batch = batch_in(lake, interval=interval, run_id=engine, seed=VERSION, source=SOURCES[engine])
        written(batch, engine=engine, state=state)
    asking = _asking(lake)
    report = check_paths(asking, paths)
    place = Installation(state / "lake", model=model_of(VERSION))
    for ask in (over_http, over_grpc):
        ask_replica(asking, ask, log=place.broker)
    MemoryPublisher(place.broker).publish(ask_scorer(asking)[0])
    place.load()
    sample = sampled(place.desk(), product().name, receipts, seed=1)
    return {
        "parity": {
            "paths": list(report.paths),
            "rows": report.rows,
            "held": report.held,
            "first": [each.told for each in report.mismatches[:5]],
        },
        "sample": {"holds": sample.holds, **sample.facts},
        "origins": {SOURCES[engine]: _origin(place.desk(), lake, SOURCES[engine]) for engine in engines},
    }


def _told_by_the_job(lake: Lake) -> None:
    """Tell the rows of one view again, as the loader does when the feature job made them."""
    table = changelog_table(product().feature_views[STREAMED]).name
    lake.append(table, lake.read(table).with_columns(revision=pl.lit(REVISION, dtype=pl.Int64)))


def _asking(lake: Lake) -> Asking:
    model = model_of(VERSION)
    rows = lake.read(f"predictions.{product().name}", predicate=pl.col("source") == "batch").sort("receipt")
    return Asking(
        product=product(),
        reference=product().domain.load_reference(),
        version=VERSION,
        model=model.text,
        manifest=model.manifest,
        rows=rows_of(product(), predictions_in(rows), at_most=ROWS),
    )


def _origin(desk: ReceiptDesk, lake: Lake, source: Source) -> dict[str, Any]:
    """What a batch row's receipt says of the streamed view's row."""
    rows = lake.read(f"predictions.{product().name}", predicate=pl.col("source") == source).sort("receipt")
    views = receipt_facts(desk.receipt(rows["receipt"][0]))["views"]
    found: dict[str, Any] = next(view for view in views if view["view"] == STREAMED)
    return found
