"""LightGBM's own predict as P10's peer: ``VECTORS MODEL OUT WINDOW_S``, all rows in memory before anything is measured.

Its best documented form: the native booster, a contiguous float64 array, two threads (``num_threads``). Nothing is read
from tables, nothing explained, nothing written but the scores of the first pass, which are compared before measuring.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.backfill_work import measure

_THREADS = 2


def main(vectors: Path, model: Path, out: Path, window_s: float) -> None:
    """Predict all rows, again and again until the window is over."""
    import lightgbm

    rows = np.load(vectors)
    booster = lightgbm.Booster(model_file=str(model))

    def one_pass(number: int) -> int:
        scores = np.asarray(booster.predict(rows, num_threads=_THREADS))
        if not number:
            np.save(out / "scores.npy", scores)
        return len(scores)

    measure(one_pass, window_s=window_s)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
