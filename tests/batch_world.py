"""A few days of January in a lake, a small model, and what a replica would answer to each row of a batch."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl

from domains.flights.contracts import SCHEDULED
from domains.flights.domain import DOMAIN
from headway.adapters.delta import Lake
from headway.backfill import backfill
from headway.backfill_engine import Engine
from headway.batch import SUBJECT, BatchRun, asked_in, request_fields
from headway.batch_engine import Batch, Written, batch_engine, write_batch
from headway.batch_reads import AROUND_US, PIECE_EVENTS, BatchReads, around
from headway.clock import HOUR_US, from_us, to_us
from headway.drift import Window
from headway.features.offline import REVISION, ROW_TIME
from headway.lake import as_table, events_table
from headway.predictions import ModelId, Prediction, ServedView, Source
from headway.product import Product
from headway.settings import Settings
from headway.training import AS_OF, values_from_changelog
from tests.serving_world import Trained, product, trained
from tests.unlogged import unlogged_rows

FROM, UNTIL = (to_us(datetime(2013, 1, day, 5, tzinfo=UTC)) for day in (1, 7))
ASKED = Window(from_us=to_us(datetime(2013, 1, 3, 5, tzinfo=UTC)), until_us=to_us(datetime(2013, 1, 5, 5, tzinfo=UTC)))


def model_of(seed: int) -> Trained:
    """A model that tells the hours of a day apart."""
    return trained(seed, centre=8.0, spread=8.0)


def lake_of(root: Path) -> Lake:
    """The events of six days, and the changelogs of all views."""
    lake, window = Lake(root), Window(from_us=FROM, until_us=UNTIL)
    assert DOMAIN.load_history is not None
    events = DOMAIN.load_history().events_between(FROM, UNTIL)
    lake.bulk_load(DOMAIN, events, start_us=FROM, end_us=UNTIL)
    for view in DOMAIN.views:
        backfill(lake, view, window, mode="as_served")
    return lake


def poison(lake: Lake, number: int) -> None:
    """Flights that nobody can fly, beside those that are there."""
    events = lake.read("events", predicate=pl.col("type") == SCHEDULED).filter(
        pl.col("sched_dep").is_between(from_us(ASKED.from_us + 2 * HOUR_US), from_us(ASKED.until_us))
    )
    rows = events.head(number).with_columns(
        (pl.col("id") + "/poisoned").alias("id"),
        (pl.col(SUBJECT) + "/poisoned").alias(SUBJECT),
        dest=pl.lit("XXX"),
    )
    lake.append("events", as_table(rows, events_table(product().domain)))


def batch_in(
    lake: Lake,
    *,
    interval: Window = ASKED,
    run_id: str = "run-1",
    asked_of: Product | None = None,
    seed: int = 7,
    source: Source = "batch",
) -> Batch:
    chosen, predictor = asked_of or product(), model_of(seed).predictor()
    return Batch(
        reads=BatchReads.pinned(lake, chosen, interval),
        run=BatchRun(
            run_id=run_id,
            model=ModelId(name=chosen.name, version=seed, digest=predictor.digest),
            interval=interval,
            known_at_us=UNTIL,
            started_us=UNTIL + 1,
            source=source,
            commit="c0de",
        ),
        predictor=predictor,
        reference=chosen.domain.load_reference(),
    )


def written(
    batch: Batch, *, engine: Engine = "process", limit: int = PIECE_EVENTS, state: Path | None = None
) -> Written:
    settings = Settings() if state is None else Settings(state=state)
    with batch_engine(engine, settings, model=model_of(batch.run.model.version).text) as score:
        return write_batch(batch, score, limit=limit)


def on_both_engines() -> dict[str, object]:
    """Score the lake of the settings in process and on Spark, there in many pieces, and compare; for another process."""
    settings = Settings()
    lake = Lake(settings.state / "lake")
    written(batch_in(lake), state=settings.state)
    once = rows_in(lake)
    done = written(batch_in(lake, run_id="run-2", source="spark"), engine="spark", limit=400, state=settings.state)
    twice = rows_in(lake)
    return {
        "rows": done.rows,
        "pieces": done.pieces,
        "refused": [each.reason for each in done.refused],
        "equal": twice.drop("run_id", "source").equals(once.drop("run_id", "source")),
        "runs": twice["run_id"].unique().to_list(),
        "scores": twice["probability"].n_unique(),
    }


def rows_in(lake: Lake) -> pl.DataFrame:
    return lake.read(f"predictions.{product().name}").sort("receipt")


def as_replicas_answer(batch: Batch) -> pl.DataFrame:
    """The table's rows, made as the replica makes them: one request after another, by its own code."""
    chosen, lake, run = batch.reads.product, batch.reads.lake, batch.run
    events = lake.read("events", predicate=around(run.interval, AROUND_US, column="time"))
    asked = asked_in(chosen, events, run.interval)
    tables = {name: lake.read(f"features.{name}") for name in chosen.feature_views}
    values = {
        name: values_from_changelog(tables)(view, asked.select(*view.keys, AS_OF)).select(
            *chosen.use(name).features, ROW_TIME, REVISION
        )
        for name, view in chosen.feature_views.items()
    }
    answers = (
        _answer(batch, fields, as_of_us, {name: given.row(place) for name, given in values.items()})
        for place, (fields, as_of_us) in enumerate(_fields(chosen, asked))
    )
    return unlogged_rows(answers).with_columns(run.receipts(asked[SUBJECT]), asked[SUBJECT], run_id=pl.lit(run.run_id))


def _fields(chosen: Product, asked: pl.DataFrame) -> Iterator[tuple[dict[str, object], int]]:
    rows = asked.select(request_fields(chosen)).iter_rows(named=True)
    return zip(rows, asked[AS_OF], strict=True)


def _answer(
    batch: Batch, fields: dict[str, object], as_of_us: int, values: dict[str, tuple[float | None, ...]]
) -> Prediction:
    chosen, run = batch.reads.product, batch.run
    request = chosen.request_from(fields)
    views = tuple(
        ServedView(
            view=name,
            key=chosen.entity(name, request),
            features=chosen.use(name).features,
            values=chosen.empty_rows[name] if chosen.entity(name, request) is None else values[name][:-2],
            row_time_us=None if chosen.entity(name, request) is None else values[name][-2],  # type: ignore[arg-type]
            watermark_us=run.known_at_us,
            revision=None if chosen.entity(name, request) is None else values[name][-1],  # type: ignore[arg-type]
        )
        for name in chosen.feature_views
    )
    features = chosen.compute_request_features(request, batch.reference, as_of_us)
    single = batch.predictor.predict(features, {view.view: view.values for view in views}, as_of_us)
    return Prediction(
        receipt="",
        product=chosen.name,
        as_of_us=as_of_us,
        requested_at_us=run.started_us,
        model=run.model,
        reference_version=batch.reference.version,
        request=msgspec.Raw(msgspec.json.encode(request)),
        views=views,
        probability=single.score,
        degraded=False,
        stale=(),
        source=run.source,
        commit=run.commit,
    )
