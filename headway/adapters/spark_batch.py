"""Batch scoring on Spark: the same pieces, the same function, the same files as in process, so the same bits.

Spark sends the numbers of pieces to Python workers and takes back, by Arrow, what became of each; rows never pass through
a JVM. A worker reads the lake and writes below it, so executors must see it where the driver sees it; the driver commits.
A task that runs twice writes its files twice, under the same names.

The model travels as its own text with its manifest, and each worker proves it as a replica does before it answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headway.batch import BatchRun
from headway.batch_engine import Batch, Score, Scored
from headway.batch_reads import BatchReads, Piece
from headway.errors import ContractViolation
from headway.manifest import Manifest
from headway.predictor import open_predictor
from headway.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


def spark_scoring(session: "SparkSession", model: bytes) -> Score:
    """Return the engine on a session; ``model`` is the text of the version that answers."""

    def score(batch: Batch, pieces: Sequence[Piece], folder: Path, progress: Progress) -> Iterator[Scored]:
        worker = PieceWorker(
            reads=batch.reads,
            run=batch.run,
            model=model,
            manifest=batch.predictor.manifest,
            pieces=tuple(pieces),
            folder=str(folder),
        )
        numbers = session.createDataFrame([(place,) for place in range(len(pieces))], "place int")
        made = numbers.repartitionById(len(pieces), "place").mapInArrow(worker, "scored binary")
        # All at once: an iterator over the rows would have one task run after another.
        for row in made.collect():
            scored = msgspec.json.decode(row["scored"], type=Scored)
            progress.add(scored.rows)
            yield scored

    return score


@dataclass(frozen=True, kw_only=True)
class PieceWorker:
    """What a Python worker does: numbers of pieces in, what became of each out."""

    reads: BatchReads
    run: BatchRun
    model: bytes
    manifest: Manifest
    pieces: tuple[Piece, ...]
    folder: str

    def __call__(self, batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        """Score the pieces named by the batches."""
        import pyarrow as pa

        places = [place for batch in batches for place in batch.column("place").to_pylist()]
        if not places:
            return
        batch = self._batch()
        with ThreadPoolExecutor(1) as pool:  # a task has one core
            for place in places:
                piece = self.pieces[place]
                scored = batch.score(piece, batch.ask(piece), Path(self.folder), pool=pool, done=_unheard)
                yield pa.RecordBatch.from_pydict({"scored": pa.array([msgspec.json.encode(scored)], pa.binary())})

    def _batch(self) -> Batch:
        from headway.adapters.lightgbm import LightGbm

        reference = self.reads.product.domain.load_reference()
        if reference.version != self.manifest.reference_version:
            raise ContractViolation(
                f"batch on Spark: this worker has reference data {reference.version}, the model wants "
                f"{self.manifest.reference_version}; give executors the image of the driver"
            )
        predictor = open_predictor(self.model, self.manifest, load=LightGbm().load)
        return Batch(reads=self.reads, run=self.run, predictor=predictor, reference=reference)


def _unheard(_rows: int) -> None:
    """Nobody listens inside a worker; the driver counts pieces."""
