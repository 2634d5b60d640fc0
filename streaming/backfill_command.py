"""``headway features backfill`` and ``headway features compare``: the past of views, written, or made three times over.

What bites: the past may not reach beyond the events that are in the lake, or windows that are still filling would be
written as if they were full. So without ``--until`` it ends with the newest event.
"""

import hashlib
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headway.adapters.delta import Lake
from headway.backfill import table_of
from headway.backfill_engine import Engine, backfill_engine
from headway.backfill_events import EVENTS, event_columns, reached
from headway.clock import format_us, monotonic_s, parse_instant_us, to_us
from headway.commands import Outcome, Say
from headway.drift import Window
from headway.errors import ContractViolation, InputRejected
from headway.features.definitions import FeatureView
from headway.features.offline import EVENT_TIMESTAMP, Mode
from headway.features.streamed import streamed_rows
from headway.settings import Settings

if TYPE_CHECKING:
    from headway.contracts import Domain

_ENGINES: tuple[Engine, ...] = ("process", "spark")


def backfilled(arguments: Namespace, say: Say, domain: "Domain") -> Outcome:
    """Write the past of views to the lake."""
    settings = Settings()
    lake, mode, engine = Lake(Path(settings.lake)), _mode(arguments), arguments.engine or settings.backfill_engine
    views, window = _views(arguments, domain), _window(arguments, lake)
    say(f"{len(views)} views over {window}, {mode}, by engine {engine}")
    started_s, done = monotonic_s(), []
    with backfill_engine(engine, settings) as backfill:
        for each in backfill(views, window, lake=lake, mode=mode):
            say(f"{each.view}: {each.rows:,} rows from {each.events:,} events in {each.slices} slices, {each.table}")
            done.append(asdict(each))
    seconds = round(monotonic_s() - started_s, 3)
    facts = {"window": str(window), "mode": mode, "engine": engine, "views": done, "seconds": seconds}
    rows = sum(each["rows"] for each in done)
    return Outcome(holds=True, facts=facts, lines=[f"{rows:,} rows in {seconds:.1f} s"])


def compared(arguments: Namespace, say: Say, domain: "Domain") -> Outcome:
    """Make the past of views in process, on Spark and by the stream's aggregator, and compare them row by row."""
    settings, mode = Settings(), _mode(arguments)
    lake, views = Lake(Path(settings.lake)), _views(arguments, domain)
    window = _window(arguments, lake)
    made: dict[str, dict[str, pl.DataFrame]] = {view.qualified: {} for view in views}
    for engine in _ENGINES:
        say(f"{engine}: {len(views)} views over {window}")
        with _borrowed(lake) as other, backfill_engine(engine, settings) as backfill:
            list(backfill(views, window, lake=other, mode=mode))
            for view in views:
                made[view.qualified][engine] = _written(other, view, mode)
    found = []
    for view in views:
        say(f"stream: {view.qualified}")
        events = lake.scan(EVENTS).filter(reached([view], window)).select(event_columns([view])).collect()
        frames = made.pop(view.qualified) | {"stream": streamed_rows(events, view, window, mode=mode)}
        found.append(Compared.of(view, frames))
    lines = [line for each in found for line in each.lines()]
    return Outcome(
        holds=all(each.equal and each.rows for each in found),
        facts={"window": str(window), "mode": mode, "views": [asdict(each) | {"equal": each.equal} for each in found]},
        lines=lines,
    )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One view's past as several engines made it: rows and digest of each, and the first row in which they differ."""

    view: str
    rows: int
    digests: Mapping[str, str]
    first_difference: str | None

    @classmethod
    def of(cls, view: FeatureView, frames: Mapping[str, pl.DataFrame]) -> "Compared":
        """Compare frames of keys, instant and features, each sorted by key and instant."""
        (_, first), *others = frames.items()
        differing = [f"{name}: {_difference(first, other, view)}" for name, other in others if not first.equals(other)]
        return cls(
            view=view.qualified,
            rows=first.height,
            digests={name: digest(frame) for name, frame in frames.items()},
            first_difference=differing[0] if differing else None,
        )

    @property
    def equal(self) -> bool:
        """Whether all engines made the same rows with the same values, nulls and all."""
        return self.first_difference is None and len(set(self.digests.values())) == 1

    def lines(self) -> Iterator[str]:
        """Give it as lines for people."""
        told = ", ".join(f"{name} {value}" for name, value in self.digests.items())
        yield f"{'ok  ' if self.equal else 'FAIL'}  {self.view:<26} {self.rows:>10,} rows  {told}"
        if self.first_difference is not None:
            yield f"      first difference: {self.first_difference}"


def digest(rows: pl.DataFrame) -> str:
    """Return 16 hex of SHA-256 over the rows' hashes, in order: of values, not of how they lie in memory."""
    return hashlib.sha256(rows.hash_rows(seed=0).to_numpy().tobytes()).hexdigest()[:16]


def _difference(first: pl.DataFrame, other: pl.DataFrame, view: FeatureView) -> str:
    place = [*view.keys, EVENT_TIMESTAMP]
    joined = first.join(other, on=place, how="full", coalesce=True, suffix=":other", maintain_order="left_right")
    told = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}:other")) for name in view.columns)
    missing = [frame.join(against, on=place, how="anti") for frame, against in ((first, other), (other, first))]
    rows = joined.filter(told) if joined.height else joined
    return f"{rows.row(0, named=True) if rows.height else 'order'}; {missing[0].height} rows lack, {missing[1].height} too many"


@contextmanager
def _borrowed(lake: Lake) -> Iterator[Lake]:
    """Give a lake of its own that has another's events, for rows that nobody keeps."""
    with tempfile.TemporaryDirectory(prefix="headway-compare-") as folder:
        root = Path(folder)
        (root / EVENTS).symlink_to(lake.path(EVENTS), target_is_directory=True)
        yield Lake(root)


def _written(lake: Lake, view: FeatureView, mode: Mode) -> pl.DataFrame:
    columns = [*view.keys, EVENT_TIMESTAMP, *view.columns]
    return lake.read(table_of(view, mode).name, columns=columns).sort(*view.keys, EVENT_TIMESTAMP)


def _mode(arguments: Namespace) -> Mode:
    mode: Mode = arguments.mode or "as_served"
    return mode


def _views(arguments: Namespace, domain: "Domain") -> Sequence[FeatureView]:
    return [domain.view(name) for name in arguments.view] or domain.views


def _window(arguments: Namespace, lake: Lake) -> Window:
    known = lake.scan(EVENTS).select(first=pl.col("time").min(), last=pl.col("time").max()).collect().row(0)
    if None in known:
        raise ContractViolation("lake table events: is empty; load history or stream events first")
    oldest_us, newest_us = map(to_us, known)
    from_us, until_us = oldest_us, newest_us + 1
    if arguments.start is not None:
        from_us = parse_instant_us(arguments.start, field="--from")
    if arguments.until is not None:
        until_us = parse_instant_us(arguments.until, field="--until")
    if from_us >= until_us:
        raise InputRejected(
            f"features backfill: got [{format_us(from_us)}, {format_us(until_us)}), wanted --from before --until"
        )
    return Window(from_us=from_us, until_us=until_us)
