"""Did the online store say what the events say? Logged feature vectors, recomputed from lake events (SEMANTICS S8).

``mismatches`` must be none, under faults too. Beside it, never mixed in: what late events changed afterwards, and how
far the watermark was behind. This module reads predictions and events; it refuses to know a changelog, which would
compare the feature job with itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from headway.clock import SECOND_US, floor_us, format_us
from headway.errors import ContractViolation
from headway.features.cases import Entities, Position, key_of
from headway.features.columns import Value
from headway.features.definitions import FeatureView
from headway.features.offence import Offence, could_differ, first_offence
from headway.features.offline import AS_OF, SERVED, Mode, values_at

RECEIPT = "receipt"
# A broken zone makes every value wrong; the earliest thousand tell the story, the count tells the size.
MAX_LISTED = 1000
# Each search replays one entity's window hundreds of times (about a second on a busy airport), and a report has a
# handful of views: the earliest few tell the story.
MAX_SEARCHED = 5


@dataclass(frozen=True, kw_only=True)
class ServedView:
    """How a prediction log names what it read of one view.

    Attributes:
        keys: view key -> log column.
        features: feature -> log column.
        watermark: log column of the served watermark (int64, us); a row where it is null got no answer from the
            online store and is skipped.
    """

    view: FeatureView
    keys: Mapping[str, str]
    features: Mapping[str, str]
    watermark: str


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A served value that the events do not give."""

    receipt: str
    view: str
    feature: str
    key: tuple[str | None, ...]
    as_of_us: int
    served: Value
    expected: Value
    first: Offence

    @property
    def told(self) -> str:
        """Feature, entity, both values, and the event from which on they differ, as one sentence."""
        where = "" if self.first.position is None else f" at {self.first.position.told}"
        return (
            f"{self.view} {self.feature} of {', '.join(map(str, self.key))} as of {format_us(self.as_of_us)}: served "
            f"{self.served}, the events say {self.expected}; {self.first.cause}{where}: {self.first.says}"
        )


@dataclass(frozen=True, kw_only=True)
class Correction:
    """A value that was right as served and that late events changed afterwards."""

    receipt: str
    view: str
    feature: str
    key: tuple[str | None, ...]
    as_of_us: int
    served: Value
    truth: Value
    late: tuple[Position, ...]


Found = TypeVar("Found", Mismatch, Correction)


@dataclass(frozen=True, kw_only=True)
class Lag:
    """How far a view's watermark was behind the as-of of its answers."""

    view: str
    max_s: float
    median_s: float


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The verdict: ``checked`` values, of which ``mismatched`` differ; the lists hold the earliest of each kind."""

    predictions: int
    checked: int
    skipped: int
    mismatched: int
    mismatches: tuple[Mismatch, ...]
    corrected: int
    corrected_later: tuple[Correction, ...]
    lag: tuple[Lag, ...]

    @property
    def held(self) -> bool:
        """Whether something was checked and all of it was equal."""
        return self.checked > 0 and self.mismatched == 0


@dataclass(frozen=True)
class _Compared:
    """One view's answers: its keys, as-of, watermark, and per feature ``served:``, ``expected:`` and ``truth:``."""

    served: ServedView
    rows: pl.DataFrame
    skipped: int

    @property
    def view(self) -> FeatureView:
        return self.served.view

    def differing(self, left: str, right: str) -> pl.DataFrame:
        """Return one row per differing value: the answer's row number and the feature, earliest first."""
        parts = [
            self.rows.filter(pl.col(f"{left}:{name}").ne_missing(pl.col(f"{right}:{name}"))).select(
                "answer", AS_OF, RECEIPT, pl.lit(name).alias("feature")
            )
            for name in self.view.columns
        ]
        return pl.concat(parts).sort(AS_OF, RECEIPT, "feature", "answer")

    def entities(self, differing: pl.DataFrame, events: pl.DataFrame) -> Entities:
        """Return the entities of differing values, with their events and their matching answers."""
        wrong = self.differing("served", "expected")
        return Entities(
            self.view,
            asked=self.rows.join(differing, on="answer", how="semi"),
            matched=self.rows.join(wrong, on="answer", how="anti"),
            events=events,
        )


def check_parity(log: pl.DataFrame, events: pl.DataFrame, served: Sequence[ServedView]) -> ParityReport:
    """Recompute every logged value from lake events and compare, exactly.

    Args:
        log: ``receipt``, ``as_of_us`` and the columns that ``served`` names, one row per prediction.
        events: the lake's columns.
        served: the views the predictions read.
    """
    compared = [_compare(log, events, one) for one in served]
    wrong = [(one, one.differing("served", "expected")) for one in compared]
    moved = [(one, one.differing("expected", "truth")) for one in compared]
    mismatches = [m for one, rows in wrong for m in _mismatches(one, rows.head(MAX_LISTED), events)]
    corrections = [c for one, rows in moved for c in _corrections(one, rows.head(MAX_LISTED), events)]
    return ParityReport(
        predictions=log.height,
        checked=sum(one.rows.height * len(one.view.columns) for one in compared),
        skipped=sum(one.skipped for one in compared),
        mismatched=sum(rows.height for _, rows in wrong),
        mismatches=earliest(mismatches),
        corrected=sum(rows.height for _, rows in moved),
        corrected_later=earliest(corrections),
        lag=tuple(_lag(one) for one in compared if one.rows.height),
    )


def earliest(found: Iterable[Found]) -> tuple[Found, ...]:
    """Return the first to be listed, by as-of."""
    return tuple(sorted(found, key=lambda one: (one.as_of_us, one.receipt, one.view, one.feature))[:MAX_LISTED])


def _compare(log: pl.DataFrame, events: pl.DataFrame, served: ServedView) -> _Compared:
    view = served.view
    needed = {RECEIPT, AS_OF, served.watermark, *served.keys.values(), *served.features.values()}
    if missing := needed - set(log.columns):
        raise ContractViolation(
            f"prediction log: no column {sorted(missing)} for {view.qualified} (found: {log.columns})"
        )
    if set(served.features) != set(view.columns) or set(served.keys) != set(view.keys):
        raise ContractViolation(f"{view.qualified}: name a log column for each key and feature, got {served}")
    asked = log.filter(pl.col(served.watermark).is_not_null()).select(
        RECEIPT,
        AS_OF,
        pl.col(served.watermark).cast(pl.Int64).alias(SERVED),
        *(pl.col(column).cast(pl.String).alias(key) for key, column in served.keys.items()),
        *(_logged(log, column).alias(f"served:{name}") for name, column in served.features.items()),
    )
    rows = asked.with_row_index("answer")
    sides: tuple[tuple[str, Mode], ...] = (("expected", "as_served"), ("truth", "truth"))
    for side, mode in sides:
        values = values_at(events, view, asked, mode=mode)
        rows = rows.hstack(values.select(pl.col(name).alias(f"{side}:{name}") for name in view.columns))
    return _Compared(served, rows, log.height - asked.height)


def _logged(log: pl.DataFrame, column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Int64) if log.schema[column] == pl.Null else pl.col(column)


def _mismatches(one: _Compared, differing: pl.DataFrame, events: pl.DataFrame) -> Iterator[Mismatch]:
    if differing.is_empty():
        return
    entities = one.entities(differing, events)
    found: dict[int, Offence] = {}
    first: dict[tuple[str | None, ...], Offence] = {}
    searched = 0
    for answer, feature in differing.select("answer", "feature").iter_rows():
        row = one.rows.row(answer, named=True)
        key = key_of(one.view, row)
        if answer not in found:
            case = entities.case(row)
            inherited = first.get(key)
            if inherited is not None and inherited.position and inherited.position.time_us > case.start_us:
                found[answer] = inherited
            else:
                searched += 1
                found[answer] = first_offence(case, events) if searched <= MAX_SEARCHED else could_differ(case)
                first[key] = found[answer]
        yield Mismatch(
            receipt=row[RECEIPT],
            view=one.view.qualified,
            feature=feature,
            key=key,
            as_of_us=row[AS_OF],
            served=row[f"served:{feature}"],
            expected=row[f"expected:{feature}"],
            first=found[answer],
        )


def _corrections(one: _Compared, differing: pl.DataFrame, events: pl.DataFrame) -> Iterator[Correction]:
    if differing.is_empty():
        return
    entities = one.entities(differing, events)
    windows = {a.name: a.window_us if a.window else None for a in one.view.aggregates}
    for answer, feature in differing.select("answer", "feature").iter_rows():
        row = one.rows.row(answer, named=True)
        window_us, as_of_us = windows[feature], row[AS_OF]
        start_us = None if window_us is None else floor_us(as_of_us - window_us, one.view.hop_us)
        late = (
            Position.of(e)
            for e in entities.events(row)
            if e.time_us <= as_of_us and not e.known_at(row[SERVED]) and (start_us is None or e.time_us > start_us)
        )
        yield Correction(
            receipt=row[RECEIPT],
            view=one.view.qualified,
            feature=feature,
            key=key_of(one.view, row),
            as_of_us=as_of_us,
            served=row[f"expected:{feature}"],
            truth=row[f"truth:{feature}"],
            late=tuple(late),
        )


def _lag(one: _Compared) -> Lag:
    behind_s = (one.rows[AS_OF] - one.rows[SERVED]).clip(lower_bound=0) / SECOND_US
    median_s, max_s = behind_s.median(), behind_s.max()
    assert isinstance(median_s, float)
    assert isinstance(max_s, float)
    return Lag(view=one.view.qualified, max_s=max_s, median_s=median_s)
