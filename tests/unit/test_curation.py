"""Of every event one fate, of every thing one row, and both the same whatever the order and the days made together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.flights.contracts import ARRIVED, CANCELLED, DEPARTED, DIVERTED, LATE_MIN, SCHEDULED
from domains.flights.curated import FLIGHTS, flight_rows
from domains.flights.domain import DOMAIN
from headway.clock import DAY_US, HOUR_US, MINUTE_US, from_us
from headway.curation import Curated, curate, days_of, reconcile
from headway.drift import Window
from headway.errors import ContractViolation
from headway.lake import INSTANT, events_table
from headway.warehouse import DAY, EVENTS, FATES
from tests.strategies import START_US, quick

READ = {
    name: dtype
    for name, dtype in events_table(DOMAIN).columns.items()
    if name in {"id", "source", "type", "time", "topic", "partition", "offset", "tick_before", "too_late"}
    or name in FLIGHTS.reads
}
OUTCOMES = {ARRIVED: "arrived", CANCELLED: "cancelled", DIVERTED: "diverted"}


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One row of the lake: an event as it was written once; history in bulk has no offset."""

    flight: int
    kind: str
    offset: int | None
    delay_min: int = 0
    tick_after_min: int | None = None  # the tick before it, in minutes after the event's own time
    too_late: bool = False

    @property
    def sched_dep(self) -> datetime:
        # Flights of an hour each, from noon on: the first twelve are of one day, the next twelve of the next.
        return from_us(START_US + (12 + self.flight) * HOUR_US)

    @property
    def time(self) -> datetime:
        hours = {SCHEDULED: -24, DEPARTED: 0, ARRIVED: 2, CANCELLED: 0, DIVERTED: 2}[self.kind]
        return self.sched_dep + timedelta(hours=hours, minutes=self.delay_min)

    @property
    def fate(self) -> str:
        if self.too_late:
            return "too_late"
        return "late" if self.tick_after_min is not None and self.tick_after_min >= 0 else "on_time"

    def row(self) -> dict[str, Any]:
        tick = None if self.tick_after_min is None else self.time + timedelta(minutes=self.tick_after_min)
        return {
            "id": f"{self.flight}/{self.kind}",
            "source": DOMAIN.source,
            "type": self.kind,
            "subject": f"flight-{self.flight}",
            "time": self.time,
            "carrier": "UA",
            "flight": self.flight + 1,
            "origin": "EWR",
            "dest": "IAH",
            "sched_dep": self.sched_dep,
            "sched_arr": self.sched_dep + timedelta(hours=2),
            "distance_mi": 1400,
            "dep_delay_min": self.delay_min if self.kind == DEPARTED else None,
            "arr_delay_min": self.delay_min if self.kind == ARRIVED else None,
            "air_time_min": 100 if self.kind == ARRIVED else None,
            "topic": None if self.offset is None else "events.enriched",
            "partition": None if self.offset is None else self.flight % 4,
            "offset": self.offset,
            "tick_before": tick,
            "too_late": None if self.offset is None else self.too_late,
        }


def events(copies: Sequence[Copy]) -> pl.DataFrame:
    return pl.DataFrame([copy.row() for copy in copies], schema=READ, orient="row")


@st.composite
def lakes(draw: st.DrawFn) -> list[Copy]:
    """What a lake may hold: any of a flight's events, some in bulk, some several times and not always equal."""
    copies = []
    for flight in draw(st.lists(st.integers(0, 23), unique=True, max_size=4)):
        kinds = draw(st.lists(st.sampled_from([SCHEDULED, DEPARTED, *OUTCOMES]), unique=True, min_size=1, max_size=4))
        for number, kind in enumerate(kinds):
            bulk = draw(st.booleans())
            times = draw(st.integers(1, 3))
            for again in range(times):
                offset = None if bulk and again == 0 else 10 * number + again
                copies.append(
                    Copy(
                        flight=flight,
                        kind=kind,
                        offset=offset,
                        delay_min=draw(st.sampled_from([0, 7, 15, 16, 90])),
                        tick_after_min=None if offset is None else draw(st.sampled_from([None, -5, 0, 30])),
                        too_late=offset is not None and draw(st.booleans()),
                    )
                )
    return copies


def first_written(copies: Sequence[Copy]) -> dict[tuple[int, str], Copy]:
    first: dict[tuple[int, str], Copy] = {}
    for copy in copies:
        known = first.get((copy.flight, copy.kind))
        if known is None or place(copy) < place(known):
            first[copy.flight, copy.kind] = copy
    return first


def place(copy: Copy) -> int:
    return -1 if copy.offset is None else copy.offset


def expected_row(flight: int, kept: Mapping[str, Copy]) -> dict[str, Any]:
    """A flight's row in plain words: of its outcomes the one written last, of equals the later."""
    departed = kept.get(DEPARTED)
    ended = [kept[kind] for kind in OUTCOMES if kind in kept]
    last = max(ended, key=lambda copy: (place(copy), copy.time, copy.row()["id"]), default=None)
    arrived = last is not None and last.kind == ARRIVED
    any_copy = next(iter(kept.values()))
    return {
        "subject": f"flight-{flight}",
        "sched_dep": any_copy.sched_dep,
        "departed": departed and departed.time,
        "dep_delay_min": departed and departed.delay_min,
        "outcome": "unknown" if last is None else OUTCOMES[last.kind],
        "outcome_at": last and last.time,
        "arr_delay_min": last.delay_min if last is not None and arrived else None,
        "late": last.delay_min > LATE_MIN if last is not None and arrived else None,
        DAY: f"{any_copy.sched_dep:%Y-%m-%d}",
        EVENTS: len(kept),
        "too_late_events": sum(copy.too_late for copy in kept.values()),
    }


@quick
@given(lakes())
def test_rows_are_those_of_the_first_copy_of_each_event(copies: list[Copy]) -> None:
    made = curate(FLIGHTS, events(copies))

    first = first_written(copies)
    flights = sorted({flight for flight, _ in first}, key=lambda flight: (flight >= 12, f"flight-{flight}"))
    wanted = [expected_row(f, {kind: c for (g, kind), c in first.items() if g == f}) for f in flights]
    assert made.rows.select(list(wanted[0]) if wanted else DAY).to_dicts() == wanted


@quick
@given(lakes())
def test_every_event_has_one_fate(copies: list[Copy]) -> None:
    made = curate(FLIGHTS, events(copies))

    fates = Counter(copy.fate for copy in first_written(copies).values())
    fates["duplicates"] = len(copies) - sum(fates.values())
    assert {fate: made.quality[fate].sum() for fate in FATES} == {fate: fates[fate] for fate in FATES}
    assert made.quality[EVENTS].sum() == len(copies)
    assert made.rows[EVENTS].sum() == len(copies) - fates["duplicates"]


@quick
@given(lakes(), st.randoms(use_true_random=False))
def test_no_order_of_arrival_in_the_lakes_files_can_be_seen(copies: list[Copy], random: Any) -> None:
    """Delta has no order of rows: files are read in any, and compaction changes it."""
    shuffled = random.sample(copies, k=len(copies))

    assert same(curate(FLIGHTS, events(copies)), curate(FLIGHTS, events(shuffled)))


@quick
@given(lakes(), st.randoms(use_true_random=False))
def test_equal_copies_give_equal_rows_in_whichever_order_they_were_written(copies: list[Copy], random: Any) -> None:
    """Two deliveries of one event race: which of them the log has first is chance, and what the row says is not."""
    equal = [replace(c, delay_min=7, tick_after_min=None, too_late=False, offset=None) for c in copies]
    streamed = [replace(copy, offset=number) for number, copy in enumerate(equal)]
    raced = [replace(copy, offset=number) for number, copy in enumerate(random.sample(equal, k=len(equal)))]
    outcomes = Counter(copy.flight for copy in {replace(c, offset=None) for c in streamed} if copy.kind in OUTCOMES)
    one_outcome = [f for f, n in outcomes.items() if n > 1]

    first, second = (
        curate(FLIGHTS, events([c for c in each if c.flight not in one_outcome])) for each in (streamed, raced)
    )

    assert same(first, second)


@quick
@given(lakes())
def test_a_days_rows_do_not_depend_on_the_days_made_with_it(copies: list[Copy]) -> None:
    whole = curate(FLIGHTS, events(copies))
    by_day = [
        curate(FLIGHTS, events([copy for copy in copies if (copy.flight >= 12) == next_day]))
        for next_day in (False, True)
    ]

    assert whole.rows.equals(pl.concat([part.rows for part in by_day]))
    assert whole.quality.equals(pl.concat([part.quality for part in by_day]))


def test_a_flight_that_is_said_to_leave_on_two_days_is_made_of_each_alone() -> None:
    """A producer's fault, which the check of the keys shows; it must not make a day's rows depend on its neighbours."""
    told = events([Copy(flight=0, kind=SCHEDULED, offset=1), Copy(flight=1, kind=SCHEDULED, offset=3)])
    torn = events([Copy(flight=0, kind=DEPARTED, offset=2)]).with_columns(pl.col("sched_dep") + timedelta(days=1))

    made = curate(FLIGHTS, pl.concat([told, torn]))

    assert made.rows.select("subject", DAY, EVENTS).rows() == [
        ("flight-0", "2013-07-01", 1),
        ("flight-1", "2013-07-01", 1),
        ("flight-0", "2013-07-02", 1),
    ]
    assert made.rows.filter(pl.col(DAY) == "2013-07-02").equals(curate(FLIGHTS, torn).rows)


def test_two_sources_may_use_one_id_and_a_repeat_is_one_of_the_same_day() -> None:
    """Identity is (source, id); a copy that names another day is counted there, whichever days are made together."""
    told = events([Copy(flight=0, kind=SCHEDULED, offset=1)])
    elsewhere = told.with_columns(source=pl.lit("/other"))
    tomorrow = told.with_columns(pl.col("sched_dep") + timedelta(days=1))

    made = curate(FLIGHTS, pl.concat([told, elsewhere, told.with_columns(offset=pl.lit(2, pl.Int64)), tomorrow]))

    assert made.quality.select(DAY, EVENTS, "duplicates").rows() == [("2013-07-01", 3, 1), ("2013-07-02", 1, 0)]
    assert made.rows.select(DAY, EVENTS).rows() == [("2013-07-01", 2), ("2013-07-02", 1)]


def test_no_events_are_no_rows_in_the_tables_columns() -> None:
    made = curate(FLIGHTS, events([]))

    assert dict(made.rows.schema) == dict(FLIGHTS.table.columns)
    assert made.rows.is_empty()
    assert made.quality.is_empty()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda e: flight_rows(e).drop("late"), "got"),
        (lambda e: flight_rows(e).head(1), "gave 1 rows, 1 of them distinct by .* for 2 things"),
        (lambda e: pl.concat([flight_rows(e), flight_rows(e)]), "gave 4 rows, 2 of them distinct by .* for 2 things"),
        (lambda e: flight_rows(e).with_columns(subject=pl.lit(None, pl.String)), "gave 2 rows, 1 of them distinct"),
    ],
)
def test_a_build_that_breaks_its_promise_is_refused(build: Any, said: str) -> None:
    with pytest.raises(ContractViolation, match=rf"curated table flights, build: {said}"):
        curate(
            replace(FLIGHTS, build=build),
            events([Copy(flight=0, kind=SCHEDULED, offset=1), Copy(flight=1, kind=SCHEDULED, offset=2)]),
        )


def test_local_days_are_those_of_new_york() -> None:
    """21:30 on 30 June there is already July in UTC; the partition is UTC's, the week of a report is New York's."""
    late = events([Copy(flight=0, kind=SCHEDULED, offset=None)]).with_columns(
        sched_dep=pl.lit(from_us(START_US + 90 * MINUTE_US)).cast(INSTANT)
    )

    assert curate(FLIGHTS, late).rows.select(DAY, pl.col("local_day").cast(pl.String)).rows() == [
        ("2013-07-01", "2013-06-30")
    ]


def test_days_of_a_window_leave_out_its_end() -> None:
    assert days_of(Window(from_us=START_US, until_us=START_US + 2 * DAY_US)) == ["2013-07-01", "2013-07-02"]


COUNTED = {"events": 3, "on_time": 1, "late": 1, "too_late": 0, "duplicates": 1}


def counted(**change: int) -> pl.DataFrame:
    return pl.DataFrame({"dataset": ["flights"], DAY: ["2013-07-01"], "type": [ARRIVED], **COUNTED, **change})


def days(**by_day: int) -> pl.DataFrame:
    named = [f"2013-07-0{day[1:]}" for day in by_day]
    return pl.DataFrame({DAY: named, EVENTS: list(by_day.values())}).with_columns(strays=pl.lit(0, pl.Int64))


def rows(events: int) -> pl.DataFrame:
    return days(d1=events).drop("strays")


@pytest.mark.parametrize(
    ("in_lake", "quality", "in_rows", "wrong", "behind"),
    [
        (days(d1=3), counted(), rows(2), 0, 0),
        (days(d1=4), counted(), rows(2), 1, 0),  # an event that was not counted
        (days(d1=2), counted(), rows(2), 1, 0),  # one that is not there any more
        (days(d1=3), counted(), rows(3), 1, 0),  # a row too many
        (days(d1=3), counted(), rows(2).clear(), 1, 0),  # rows lost
        (days(d1=3), counted(late=0), rows(2), 1, 0),  # an event without a fate
        (days(d1=3), counted().clear(), rows(2), 1, 0),  # rows nobody counted
        (days(d1=3, d2=5), counted(), rows(2), 0, 1),  # a day nobody has made
        (days(d2=5), counted(), rows(2), 1, 1),  # a day whose events are gone
    ],
)
def test_what_does_not_add_up_is_named(
    in_lake: pl.DataFrame, quality: pl.DataFrame, in_rows: pl.DataFrame, wrong: int, behind: int
) -> None:
    found = reconcile(in_lake, quality, in_rows, read=in_lake.filter(pl.col(DAY) == "2013-07-01"))

    assert (found.wrong.height, len(found.behind)) == (wrong, behind)
    assert set(found.wrong[DAY]) <= {"2013-07-01"}


def test_strays_are_no_part_of_what_has_to_add_up_and_are_told() -> None:
    stray = pl.lit(1, pl.Int64)
    four, three = (days(d1=events).with_columns(strays=stray) for events in (4, 3))

    assert reconcile(four, counted(), rows(2), read=four).wrong.is_empty()
    assert reconcile(three, counted(), rows(2), read=three).wrong.height == 1
    assert reconcile(four, counted(), rows(2), read=four.clear()).strays == 1


def test_a_day_made_before_the_newest_events_came_is_behind_and_not_wrong() -> None:
    nothing = days(d1=1).clear()

    found = reconcile(days(d1=4), counted(), rows(2), read=nothing)

    assert (found.wrong.height, found.behind) == (0, ("2013-07-01",))
    assert reconcile(days(d1=2), counted(), rows(2), read=nothing).wrong.height == 1


def test_events_that_came_while_a_run_was_at_work_are_no_fault_of_it() -> None:
    """It read two or three; another run counted three by now, and the lake has four."""
    for read in (2, 3):
        found = reconcile(days(d1=4), counted(), rows(2), read=days(d1=read))
        assert (found.wrong.height, found.behind) == (0, ("2013-07-01",))

    missed = reconcile(days(d1=5), counted(), rows(2), read=days(d1=4))
    assert (missed.wrong.height, missed.behind) == (1, ())


def same(first: Curated, second: Curated) -> bool:
    return first.rows.equals(second.rows) and first.quality.equals(second.quality)
