"""Decisions about how many instances there should be, of jobs and of model replicas, with their inputs, in one SQLite file.

A decision that repeats the one before it in every input, as those of an idle job do, lengthens that row: ``times`` and
``until_us``. Nothing is left out and a quiet night is one row. Rows that changed nothing are forgotten after a day.
What bites: a job has one writer, the scaler; a model version's replicas have one, Ray's controller.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from headway.adapters.sqlite import opened
from headway.clock import DAY_US

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decision (
    at_us INTEGER NOT NULL, until_us INTEGER NOT NULL, times INTEGER NOT NULL, job TEXT NOT NULL,
    before INTEGER NOT NULL, after INTEGER NOT NULL, reason TEXT NOT NULL, inputs TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS decision_by_job ON decision (job, at_us);
CREATE INDEX IF NOT EXISTS decision_by_age ON decision (until_us);
"""
KEPT_US = DAY_US


class Decided(Protocol):
    """A decision: from ``load``, a dataclass that has ``job`` and ``instances``, to so many instances, and why."""

    @property
    def load(self) -> Any:  # Any: see above; what else it has differs
        """What it follows from."""

    @property
    def instances(self) -> int:
        """How many there should be."""

    @property
    def reason(self) -> str:
        """Why."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A decision as it was recorded: made at ``at_us``, and again, alike, ``times`` times until ``until_us``."""

    at_us: int
    until_us: int
    times: int
    job: str
    before: int
    after: int
    reason: str
    inputs: dict[str, Any]


def scaling_file(state: Path) -> Path:
    """Return where the table is in a state folder."""
    return state / "scaling" / "decisions.sqlite"


class ScalingTable:
    """The table in one file; made when it is not there. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with opened(self._path) as table:
            table.execute("PRAGMA journal_mode = WAL")
            table.executescript(_SCHEMA)

    def record(self, decisions: Iterable[Decided], policy: Any, *, at_us: int) -> None:  # Any: a dataclass
        """Write one round of decisions by a policy, all or none, and forget what is old and changed nothing."""
        with opened(self._path) as table:
            for decision in decisions:
                _record_one(table, decision, policy, at_us)
            table.execute("DELETE FROM decision WHERE until_us < ? AND before = after", (at_us - KEPT_US,))

    def read(self, *, job: str | None, last: int, changes: bool) -> list[Recorded]:
        """Return the last decisions, oldest first; of one job or all, only those that changed a number or all."""
        query = (
            "SELECT at_us, until_us, times, job, before, after, reason, inputs FROM decision "
            "WHERE (?1 IS NULL OR job = ?1) AND (before <> after OR NOT ?2) ORDER BY at_us DESC, rowid DESC LIMIT ?3"
        )
        with opened(self._path) as table:
            rows = table.execute(query, (job, changes, last)).fetchall()
        return [_recorded(row) for row in reversed(rows)]

    def newest(self) -> list[Recorded]:
        """Return the newest decision of each job there ever was, by name: one that decides often hides no other."""
        # SQLite gives the other columns of the row that has the greatest instant.
        query = (
            "SELECT at_us, until_us, times, job, before, after, reason, inputs, max(at_us) FROM decision "
            "GROUP BY job ORDER BY job"
        )
        with opened(self._path) as table:
            return [_recorded(row) for row in table.execute(query).fetchall()]


def _recorded(row: Sequence[Any]) -> Recorded:  # Any: SQLite's own types
    at_us, until_us, times, job, before, after, reason, inputs, *_ = row
    return Recorded(
        at_us=at_us,
        until_us=until_us,
        times=times,
        job=job,
        before=before,
        after=after,
        reason=reason,
        inputs=json.loads(inputs),
    )


def _record_one(table: sqlite3.Connection, decision: Decided, policy: Any, at_us: int) -> None:  # Any: a dataclass
    load = decision.load
    inputs = json.dumps({"load": asdict(load), "policy": asdict(policy)}, sort_keys=True)
    told = (load.job, load.instances, decision.instances, decision.reason, inputs)
    newest = table.execute(
        "SELECT rowid, job, before, after, reason, inputs FROM decision WHERE job = ? ORDER BY at_us DESC LIMIT 1",
        (load.job,),
    ).fetchone()
    if newest is not None and newest[1:] == told:
        table.execute("UPDATE decision SET until_us = ?, times = times + 1 WHERE rowid = ?", (at_us, newest[0]))
    else:
        table.execute("INSERT INTO decision VALUES (?, ?, 1, ?, ?, ?, ?, ?)", (at_us, at_us, *told))
