"""The journal of a drive: what was about to be sent, and what the client was told; one JSON line each.

INTENT is written before a send and RESULT after its answer, so a driver that dies leaves sends without a result, which
count as ``unknown``: present or absent, but never twice and never in part.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import orjson
import polars as pl

# ``refused`` is a 4xx or a connection that was never made: certainly nothing was accepted. A 5xx is ``unknown``, for
# the log may still take what it did not acknowledge in time.
Outcome = Literal["acked", "refused", "unknown"]

SCHEMA = {
    "send": pl.Int64(),
    "id": pl.String(),
    "key": pl.String(),
    "seq": pl.Int64(),
    "kind": pl.String(),
    "digest": pl.UInt64(),
    "sent_s": pl.Float64(),
    "batch": pl.Boolean(),
    "outcome": pl.String(),
    "status": pl.Int64(),
    "answered_s": pl.Float64(),
}


class Journal:
    """Writes one drive's lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = path.open("ab")
        self._sends = 0

    def intend(self, *, id: str, key: str, seq: int, kind: str, digest: int, sent_s: float, batch: bool) -> int:  # noqa: A002  # the field's name
        """Note what is about to be sent; return the number of the send."""
        self._sends += 1
        self._write(
            {"send": self._sends, "id": id, "key": key, "seq": seq, "kind": kind, "digest": digest}
            | {"sent_s": sent_s, "batch": batch}
        )
        return self._sends

    def told(self, send: int, outcome: Outcome, *, status: int, answered_s: float) -> None:
        """Note what became of a send; ``status`` 0 means there was no answer."""
        self._write({"send": send, "outcome": outcome, "status": status, "answered_s": answered_s})

    def close(self) -> None:
        """Flush and close."""
        self._lines.close()

    def _write(self, line: dict[str, object]) -> None:
        self._lines.write(orjson.dumps(line) + b"\n")


def read_journal(path: Path) -> pl.DataFrame:
    """Return one row per send in the order sent, columns as `SCHEMA`; without a RESULT the outcome is ``unknown``."""
    sends: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for line in _lines(path):
        (results if "outcome" in line else sends).append(line)
    intended = pl.DataFrame(sends, schema=dict(list(SCHEMA.items())[:8]))
    told = pl.DataFrame(results, schema={name: SCHEMA[name] for name in ("send", "outcome", "status", "answered_s")})
    return (
        intended.join(told, on="send", how="left", validate="1:1")
        .with_columns(pl.col("outcome").fill_null("unknown"), pl.col("status").fill_null(0))
        .sort("send")
        .select(list(SCHEMA))
    )


def _lines(path: Path) -> Iterator[dict[str, object]]:
    with path.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)
