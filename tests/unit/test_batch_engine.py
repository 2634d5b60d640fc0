"""A batch in the lake: the rows a replica would log, however it is cut, however often, and never half."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from headway.adapters.delta import Lake
from headway.batch import SUBJECT, Questions
from headway.batch_engine import Batch, Scored, score_in_process, write_batch
from headway.batch_reads import PIECE_EVENTS, Piece
from headway.batch_rows import answers_of, refused_table
from headway.clock import DAY_US, from_us
from headway.drift import Window
from headway.errors import ContractViolation
from headway.predictions import predictions_in
from headway.progress import Progress
from tests.batch_world import ASKED, as_replicas_answer, batch_in, lake_of, poison, rows_in, written
from tests.serving_world import product

TABLE = f"predictions.{product().name}"
# What differs from run to run, and what no answer carries.
OF_THE_RUN = ("run_id", "requested_at")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("batch")
    lake_of(root)
    return root


@pytest.fixture
def lake(filled: Path, tmp_path: Path) -> Lake:
    shutil.copytree(filled, tmp_path / "lake")
    return Lake(tmp_path / "lake")


def test_the_rows_are_those_that_replicas_log(lake: Lake) -> None:
    batch = batch_in(lake)

    done = written(batch)

    wanted = as_replicas_answer(batch).sort("receipt")
    found = rows_in(lake).select(wanted.columns)
    assert (done.rows, done.refused, found.height) == (wanted.height, [], wanted.height)
    assert wanted.height > 1500
    assert found.schema == wanted.schema
    assert found.drop("views").equals(wanted.drop("views"), null_equal=True)
    assert predictions_in(found) == predictions_in(wanted)
    assert found["probability"].n_unique() > 2


@pytest.mark.parametrize(("events", "values"), [(300, 10**6), (10**6, 2_000), (400, 1_500)])
def test_however_it_is_cut_the_rows_are_the_same(lake: Lake, events: int, values: int) -> None:
    batch = batch_in(lake)
    written(batch)
    whole = rows_in(lake)
    small = replace(batch, reads=replace(batch.reads, value_rows=values))

    done = written(small, limit=events)

    assert (done.pieces > 1) == (events < 10**6)
    assert rows_in(lake).equals(whole)


def test_a_repeat_leaves_the_same_rows_under_its_own_run(lake: Lake) -> None:
    written(batch_in(lake))
    once = rows_in(lake)

    written(batch_in(lake, run_id="run-2"))

    twice = rows_in(lake)
    assert twice.drop(OF_THE_RUN).equals(once.drop(OF_THE_RUN))
    assert twice["run_id"].unique().to_list() == ["run-2"]
    assert twice["receipt"].is_unique().all()


def test_another_version_and_another_interval_leave_rows_alone(lake: Lake) -> None:
    written(batch_in(lake))
    before = rows_in(lake)
    later = Window(from_us=ASKED.until_us, until_us=ASKED.until_us + DAY_US // 2)

    written(batch_in(lake, seed=8))
    written(batch_in(lake, interval=later))

    after = rows_in(lake)
    mine = (pl.col("model_version") == 7) & (pl.col("as_of") < from_us(ASKED.until_us))
    assert after.filter(mine).equals(before)
    assert after.filter(pl.col("model_version") == 8).height == before.height
    assert after.filter(pl.col("as_of") >= from_us(later.from_us)).height > 100


def test_a_batch_that_breaks_in_the_middle_changes_nothing(lake: Lake) -> None:
    written(batch_in(lake))
    before, version = rows_in(lake), lake.version(TABLE)

    def breaks(batch: Batch, pieces: Sequence[Piece], folder: Path, progress: Progress) -> Iterator[Scored]:
        yield from score_in_process(batch, pieces[:1], folder, progress)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_batch(batch_in(lake, run_id="run-2"), breaks, limit=PIECE_EVENTS)

    assert rows_in(lake).equals(before)
    assert lake.version(TABLE) == version
    assert not list((lake.root / ".staging").iterdir())


def test_a_poisoned_row_fails_alone_and_is_told_with_its_reason(lake: Lake) -> None:
    written(batch_in(lake))
    before = rows_in(lake)
    poison(lake, 3)

    done = written(batch_in(lake))

    assert rows_in(lake).equals(before)
    assert len(done.refused) == 3
    refused = lake.read(refused_table(product().name).name)
    assert refused[SUBJECT].str.ends_with("/poisoned").all()
    assert refused["reason"].str.starts_with("dest: got 'XXX'").all()
    assert refused.select("run_id", "model_version").unique().rows() == [("run-1", 7)]


def test_a_row_that_was_healed_is_answered_by_the_next_run(lake: Lake) -> None:
    poison(lake, 2)
    written(batch_in(lake))
    healed = pl.col(SUBJECT).str.ends_with("/poisoned")
    rows = lake.read("events", predicate=healed).with_columns(
        (pl.col("id") + "/2").alias("id"), dest=pl.lit("BOS"), offset=pl.lit(1, dtype=pl.Int64)
    )
    lake.append("events", rows)

    done = written(batch_in(lake, run_id="run-2"))

    assert done.refused == []
    assert lake.read(refused_table(product().name).name).is_empty()
    assert rows_in(lake)[SUBJECT].str.ends_with("/poisoned").sum() == 2


def test_what_is_loaded_meanwhile_does_not_show(lake: Lake) -> None:
    batch = batch_in(lake)
    written(batch)
    before = rows_in(lake)
    poison(lake, 2)

    assert written(batch).refused == []
    assert rows_in(lake).equals(before)


def test_an_interval_whose_features_nobody_made_is_refused(lake: Lake) -> None:
    beyond = Window(from_us=ASKED.until_us, until_us=ASKED.until_us + 20 * DAY_US)
    moved = lake.read("events", predicate=pl.col("type") == "weather.observed.v1").with_columns(
        pl.col("time") + timedelta(days=15), (pl.col("id") + "/later").alias("id")
    )
    lake.append("events", moved)

    with pytest.raises(ContractViolation, match=r"materialise the asset features/weather_v1"):
        batch_in(lake, interval=beyond)


def test_the_answers_of_a_run_can_be_read_back_without_the_rest(lake: Lake) -> None:
    batch = batch_in(lake)
    written(batch)
    written(batch_in(lake, seed=8))

    found = answers_of(lake, product().name, batch.run)

    assert found.sort("as_of", "probability").equals(
        rows_in(lake).filter(pl.col("model_version") == 7).select("as_of", "probability").sort("as_of", "probability")
    )


def test_chunks_hold_every_row_once() -> None:
    rows = pl.DataFrame({SUBJECT: list("abcde")})
    whole = Questions(rows=rows, features=rows.rename({SUBJECT: "x"}), views={"v": rows.rename({SUBJECT: "y"})})

    parts = list(whole.chunks(2))

    assert pl.concat(part.rows for part in parts).equals(rows)
    assert [part.views["v"]["y"].to_list() for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
