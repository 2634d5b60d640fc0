"""LightGBM: fitting through its Python package, scoring through its C interface.

Scoring loads the native library alone (4 MB) and not the package, which would pull pandas and scikit-learn into every
replica, and uses the single-row call that prepares its buffers once, over a vector and a result whose addresses are
taken once as well: asking numpy for an address costs as much as a tenth of the trees. 9 us a row where ``Booster.predict``
takes 35 (200 trees, 44 columns). A contract test holds both to equal bits. Sources: ``include/LightGBM/c_api.h`` of LightGBM 4.

What bites: categories are passed as codes, never as pandas categories, which a booster silently remembers.
"""

import ctypes
import importlib.util
import sys
import threading
import weakref
from pathlib import Path

import numpy as np

from headway.errors import ContractViolation, PermanentFailure
from headway.evaluation import Floats
from headway.product import ModelSpec
from headway.rolling import row_weights
from headway.training import Matrix

_FLOAT64 = 1  # C_API_DTYPE_FLOAT64
_DOUBLES = np.dtype(np.float64)
_ROW_MAJOR = 1
_PROBABILITY = 0  # C_API_PREDICT_NORMAL: after the sigmoid
_ALL_TREES = -1
# One thread: a replica answers many small requests, and more threads would only fight over two cores.
_PARAMETERS = b"num_threads=1"


class LightGbm:
    """The learner of this adapter."""

    def fit(self, rows: Matrix, spec: ModelSpec) -> bytes:
        """Return the model as native text: the same rows and spec give the same bytes.

        Raises:
            ContractViolation: no rows, or labels of one kind only.
        """
        import lightgbm

        if not 0 < int(rows.labels.sum()) < len(rows.labels):
            raise ContractViolation(
                f"fit {spec.name}: got {int(rows.labels.sum())} positives in {len(rows.labels)} rows; wanted both kinds"
            )
        columns = rows.assembler.columns
        data = lightgbm.Dataset(
            rows.x,
            rows.labels.astype(np.float64),
            weight=row_weights(rows.window_us, spec.half_life_days),
            feature_name=[column.name for column in columns],
            categorical_feature=[place for place, column in enumerate(columns) if column.kind == "category"],
        )
        booster = lightgbm.train(_parameters(spec), data, num_boost_round=spec.trees)
        return str(booster.model_to_string(num_iteration=-1)).encode()

    def load(self, model: bytes) -> "LightGbmScorer":
        """Return a scorer of the model text; see `LightGbmScorer`."""
        return LightGbmScorer(model)


class _RowCall(threading.local):
    """Where one thread's row and its score are: the addresses the library is given with every call."""

    def __init__(self, features: int) -> None:
        self.vector = np.empty(features, dtype=_DOUBLES)
        self.length, self.score = ctypes.c_int64(), ctypes.c_double()
        self.vector_at = int(self.vector.ctypes.data)
        self.length_at, self.score_at = ctypes.addressof(self.length), ctypes.addressof(self.score)


class LightGbmScorer:
    """A loaded booster. Safe to call from several threads: the library locks, and every thread has its own row."""

    def __init__(self, model: bytes) -> None:
        """Load the model text.

        Raises:
            ContractViolation: the text is no LightGBM model, or one that gives a row several scores.
            PermanentFailure: the library is not installed.
        """
        self._library = _library()
        handle, trees, scores = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        self._call("LGBM_BoosterLoadModelFromString", model, ctypes.byref(trees), ctypes.byref(handle))
        self._handle = handle
        weakref.finalize(self, self._library.LGBM_BoosterFree, handle)
        # The library would write them all where there is room for one.
        self._call("LGBM_BoosterGetNumClasses", handle, ctypes.byref(scores))
        if scores.value != 1:
            raise ContractViolation(
                f"LightGBM: got a model with {scores.value} scores for a row, wanted one: train one model for each class"
            )
        features = ctypes.c_int()
        self._call("LGBM_BoosterGetNumFeature", handle, ctypes.byref(features))
        self.feature_count = features.value
        self._shape = (self.feature_count,)
        self._fast = self._fast_config()
        self._row = _RowCall(self.feature_count)
        self._row_call = self._library.LGBM_BoosterPredictForMatSingleRowFast

    def score_row(self, vector: Floats) -> float:
        """Return the score of one float64 vector, shape (f,)."""
        if vector.shape != self._shape or vector.dtype != _DOUBLES:
            raise ContractViolation(
                f"predict: got {vector.dtype} of shape {vector.shape}, wanted float64 {self._shape}"
            )
        row = self._row
        # By value, so that a strided or reversed vector is scored by what is in it.
        row.vector[:] = vector
        if self._row_call(self._fast, row.vector_at, row.length_at, row.score_at):
            raise PermanentFailure(f"predict: {_last_error(self._library)}")
        return row.score.value

    def score(self, matrix: Floats) -> Floats:
        """Return the scores of a float64 matrix of shape (n, f), shape (n,)."""
        if matrix.ndim != 2 or matrix.shape[1] != self.feature_count or matrix.dtype != np.float64:
            raise ContractViolation(
                f"predict: got {matrix.dtype} of shape {matrix.shape}, wanted float64 (n, {self.feature_count})"
            )
        rows = np.ascontiguousarray(matrix)
        scores = np.empty(len(rows), dtype=np.float64)
        if not len(rows):
            return scores
        length = ctypes.c_int64()
        self._call(
            "LGBM_BoosterPredictForMat",
            self._handle,
            ctypes.c_void_p(rows.ctypes.data),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(rows.shape[0]),
            ctypes.c_int32(rows.shape[1]),
            ctypes.c_int(_ROW_MAJOR),
            ctypes.c_int(_PROBABILITY),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_TREES),
            _PARAMETERS,
            ctypes.byref(length),
            ctypes.c_void_p(scores.ctypes.data),
        )
        return scores

    def _fast_config(self) -> ctypes.c_void_p:
        fast = ctypes.c_void_p()
        self._call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            self._handle,
            ctypes.c_int(_PROBABILITY),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_TREES),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(self.feature_count),
            _PARAMETERS,
            ctypes.byref(fast),
        )
        weakref.finalize(self, self._library.LGBM_FastConfigFree, fast)
        return fast

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments):
            raise ContractViolation(f"LightGBM {name}: {_last_error(self._library)}")


def _parameters(spec: ModelSpec) -> dict[str, object]:
    return {
        "objective": spec.objective,
        "learning_rate": spec.learning_rate,
        "num_leaves": spec.leaves,
        "min_data_in_leaf": spec.min_rows_in_leaf,
        "lambda_l2": spec.l2,
        "feature_fraction": spec.feature_fraction,
        "cat_smooth": spec.category_smoothing,
        "cat_l2": spec.category_l2,
        "seed": spec.seed,
        "num_threads": spec.threads,
        # Together: the same bytes every time. Row-wise is also what LightGBM would choose for many rows.
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise PermanentFailure("lightgbm is not installed; it comes with the extras `train` and `serving`")
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    name = "lightgbm.dll" if suffix == "dll" else f"lib_lightgbm.{suffix}"
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / name))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    # Declared once: without it every call converts its arguments by guessing, which costs 1 us and truncates pointers.
    library.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [ctypes.c_void_p] * 4
    library.LGBM_BoosterFree.argtypes = [ctypes.c_void_p]
    library.LGBM_FastConfigFree.argtypes = [ctypes.c_void_p]
    return library


def _last_error(library: ctypes.CDLL) -> str:
    return bytes(library.LGBM_GetLastError() or b"no message").decode(errors="replace")
