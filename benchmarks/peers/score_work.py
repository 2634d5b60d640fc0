"""The work of the stream scorer as a user of a peer would write it: plainly, and as fast as it goes row by row.

Both give id, subject, probability and version. They do less than Headway's: no request in the answer, no place of the
input, no receipt, no plan of versions, no letters; a bad event would end them.
"""

import ctypes
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm  # noqa: TID253 - a process of its own, in an environment of its own
import msgspec
import numpy as np

_FLOAT64, _PROBABILITY, _ALL_TREES = 1, 0, -1


class Columns:
    """Names of the features in the model's order, and the codes of categories, from the file that PEER_COLUMNS names."""

    def __init__(self) -> None:
        said = json.loads(Path(os.environ["PEER_COLUMNS"]).read_text())
        self.numbers: list[str] = said["numbers"]
        self.categories: list[str] = said["categories"]
        self.codes: dict[str, float] = {word: float(code) for code, word in enumerate(said["words"])}
        self.version: int = said["version"]


class Plain:
    """`Booster.predict`, a row at a time, on decoded JSON."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"], params={"num_threads": 1})

    def score(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one event."""
        columns, data = self._columns, event["data"]
        row = [data[name] for name in columns.numbers] + [columns.codes[data[name]] for name in columns.categories]
        probability = self._booster.predict(np.array([row], dtype=np.float64), num_threads=1)[0]
        return {
            "id": event["id"],
            "subject": event["subject"],
            "probability": float(probability),
            "version": columns.version,
        }


class Fast:
    """Typed decoding, one buffer, and LightGBM's single-row call that prepares itself once."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        fields: list[Any] = [(name, float | None) for name in columns.numbers]
        fields += [(name, str) for name in columns.categories]
        body = msgspec.defstruct("Body", fields, gc=False)
        event = msgspec.defstruct("Event", [("id", str), ("subject", str), ("data", body)], gc=False)
        # Any: the struct is made here, of the model's own columns.
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(event).decode
        self._encode = msgspec.json.Encoder().encode
        self._numbers = len(columns.numbers)
        self._buffer = np.empty(self._numbers + len(columns.categories), dtype=np.float64)
        self._booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])
        self._prepare()

    def score(self, raw: bytes) -> bytes:
        """Return the answer to one event."""
        event = self._decode(raw)
        values = msgspec.structs.astuple(event.data)
        codes = self._columns.codes
        self._buffer[:] = [
            *[np.nan if value is None else value for value in values[: self._numbers]],
            *[codes[word] for word in values[self._numbers :]],
        ]
        self._call(self._fast, self._pointer, self._length, self._out)
        return self._encode(
            {
                "id": event.id,
                "subject": event.subject,
                "probability": self._score.value,
                "version": self._columns.version,
            }
        )

    def _prepare(self) -> None:
        spec = importlib.util.find_spec("lightgbm")
        assert spec is not None
        assert spec.origin is not None
        library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "lib_lightgbm.so"))
        self._fast = ctypes.c_void_p()
        done = library.LGBM_BoosterPredictForMatSingleRowFastInit(
            self._booster._handle,  # noqa: SLF001 - there is no other way to it
            ctypes.c_int(_PROBABILITY),
            ctypes.c_int(0),
            ctypes.c_int(_ALL_TREES),
            ctypes.c_int(_FLOAT64),
            ctypes.c_int32(len(self._buffer)),
            b"num_threads=1",
            ctypes.byref(self._fast),
        )
        assert done == 0
        self._pointer = ctypes.c_void_p(self._buffer.ctypes.data)
        length, self._score = ctypes.c_int64(), ctypes.c_double()
        self._length, self._out = ctypes.byref(length), ctypes.byref(self._score)
        self._call = library.LGBM_BoosterPredictForMatSingleRowFast
        self._call.argtypes = [ctypes.c_void_p] * 4
