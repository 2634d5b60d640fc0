"""What a drive over a hurt cluster proves: loss, repeats, the outage of each fault, and what clients were told. Pure.

The write outage of a fault is the longest time in which some partition acknowledged nothing, from the fault until the
cluster was whole. Per partition, as three that answer would hide the fourth that does not.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from headway.topics import partition_of

# Of one connection that breaks under a request; the fault is the broker's, so no Collector may drop one.
_NO_ANSWER = 0
_UNAVAILABLE = 503
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Account:
    """The ledger of a drive against the raw log, by event id."""

    offered: int
    acked: int
    lost: tuple[str, ...]
    repeated: tuple[str, ...]
    invented: tuple[str, ...]
    unacknowledged: int
    unacknowledged_but_written: int
    answers: dict[int, int]
    slowest_answer_s: float

    @property
    def violations(self) -> dict[str, tuple[str, ...]]:
        """What must not be, by name, with the ids; empty when all is well."""
        named = {"lost": self.lost, "repeated": self.repeated, "invented": self.invented}
        return {name: ids[:_NAMED] for name, ids in named.items() if ids}

    @property
    def figures(self) -> dict[str, Any]:  # Any: JSON
        """Give the counts as plain values."""
        return {
            "offered": self.offered,
            "acked": self.acked,
            "lost": len(self.lost),
            "duplicates": len(self.repeated),
            "invented": len(self.invented),
            "unacknowledged": self.unacknowledged,
            "unacknowledged_but_written": self.unacknowledged_but_written,
            "answers": {str(status): count for status, count in self.answers.items()},
            "slowest_answer_s": self.slowest_answer_s,
        }

    @property
    def odd_answers(self) -> dict[int, int]:
        """Answers a client was never meant to see: anything but success and 503; 0 is none at all."""
        return {status: n for status, n in self.answers.items() if status >= 300 and status != _UNAVAILABLE} | (
            {_NO_ANSWER: self.answers[_NO_ANSWER]} if _NO_ANSWER in self.answers else {}
        )


def settle_drive(journal: pl.DataFrame, raw: Iterable[str]) -> Account:
    """Compare a drive's journal with the ids in the raw log, one each time an id stands there."""
    written = pl.Series("id", list(raw), dtype=pl.String()).value_counts()
    acked = journal.filter(pl.col("outcome") == "acked")
    open_ = journal.filter(pl.col("outcome") != "acked")
    lost = acked.join(written, on="id", how="anti")["id"].sort()
    invented = written.join(journal, on="id", how="anti")["id"].sort()
    repeated = written.filter(pl.col("count") > 1)["id"].sort()
    answers = journal.group_by("status").len().sort("status")
    took = (journal["answered_s"] - journal["sent_s"]).drop_nulls()
    return Account(
        offered=journal.height,
        acked=acked.height,
        lost=tuple(lost),
        repeated=tuple(repeated),
        invented=tuple(invented),
        unacknowledged=open_.height,
        unacknowledged_but_written=open_.join(written, on="id", how="semi").height,
        answers=dict(answers.iter_rows()),
        slowest_answer_s=round(float(took.max() or 0.0), 3),  # type: ignore[arg-type]  # polars types any scalar
    )


def outages(journal: pl.DataFrame, *, partitions: int, faults: Sequence[tuple[float, float]]) -> list[float]:
    """Give, for each fault from..until, the longest time some partition went without an acknowledgement."""
    acked = journal.filter(pl.col("outcome") == "acked").select("key", "answered_s")
    keys = acked["key"].unique().to_list()
    places = pl.DataFrame({"key": keys, "partition": [partition_of(key.encode(), partitions) for key in keys]})
    by_partition = [
        frame["answered_s"].sort().to_list()
        for _, frame in acked.join(places, on="key", validate="m:1").group_by("partition")
    ]
    return [
        max((_longest_gap(each, since, until) for each in by_partition), default=until - since)
        for since, until in faults
    ]


def _longest_gap(instants: Sequence[float], since: float, until: float) -> float:
    """The longest stretch without an instant that overlaps since..until; what begins before counts from its begin."""
    before = [at for at in instants if at < since][-1:]
    after = [at for at in instants if at > until][:1]
    marks = [*(before or [since]), *(at for at in instants if since <= at <= until), *(after or [until])]
    return max((later - earlier for earlier, later in itertools.pairwise(marks)), default=until - since)
