"""Random views and streams: ties, duplicates, disorder, nulls, late and too-late events, ticks and restarts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import polars as pl
from hypothesis import Phase, settings
from hypothesis import strategies as st

from headway.clock import MINUTE_US
from headway.features.bruteforce import Seen
from headway.features.columns import Value
from headway.features.definitions import Aggregate, FeatureView, Function
from headway.features.tiles import Key, tile_of
from headway.features.windows import Row, ViewTask

START_US = 1_372_636_800_000_000  # 2013-07-01T00:00:00Z, a multiple of every hop used here
HOP = 5
LATENESS_MIN = st.sampled_from([0, 5, 12, 60])
quick = settings(max_examples=80, deadline=None)
mutant_hunt = settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An event as stage 1 forwards it."""

    partition: int
    key: Key
    event_id: str
    time_us: int
    values: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Tick:
    partition: int
    tick_us: int


@dataclass(frozen=True)
class Restart:
    """The batch is committed and another process takes over from the state records."""


Step = Arrival | Tick | Restart


@dataclass(frozen=True, kw_only=True)
class Stream:
    view: FeatureView
    partitions: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An arrival with what its own partition says about it."""

    arrival: Arrival
    tick_before_us: int | None
    too_late: bool


@dataclass
class Outcome:
    rows: list[Row] = field(default_factory=list)
    lake: list[Judged] = field(default_factory=list)
    state: dict[bytes, bytes] = field(default_factory=dict)
    online: list[tuple[int, dict[tuple[Key, int], Row]]] = field(default_factory=list)


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


FIELDS: dict[Function, tuple[str | None, ...]] = {
    "count": (None, "delay", "gust"),
    "sum": ("delay",),
    "mean": ("delay",),
    "min": ("delay", "gust"),
    "max": ("delay", "gust"),
    "last": ("delay", "gust"),
    "last_at": (None, "gust"),
    "last_ever": ("delay", "gust"),
}


@st.composite
def aggregates(draw: st.DrawFn) -> Aggregate:
    function = draw(st.sampled_from(sorted(FIELDS)))
    name = draw(st.sampled_from(FIELDS[function]))
    window = None if function == "last_ever" else minutes(HOP * draw(st.sampled_from([1, 2, 3, 6])))
    return Aggregate(function=function, field=name, window=window)


@st.composite
def views(draw: st.DrawFn, *, lateness_min: st.SearchStrategy[int] = LATENESS_MIN) -> FeatureView:
    lateness = draw(lateness_min)
    chosen = draw(st.lists(aggregates(), min_size=1, max_size=6, unique_by=lambda a: a.name))
    return view_of(*chosen, lateness_min=lateness, keys=draw(st.sampled_from([("origin",), ("origin", "carrier")])))


def view_of(*chosen: Aggregate, lateness_min: int = 60, keys: tuple[str, ...] = ("origin",)) -> FeatureView:
    return FeatureView(
        name="delay",
        version=1,
        keys=keys,
        source="flight.departed.v1",
        fields={"delay": "int64", "gust": "float64"},
        aggregates=chosen,
        owner="tests",
        description="A view under test.",
        hop=minutes(HOP),
        lateness=minutes(lateness_min),
    )


def keys_of(view: FeatureView) -> list[Key]:
    return [("EWR", "AA"), ("JFK", "B6"), ("EWR", "B6")] if len(view.keys) == 2 else [("EWR",), ("JFK",)]


measures = st.fixed_dictionaries(
    {
        "delay": st.none() | st.integers(-30, 30),
        "gust": st.none() | st.floats(-5, 5, width=32),
    }
)


@st.composite
def streams(draw: st.DrawFn, *, view: FeatureView | None = None, max_steps: int = 40) -> Stream:
    """Partitions tick on their own; events fall before and after their partition's tick; some come twice."""
    chosen = draw(views()) if view is None else view
    partitions = draw(st.integers(1, 3))
    kinds = draw(st.lists(st.sampled_from("eeeeee==ttttr2"), min_size=1, max_size=max_steps))
    ticks = dict.fromkeys(range(partitions), 0)
    steps: list[Step] = []
    for number, kind in enumerate(kinds):
        partition = draw(st.integers(0, partitions - 1))
        sent = [step for step in steps if isinstance(step, Arrival)]
        if kind == "e" or (kind in "=2" and not sent):
            at = ticks[partition] + draw(st.integers(-20, 25))
            steps.append(draw(arrivals(chosen, partition=partition, minute=at, number=number)))
        elif kind == "=":  # a tie
            first = draw(st.sampled_from(sent))
            tied = draw(arrivals(chosen, partition=partition, minute=0, number=number))
            steps.append(replace(tied, key=first.key, time_us=first.time_us))
        elif kind == "t":
            ticks[partition] += HOP * draw(st.integers(1, 3))
            steps.append(Tick(partition=partition, tick_us=START_US + ticks[partition] * MINUTE_US))
        elif kind == "r":
            steps.append(Restart())
        else:
            first = draw(st.sampled_from(sent))
            steps.append(
                Arrival(
                    partition=first.partition,
                    key=first.key,
                    event_id=first.event_id,
                    time_us=first.time_us,
                    values=draw(measures),
                )
            )
    return Stream(view=chosen, partitions=partitions, steps=tuple(steps))


@st.composite
def arrivals(draw: st.DrawFn, view: FeatureView, *, partition: int, minute: int, number: int) -> Arrival:
    return Arrival(
        partition=partition,
        key=draw(st.sampled_from(keys_of(view))),
        event_id=f"{draw(st.sampled_from('abc'))}{number}",  # ids do not sort like arrivals
        time_us=START_US + minute * MINUTE_US,
        values=draw(measures),
    )


@st.composite
def lockstep_streams(draw: st.DrawFn, *, rounds: int = 5) -> Stream:
    """What the replayer sends: the events of a step, some late, then the same tick to every partition (S7)."""
    view = draw(views())
    partitions = draw(st.integers(1, 3))
    steps: list[Step] = []
    now = 0
    for _ in range(draw(st.integers(2, rounds))):
        ahead = HOP * draw(st.integers(1, 3))
        for _ in range(draw(st.integers(0, 6))):
            minute = now + draw(st.integers(-25, ahead + 10))
            partition = draw(st.integers(0, partitions - 1))
            steps.append(draw(arrivals(view, partition=partition, minute=minute, number=len(steps))))
        now += ahead
        steps += [Tick(partition=p, tick_us=START_US + now * MINUTE_US) for p in range(partitions)]
    return Stream(view=view, partitions=partitions, steps=tuple(steps))


def run(stream: Stream, *, task: ViewTask | None = None, first_revision: int = 1) -> Outcome:
    """Run the aggregator over a stream, restarting where it says so; remember what was online at equal ticks."""
    outcome = Outcome()
    partitions = range(stream.partitions)
    task = task or ViewTask(stream.view, partitions)
    ticks: dict[int, int | None] = dict.fromkeys(partitions)
    final: dict[tuple[Key, int], Row] = {}
    for revision, step in enumerate(stream.steps, first_revision):
        rows: list[Row] = []
        match step:
            case Arrival():
                before = ticks[step.partition]
                too_late = before is not None and step.time_us < before - stream.view.lateness_us
                outcome.lake.append(Judged(arrival=step, tick_before_us=before, too_late=too_late))
                rows = task.on_event(
                    step.key, step.event_id, step.time_us, step.values, tick_before_us=before, revision=revision
                )
            case Tick():
                ticks[step.partition] = step.tick_us
                rows = task.on_tick(step.partition, step.tick_us, revision=revision)
            case Restart():
                commit(outcome, task)
                task = ViewTask.restore(stream.view, partitions, outcome.state.items())
        outcome.rows += rows
        final.update({(row.key, row.event_time_us): row for row in rows})
        if isinstance(step, Tick) and len(set(ticks.values())) == 1:
            outcome.online.append((step.tick_us, dict(final)))
    commit(outcome, task)
    return outcome


def commit(outcome: Outcome, task: ViewTask) -> None:
    """Write the task's changes as a compacted topic would keep them."""
    for key, value in task.dirty_state():
        if value is None:
            outcome.state.pop(key, None)
        else:
            outcome.state[key] = value


def counted(view: FeatureView, lake: Iterable[Judged]) -> dict[Key, list[Seen]]:
    """The events an engine has to count, by entity: not too late, an id once per tile."""
    kept: dict[Key, list[Seen]] = {}
    ids: set[tuple[Key, int, str]] = set()
    for judged in lake:
        arrival = judged.arrival
        identity = (arrival.key, tile_of(arrival.time_us, view.hop_us), arrival.event_id)
        if judged.too_late or identity in ids:
            continue
        ids.add(identity)
        kept.setdefault(arrival.key, []).append(
            Seen(time_us=arrival.time_us, event_id=arrival.event_id, values=arrival.values)
        )
    return kept


def last_tick(stream: Stream) -> int | None:
    """The watermark at the end of a stream."""
    ticks: dict[int, int | None] = dict.fromkeys(range(stream.partitions))
    for step in stream.steps:
        if isinstance(step, Tick):
            ticks[step.partition] = step.tick_us
    known = [tick for tick in ticks.values() if tick is not None]
    return min(known) if len(known) == stream.partitions else None


def lake_frame(view: FeatureView, lake: Iterable[Judged]) -> pl.DataFrame:
    """Rows of the lake's events table, first arrival of each id only, among rows that are none of the view's business."""
    rows = []
    ids: set[tuple[str, int]] = set()
    for offset, judged in enumerate(lake):
        arrival = judged.arrival
        if (arrival.event_id, arrival.time_us) in ids:
            continue
        ids.add((arrival.event_id, arrival.time_us))
        named = dict(zip(view.keys, arrival.key, strict=True))
        row = {"id": arrival.event_id, "time": arrival.time_us, **named, **arrival.values}
        row |= {"tick_before": judged.tick_before_us, "too_late": judged.too_late}
        row |= {"topic": "events.enriched", "partition": arrival.partition, "offset": offset}
        rows.append({**row, "type": view.source})
        rows.append({**row, "id": f"other-{offset}", "type": "flight.arrived.v1"})
        rows.append({**row, "id": f"nobody-{offset}", "type": view.source, view.keys[-1]: None})
    schema = {
        "id": pl.String(),
        "type": pl.String(),
        "time": pl.Int64(),
        **dict.fromkeys(view.keys, pl.String()),
        "delay": pl.Int64(),
        "gust": pl.Float64(),
        "tick_before": pl.Int64(),
        "too_late": pl.Boolean(),
        "topic": pl.String(),
        "partition": pl.Int64(),
        "offset": pl.Int64(),
    }
    frame = pl.DataFrame(rows, schema=schema)
    return frame.with_columns(pl.col("time", "tick_before").cast(pl.Datetime("us", "UTC")))
