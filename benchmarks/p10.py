"""Batch scoring, from lake to lake: rows/s and peak memory beside LightGBM's own predict, in process and on Spark.

In go events and changelogs; out come rows that explain themselves: request, every view's values, receipt, probability.
LightGBM only predicts, two threads, the same rows' vectors in memory. Scores are compared bit for bit before anything is
measured. More rows are the same year again, 53 weeks later each time.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import children
from benchmarks.flights_asked import KEYS, VECTORS, Asked, make_asked, scores_by_request, write_vectors
from benchmarks.frame import Comparison, Contestant, Plan, Sample, Target, compare
from benchmarks.passes import Passes
from benchmarks.report import outcome
from headway.adapters.delta import Lake
from headway.batch import SUBJECT
from headway.commands import Outcome, Say
from headway.errors import ContractViolation
from headway.manifest import MODEL_FILE
from headway.predictions import predictions_table
from headway.settings import Settings, project_root
from headway.training import AS_OF
from products.catalogue import find_product

# A year is 0.33 million flights: 5 million rows.
YEARS = (1, 15)
MOST_MIB = 1024
# A JVM and its workers have sizes of their own (docs/spark.md); what they take is shown, not limited here.
_SPARK_MIB = 8 * 1024
PRODUCT = "flight_delay"
HEADWAY, SPARK, LIGHTGBM = "Headway, in process", "Headway, Spark local[2]", "LightGBM, 2 threads, in memory"


def run(plan: Plan, say: Say) -> Outcome:
    """Prove that all give the same scores and compare on the year; then both engines once on 5 million rows."""
    with tempfile.TemporaryDirectory(prefix="headway-p10-") as name:
        folder = Path(name)
        few, many = (make_asked(folder, find_product(PRODUCT), years, say, model=folder / "model") for years in YEARS)
        year = compare_year(folder, few, plan, say)
        grown, engines = compare_engines(folder, few, many, say)
    return outcome("P10", [year, engines, grown])


def compare_year(folder: Path, small: Asked, plan: Plan, say: Say) -> Comparison:
    """Compare a batch of the year with LightGBM's own predict of its vectors, after a look at every score."""
    ours, spark, peer = contestants(folder, small)
    check_same_scores(ours, (spark, peer), small, folder / VECTORS, say)
    return compare(
        f"A batch of {small.rows:,} rows",
        unit="rows/s",
        ours=Contestant(name=ours.name, measure=ours.measure),
        peers=[Contestant(name=each.name, measure=each.measure) for each in (peer, spark)],
        targets=[Target(peer=LIGHTGBM, at_least=1.0, goal=2.0)],
        plan=plan,
        say=say,
    )


def compare_engines(folder: Path, few: Asked, many: Asked, say: Say) -> tuple[Comparison, Comparison]:
    """Compare one pass over many rows with one over few, and with Spark's, score by score too."""
    found: dict[str, pl.DataFrame] = {}

    def once(job: Passes) -> Contestant:
        def measure(seconds: float) -> Sample:
            if not seconds:
                return Sample(value=0.0)
            with job.running(0.0) as (said, out):
                found[job.name] = _in_lake(out)
                return job.by_processor(said)

        return Contestant(name=job.name, measure=measure)

    ours, spark, small = (
        _engine(f"{HEADWAY}, {many.rows:,}", "process", folder, many),
        _engine(f"{SPARK}, {many.rows:,}", "spark", folder, many),
        _engine(f"{HEADWAY}, {few.rows:,}", "process", folder, few),
    )
    grown = compare(
        f"One pass over {many.rows:,} rows, at most {MOST_MIB:,} MiB",
        unit="rows/CPU-s",
        ours=once(ours),
        peers=[once(spark), once(small)],
        targets=[Target(peer=small.name, at_least=0.9)],
        plan=Plan(windows=1, warmup_s=0.0, redone_at_most=0),
        say=say,
    )
    _compare(spark.name, found[spark.name], found[ours.name])
    say(f"both engines give the same {many.rows:,} scores, bit for bit")
    engines = Comparison(
        title=f"Spark beside this process, {many.rows:,} rows",
        unit=grown.unit,
        ours=grown.peers[0],
        peers=[grown.ours],
        targets=[Target(peer=ours.name, at_least=0.5)],
    )
    return grown, engines


def contestants(folder: Path, asked: Asked) -> tuple[Passes, Passes, Passes]:
    """Return the two engines and LightGBM, which is given the rows' vectors as a file."""
    model = folder / "model"
    write_vectors(find_product(PRODUCT), asked, model, folder)
    command = children.module(
        "benchmarks.peers.lightgbm_predict", folder / VECTORS, model / MODEL_FILE, "{out}", "{window_s}"
    )
    peer = _passes(LIGHTGBM, command, folder, asked, most_mib=_SPARK_MIB)
    return _engine(HEADWAY, "process", folder, asked), _engine(SPARK, "spark", folder, asked), peer


def check_same_scores(ours: Passes, others: Sequence[Passes], asked: Asked, vectors: Path, say: Say) -> None:
    """Let everybody score once, ask every row as a request is asked, and compare every bit with ours.

    Raises:
        ContractViolation: a row is missing or scores otherwise.
    """
    with ours.running(0.0) as (_, out):
        wanted = _in_lake(out)
    say(f"asking {asked.rows:,} rows as requests")
    _compare("requests", scores_by_request(find_product(PRODUCT), asked, vectors.with_name("model")), wanted)
    keys = pl.read_parquet(vectors.with_name(KEYS))
    for job in others:
        say(f"{job.name}: one pass, to compare")
        with job.running(0.0) as (_, out):
            if (scores := out / "scores.npy").exists():
                found = keys.with_columns(probability=pl.Series(np.load(scores)))
            else:
                found = _in_lake(out)
        _compare(job.name, found, wanted)
    say(f"requests and all contestants give the same {wanted.height:,} scores, bit for bit")


def _compare(name: str, found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    if not found.sort(AS_OF, SUBJECT).equals(wanted):
        raise ContractViolation(f"{name}: its {found.height:,} scores are not the {wanted.height:,} of {HEADWAY}")


def _engine(name: str, engine: str, folder: Path, asked: Asked) -> Passes:
    interval = asked.interval
    arguments = (asked.root, engine, "{out}", interval.from_us, interval.until_us, folder / "model", "{window_s}")
    most_mib = MOST_MIB if engine == "process" else _SPARK_MIB
    return _passes(name, children.module("benchmarks.batch_job", *arguments), folder, asked, most_mib=most_mib)


def _passes(name: str, command: Sequence[str], folder: Path, asked: Asked, *, most_mib: float) -> Passes:
    settings: Mapping[str, str] = Settings(state=folder / "state").environment()
    env = {**os.environ, **settings, "PYTHONPATH": str(project_root())}
    return Passes(
        name=name, command=tuple(command), env=env, folder=folder, count=asked.rows, of="row", most_mib=most_mib
    )


def _in_lake(out: Path) -> pl.DataFrame:
    rows = Lake(out / "lake-0").scan(predictions_table(PRODUCT).name)
    as_of_us = pl.col("as_of").dt.timestamp("us").alias(AS_OF)
    return rows.select(SUBJECT, as_of_us, "probability").collect().sort(AS_OF, SUBJECT)
