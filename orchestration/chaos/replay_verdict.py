"""What a replay left behind, held to the events; and two replays held to each other, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headway.clock import format_us
from headway.contracts import Domain
from headway.ports import LogReader
from headway.settings import Settings
from orchestration.chaos.features import online_values
from orchestration.chaos.recompute import (
    Compared,
    answers_of,
    compare,
    draw_questions,
    entities_of,
    joined_answers,
    read_changelog,
)

_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class ViewTold:
    """One view: its rows in a file, what identifies them all, and how its answers compare."""

    rows: int
    file: Path
    fingerprint: tuple[int, int]
    doubled: int
    changelog: Compared
    online: Compared


@dataclass(frozen=True, kw_only=True)
class Told:
    """All views after one time through the events."""

    views: Mapping[str, ViewTold]

    @property
    def violations(self) -> dict[str, list[str]]:
        """What is wrong, by invariant, in lines."""
        return {
            "changelog": [line for told in self.views.values() for line in told.changelog.named],
            "online": [line for told in self.views.values() for line in told.online.named],
            "rows written twice": [f"{name}: {told.doubled} rows" for name, told in self.views.items() if told.doubled],
        }

    @property
    def asked(self) -> dict[str, int]:
        """Questions put to the changelog, by view."""
        return {name: told.changelog.answers for name, told in self.views.items()}

    @property
    def rows(self) -> int:
        """Rows of all changelogs."""
        return sum(told.rows for told in self.views.values())

    @property
    def values(self) -> int:
        """Values compared."""
        return sum(told.changelog.values + told.online.values for told in self.views.values())

    @property
    def wrong(self) -> int:
        """Values that differ."""
        return sum(told.changelog.wrong + told.online.wrong for told in self.views.values())

    @property
    def online_entities(self) -> int:
        """Entities compared online."""
        return sum(told.online.entities for told in self.views.values())

    @property
    def by_view(self) -> dict[str, Any]:
        """The figures of each view."""
        return {
            name: {
                "rows": told.rows,
                "answers": told.changelog.answers,
                "entities_online": told.online.entities,
                "wrong": told.changelog.wrong + told.online.wrong,
            }
            for name, told in self.views.items()
        }


def judge_run(
    settings: Settings,
    domain: Domain,
    *,
    events: pl.DataFrame,
    reader: LogReader,
    start_us: int,
    end_us: int,
    questions: int,
    seed: int,
) -> Told:
    """Compare the changelogs at random instants, and the online store at the end, with what the events give."""
    views: dict[str, ViewTold] = {}
    for number, view in enumerate(domain.views):
        rows = read_changelog(reader, view)
        file = settings.state / f"{view.qualified}-{seed:x}.parquet"
        rows.write_parquet(file)
        asked = draw_questions(
            rows, view, count=questions, start_us=start_us, end_us=end_us, seed=seed * len(domain.views) + number
        )
        entities = entities_of(events, view)
        online = answers_of(view, entities, online_values(settings, view, entities), as_of_us=end_us)
        views[view.qualified] = ViewTold(
            rows=rows.height,
            file=file,
            fingerprint=fingerprint(rows),
            doubled=int(rows.select(*view.keys, "event_timestamp", "revision").is_duplicated().sum()),
            changelog=compare(view, joined_answers(rows, view, asked), events, until_us=end_us, who="changelog"),
            online=compare(view, online, events, until_us=end_us, who="online"),
        )
    return Told(views=views)


def fingerprint(rows: pl.DataFrame) -> tuple[int, int]:
    """Return two numbers that two sets of rows share only when they are the same, whatever their order."""
    hashes = rows.hash_rows(seed=1).to_numpy()
    with np.errstate(over="ignore"):
        return int(np.bitwise_xor.reduce(hashes)), int(np.add.reduce(hashes))


def differing_runs(one: Told, other: Told) -> list[str]:
    """Name the rows that one run has and the other has not, the earliest of each view with the offset that caused it."""
    lines = []
    for name, told in one.views.items():
        again = other.views[name]
        if told.fingerprint == again.fingerprint:
            continue
        first, second = pl.read_parquet(told.file), pl.read_parquet(again.file)
        lines += [
            f"{name}: {line}"
            for here, there, where in ((first, second, "only before"), (second, first, "only from zero"))
            for line in _only(here, there, where)
        ]
    return lines[:_NAMED]


def _only(here: pl.DataFrame, there: pl.DataFrame, where: str) -> Sequence[str]:
    alone = here.join(there, on=here.columns, how="anti", nulls_equal=True).sort("revision")
    if alone.is_empty():
        return []
    row = alone.row(0, named=True)
    at = format_us(int(row["event_timestamp"].timestamp() * 1e6))
    # A row's revision is the offset of the record that caused it, plus one.
    return [
        f"{alone.height} rows {where}, first of features.input[{row['partition']}]@{row['revision'] - 1} at {at}: {row}"
    ]
