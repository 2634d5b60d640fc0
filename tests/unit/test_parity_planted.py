"""Parity over real flights through the real handlers: clean, it is green; a planted bug turns it red at its offset.

The plane runs in memory, so that a bug can be put between the stages; `make demo` checks the same on the real one.
"""

from collections.abc import Iterator
from functools import cache

import msgspec
import polars as pl
import pytest

from domains.flights.contracts import ARRIVED
from domains.flights.domain import DOMAIN
from domains.flights.source import iter_events
from headway.clock import HOUR_US, MINUTE_US, parse_instant_us
from headway.events import Event, parse_event
from headway.features.parity import Mismatch, ParityReport
from headway.features.windows import Row
from headway.features.wire import decode_input, decode_row, encode_input
from headway.ports import Record
from headway.prediction_parity import check_predictions
from headway.predictions import ModelId, Prediction, ServedView
from headway.ticks import SOURCE_PARTITION_HEADER, header, is_tick, is_watermark, tick_us_of
from headway.topics import EVENTS_ENRICHED, features_topic
from streaming.sinks.lake import event_rows
from tests.streaming_world import Corrupt, World
from tests.unlogged import unlogged_rows

START_US = parse_instant_us("2013-07-01T15:00:00Z", field="start")
STEPS = 12
STEP_US, HOP_US = 15 * MINUTE_US, 5 * MINUTE_US
END_US = START_US + STEPS * STEP_US


@cache
def flights() -> tuple[Event, ...]:
    return tuple(iter_events(START_US + 1, END_US + 1))


def victim() -> Event:
    """An arrival in the middle of the afternoon, at a destination that others reach too."""
    return next(
        e for e in flights() if e.type == ARRIVED and e.time_us > START_US + HOUR_US and e.data["dest"] == "ORD"
    )


class Online:
    """What the online store would hold: the newest row of every entity, and each view's least watermark."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, tuple[str, ...]], Row] = {}
        self.watermarks: dict[tuple[str, int], int] = {}

    def follow(self, world: World) -> None:
        for view in world.domain.views:
            for message in world.reader.read(features_topic(view.qualified)):
                if is_watermark(message):
                    place = (view.qualified, message.partition)
                    self.watermarks[place] = max(self.watermarks.get(place, 0), tick_us_of(message))
                else:
                    self._apply(decode_row(message.value or b""))

    def _apply(self, row: Row) -> None:
        seen = self.rows.get((row.view, row.key))
        if seen is None or (row.event_time_us, row.revision) > (seen.event_time_us, seen.revision):
            self.rows[row.view, row.key] = row

    def ask(self, world: World, number: int, as_of_us: int) -> Iterator[Prediction]:
        views = [self._serve(world, view.qualified, view.keys) for view in world.domain.views]
        yield Prediction(
            receipt=f"r{number}",
            product="p",
            as_of_us=as_of_us,
            requested_at_us=as_of_us,
            model=ModelId(name="m", version=1, digest="d"),
            reference_version="r",
            request=msgspec.Raw(b"{}"),
            views=tuple(views),
            probability=0.5,
            degraded=False,
            stale=(),
            source="request",
        )

    def _serve(self, world: World, name: str, keys: tuple[str, ...]) -> ServedView:
        entity = {"origin": "JFK", "carrier": "B6", "dest": "ORD", "tail": str(victim().data["tail"])}
        key = tuple(entity[part] for part in keys)
        view = world.domain.view(name)
        row = self.rows.get((name, key))
        return ServedView(
            view=name,
            key=dict(zip(keys, key, strict=True)),
            features=tuple(view.columns),
            values=tuple(row.values[f] if row else None for f in view.columns),
            row_time_us=row.event_time_us if row else None,
            watermark_us=min(w for (v, _), w in self.watermarks.items() if v == name),
        )


def replay(corrupt: Corrupt | None) -> tuple[pl.DataFrame, pl.DataFrame, World]:
    """Play the afternoon in lock-step, asking every quarter of an hour; return predictions and lake events."""
    world, online = World(domain=DOMAIN, corrupt=corrupt), Online()
    predictions: list[Prediction] = []
    pending = list(flights())
    for step in range(1, STEPS + 1):
        now_us = START_US + step * STEP_US
        for hop_us in range(now_us - STEP_US + HOP_US, now_us + 1, HOP_US):
            while pending and pending[0].time_us <= hop_us:
                world.send(pending.pop(0))
            world.tick_us(hop_us)
        world.run()
        online.follow(world)
        predictions.extend(online.ask(world, step, now_us))
    lake = event_rows(DOMAIN, [m for m in world.reader.read(EVENTS_ENRICHED) if not is_tick(m)])
    return unlogged_rows(predictions), lake, world


def judged(corrupt: Corrupt | None) -> ParityReport:
    predictions, lake, _ = replay(corrupt)
    return check_predictions(predictions, lake, DOMAIN.views)


def place_of_victim() -> tuple[str, int, int]:
    _, _, world = replay(None)
    for message in world.messages(EVENTS_ENRICHED):
        if parse_event(message.value or b"").id == victim().id:
            return message.topic, message.partition, message.offset
    raise AssertionError("the victim was not enriched")


def is_input(record: Record) -> bool:
    return not any(name == SOURCE_PARTITION_HEADER for name, _ in record.headers)


def is_victim(record: Record) -> bool:
    return is_input(record) and decode_input(record.value or b"").event_id == victim().id


def drop(records: list[Record]) -> list[Record]:
    return [record for record in records if not is_victim(record)]


def read_as_local(records: list[Record]) -> list[Record]:
    """Local clocks of New York taken for UTC: from the victim on, arrivals in Chicago are four hours too early."""
    changed = []
    for record in records:
        value = record.value or b""
        if is_input(record):
            item = decode_input(value)
            if item.view == "dest_delay.v1" and item.key == ("ORD",) and item.time_us >= victim().time_us:
                value = encode_input(msgspec.structs.replace(item, time_us=item.time_us - 4 * HOUR_US))
        changed.append(Record(record.topic, record.key, value, record.headers, record.partition))
    return changed


def deliver_late() -> Corrupt:
    """Hold the event back for an hour of ticks, without marking it as late."""
    held: list[Record] = []
    released = False

    def corrupt(records: list[Record]) -> list[Record]:
        nonlocal released
        held.extend(record for record in records if is_victim(record))
        rest = [record for record in records if not is_victim(record)]
        ticks = [int(record.value or b"") for record in rest if not is_input(record)]
        if held and not released and max(ticks, default=0) > victim().time_us + HOUR_US:
            released = True
            return [*rest, *held]
        return rest

    return corrupt


def test_a_clean_afternoon_has_no_mismatch_and_no_lag() -> None:
    report = judged(None)

    assert report.held
    assert report.checked > 300
    assert (report.mismatched, report.corrected) == (0, 0)
    assert max(lag.max_s for lag in report.lag) == 0


@pytest.mark.parametrize("plant", ["dropped", "time zone", "late"])
def test_a_planted_bug_turns_parity_red_at_the_offset_of_its_event(plant: str) -> None:
    corrupt = {"dropped": drop, "time zone": read_as_local, "late": deliver_late()}[plant]

    report = judged(corrupt)

    assert not report.held
    first: Mismatch = report.mismatches[0]
    position = first.first.position
    assert position is not None
    assert (position.topic, position.partition, position.offset) == place_of_victim()
    assert {"dest_delay.v1", "aircraft_arrival.v1"} >= {mismatch.view for mismatch in report.mismatches}


def test_an_honest_late_event_is_a_correction_and_no_mismatch() -> None:
    """A producer's late event is marked by the tick before it: what was served stays right, and the change is told."""
    world, online = World(domain=DOMAIN), Online()
    rest = [event for event in flights() if event is not victim()]
    predictions: list[Prediction] = []
    for step in range(1, STEPS + 1):
        now_us = START_US + step * STEP_US
        while rest and rest[0].time_us <= now_us:
            world.send(rest.pop(0))
        if step == STEPS - 1:
            world.send(victim())
        world.tick_us(now_us)
        world.run()
        online.follow(world)
        predictions.extend(online.ask(world, step, now_us))
    messages = [m for m in world.reader.read(EVENTS_ENRICHED) if not is_tick(m)]
    lake = event_rows(DOMAIN, messages)

    report = check_predictions(unlogged_rows(predictions), lake, DOMAIN.views)

    assert report.mismatched == 0
    assert report.corrected > 0
    late = {position.event_id for correction in report.corrected_later for position in correction.late}
    assert late == {victim().id}
    assert header(next(m for m in messages if parse_event(m.value or b"").id == victim().id), "tick_before") is not None
