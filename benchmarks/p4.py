"""Predict: one row, and a batch of 4,096, beside LightGBM's own ``Booster.predict`` of the same model.

The same rows in the same order, never one twice in a row; that all give the same bits is checked first. The batch's peer
runs on one thread, as ours does: a replica answers many, and a stream or a partition has a processor of its own.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.flights_model import write_model
from benchmarks.frame import Contestant, Plan, Sample, Target, compare
from benchmarks.report import outcome
from headway.adapters.lightgbm import LightGbmScorer
from headway.clock import monotonic_s
from headway.commands import Outcome, Say
from headway.errors import ContractViolation
from headway.evaluation import Floats

if TYPE_CHECKING:
    import lightgbm

BATCH = 4_096
_ROWS = 2_000
_BETWEEN_LOOKS = 100


def run(plan: Plan, say: Say) -> Outcome:
    """Check that all score the same, then compare."""
    import lightgbm

    with tempfile.TemporaryDirectory(prefix="headway-p4-") as name:
        say("a model of 300 trees")
        model = write_model(Path(name))
    scorer = LightGbmScorer(model.text)
    booster = lightgbm.Booster(model_str=model.text.decode())
    singles = [np.ascontiguousarray(row) for row in model.rows[:_ROWS]]
    batches = [np.ascontiguousarray(model.rows[place : place + BATCH]) for place in range(0, 8 * BATCH, BATCH)]
    _check_equal(scorer, booster, singles, batches, say)
    row = compare(
        "One row",
        unit="rows/s",
        ours=Contestant(name="headway", measure=partial(_rows, scorer.score_row, singles)),
        peers=[
            Contestant(name="Booster.predict", measure=partial(_rows, partial(_one, booster), singles)),
        ],
        targets=[Target(peer="Booster.predict", at_least=1.8)],
        plan=plan,
        say=say,
    )
    batch = compare(
        f"Batches of {BATCH:,}",
        unit="rows/s",
        ours=Contestant(name="headway, batches", measure=partial(_batches, scorer.score, batches)),
        peers=[
            Contestant(
                name=f"Booster.predict, {threads}", measure=partial(_batches, partial(_many, booster, n), batches)
            )
            for n, threads in ((1, "1 thread"), (2, "2 threads"))
        ],
        targets=[Target(peer="Booster.predict, 1 thread", at_least=1.4)],
        plan=plan,
        say=say,
    )
    return outcome("P4", [row, batch])


def _one(booster: "lightgbm.Booster", row: Floats) -> object:
    return booster.predict(row.reshape(1, -1), num_threads=1)


def _many(booster: "lightgbm.Booster", threads: int, rows: Floats) -> object:
    return booster.predict(rows, num_threads=threads)


def _rows(predict: Callable[[Floats], object], rows: list[Floats], seconds: float) -> Sample:
    began_s, done = monotonic_s(), 0
    while (spent_s := monotonic_s() - began_s) < seconds:
        for place in range(done, done + _BETWEEN_LOOKS):
            predict(rows[place % len(rows)])
        done += _BETWEEN_LOOKS
    return Sample(value=done / spent_s, facts={"us_per_row": spent_s / done * 1e6})


def _batches(predict: Callable[[Floats], object], batches: list[Floats], seconds: float) -> Sample:
    began_s, done = monotonic_s(), 0
    while (spent_s := monotonic_s() - began_s) < seconds:
        predict(batches[done % len(batches)])
        done += 1
    return Sample(value=done * BATCH / spent_s, facts={"us_per_row": spent_s / (done * BATCH) * 1e6})


def _check_equal(
    scorer: LightGbmScorer, booster: "lightgbm.Booster", singles: list[Floats], batches: list[Floats], say: Say
) -> None:
    wanted = np.asarray(booster.predict(np.array(singles), num_threads=1))
    found = np.array([scorer.score_row(row) for row in singles])
    bulk = np.concatenate([scorer.score(rows) for rows in batches])
    bulk_wanted = np.asarray(booster.predict(np.concatenate(batches), num_threads=1))
    if found.tobytes() != wanted.tobytes() or bulk.tobytes() != bulk_wanted.tobytes():
        raise ContractViolation("P4: ours and Booster.predict differ; look at tests/contract/test_predictor.py")
    say(f"all score {len(singles):,} rows and {len(bulk):,} in batches to the same bits")
