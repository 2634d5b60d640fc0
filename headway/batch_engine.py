"""The engines of batch scoring: this process, or Spark. They run the same function on the same pieces, so it is about size.

A piece is scored into files beside the tables; when all pieces are done, one commit puts the files in the place of what a
batch of this model said of the interval before. So a repeat leaves the same rows, and nobody sees half of them.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import polars as pl

from headway.batch import BatchRun, Questions, Refused, answer, question
from headway.batch_reads import BatchReads, Piece
from headway.batch_rows import answered_rows, refused_rows, refused_table, replaced
from headway.clock import format_us
from headway.contracts import Reference
from headway.errors import ContractViolation
from headway.features.slices import months
from headway.predictions import predictions_table
from headway.predictor import Predictor
from headway.progress import Progress

if TYPE_CHECKING:
    from headway.settings import Settings

Engine = Literal["process", "spark"]
_UNIQUE = ("receipt", "subject", "request", "views")
# Of one file and one predict: 40 MB with the texts that explain each row. Fewer make more files.
_FILE_ROWS = 32_768


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a piece: its rows, in files by month, and the rows that were refused."""

    rows: int
    files: tuple[tuple[str, str], ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch: what it reads, who answers, where its rows go."""

    reads: BatchReads
    run: BatchRun
    predictor: Predictor
    reference: Reference

    def ask(self, piece: Piece) -> Questions:
        """Return a piece's questions with everything the model reads."""
        product = self.reads.product
        asked = question(product, self.reads.asked(piece), self.reference)
        views = {name: self.reads.values(name, asked.rows, piece.window) for name in product.feature_views}
        return replace(asked, views=views)

    def score(
        self, piece: Piece, asked: Questions, folder: Path, *, pool: Executor, done: Callable[[int], None]
    ) -> Scored:
        """Write the answers of a piece into files; ``done`` hears of rows as they are written."""

        def write(place: int, chunk: Questions) -> list[tuple[str, str]]:
            scores = answer(self.reads.product, chunk, predictor=self.predictor, reference=self.reference)
            rows = answered_rows(
                self.reads.product, chunk, scores, run=self.run, reference_version=self.reference.version
            )
            files = write_months(rows, folder, name=f"{piece.number:06}-{place:04}")
            done(rows.height)
            return files

        written = [pool.submit(write, place, chunk) for place, chunk in enumerate(asked.chunks(_FILE_ROWS))]
        files = tuple(file for each in written for file in each.result())
        return Scored(rows=asked.rows.height, files=files, refused=tuple(asked.refused))


# Scores all pieces into files below the folder.
Score = Callable[[Batch, Sequence[Piece], Path, Progress], Iterator[Scored]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a batch left in the lake."""

    rows: int
    refused: Sequence[Refused]
    pieces: int


@contextmanager
def batch_engine(name: Engine, settings: "Settings", *, model: bytes) -> Iterator[Score]:
    """Give an engine; a Spark session is started here and ends with the block. ``model`` is the text of who answers.

    Raises:
        ContractViolation: the sizes of the session break a rule of Spark's memory.
        PermanentFailure: Spark does not start.
    """
    if name == "process":
        yield score_in_process
        return
    from headway.adapters.spark import spark_session
    from headway.adapters.spark_batch import spark_scoring
    from headway.spark_settings import read_spark_settings

    with spark_session("batch scoring", settings, read_spark_settings({})) as running:
        yield spark_scoring(running.session, model)


def score_in_process(batch: Batch, pieces: Sequence[Piece], folder: Path, progress: Progress) -> Iterator[Scored]:
    """Score the pieces one after another, on all cores; the next one is read meanwhile, so memory holds two."""
    with (
        ThreadPoolExecutor(1, thread_name_prefix="ask") as reader,
        ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="score") as pool,
    ):
        ahead = deque(reader.submit(batch.ask, piece) for piece in pieces[:1])
        for place, piece in enumerate(pieces, 1):
            asked = ahead.popleft().result()
            ahead.extend(reader.submit(batch.ask, following) for following in pieces[place : place + 1])
            yield batch.score(piece, asked, folder, pool=pool, done=progress.add)


def write_batch(batch: Batch, score: Score, *, limit: int, say: Callable[[str], None] | None = None) -> Written:
    """Make the lake's batch rows of this model and interval exactly the answers; see the module.

    How far it is, ``say`` is told now and then, else whoever looks at stderr.

    Raises:
        ContractViolation: the product's functions break their declarations, or bulk and request differ.
        Overtaken: another batch of the model and interval came first. Nothing has changed; repeat.
        PermanentFailure: nearly every row is refused.
    """
    from headway.adapters.delta_files import replace_rows, staging

    lake, run, product = batch.reads.lake, batch.run, batch.reads.product
    table = predictions_table(product.name)
    lake.create(table)
    pieces = list(batch.reads.pieces(run.interval, limit=limit))
    progress = Progress(f"{product.name} v{run.model.version}", sum(piece.events for piece in pieces), say=say)
    with staging(lake) as folder:
        scored = list(score(batch, pieces, folder, progress))
        files = [(month, Path(file)) for each in scored for month, file in each.files]
        named = [month for month, _ in months(run.interval)]
        rows = replace_rows(lake, table.name, files, going=replaced(run), months=named)
    progress.end()
    if rows != sum(each.rows for each in scored):
        raise ContractViolation(
            f"lake table {table.name}: {rows:,} rows came, {sum(e.rows for e in scored):,} were sent"
        )
    refused = [each for one in scored for each in one.refused]
    _replace_refused(batch, refused)
    return Written(rows=rows, refused=refused, pieces=len(pieces))


def write_months(rows: pl.DataFrame, folder: Path, *, name: str) -> list[tuple[str, str]]:
    """Write rows of the table of predictions to a file a month; return month and file of each."""
    from headway.adapters.delta_files import write_file

    required, written = predictions_table("").required, []
    by_month = rows.partition_by("month", include_key=False, as_dict=True)
    for (month,), some in sorted(by_month.items(), key=lambda item: item[0]):
        file = folder / str(month) / f"{name}.parquet"
        write_file(some, file, required=required, unique=_UNIQUE)
        written.append((str(month), str(file)))
    return written


def _replace_refused(batch: Batch, refused: Sequence[Refused]) -> None:
    lake, run, product = batch.reads.lake, batch.run, batch.reads.product
    table = refused_table(product.name)
    mine = (
        f"model_digest = '{run.model.digest}' AND as_of >= '{format_us(run.interval.from_us)}' "
        f"AND as_of < '{format_us(run.interval.until_us)}'"
    )
    if refused:
        lake.create(table)
        lake.overwrite_partition(table.name, refused_rows(product, refused, run=run), mine)
    elif lake.exists(table.name):
        lake.delete(table.name, mine)
