"""What a trial of the stream scorer is made of: model versions, an online store with a row for everybody, and questions.

Questions are scheduled flights of history, written to events.enriched as the Enricher writes them, with a tick every 15
minutes of their time (S2). One in a hundred names an airport that nobody knows, and must become a letter.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from domains.flights.contracts import SCHEDULED
from domains.flights.source import iter_events
from headway.adapters.kafka_publisher import KafkaPublisher
from headway.adapters.lightgbm import LightGbm
from headway.adapters.redis_online import OnlineRow, OnlineWriter
from headway.clock import DAY_US, HOUR_US, MINUTE_US, monotonic_s, parse_instant_us
from headway.events import TYPE_HEADER, Event, encode_event
from headway.manifest import FORMAT, Manifest, TrainingFacts, golden_request, sha256
from headway.ports import Record
from headway.product import Product
from headway.settings import Settings
from headway.ticks import TICK_BEFORE_HEADER, tick_record
from headway.topics import EVENTS_ENRICHED, PARTITIONS
from headway.training import Matrix
from headway.vector import Assembler

FROM_US = parse_instant_us("2013-03-01T00:00:00Z", field="start")
STEP_US = 15 * MINUTE_US
# Nobody knows this airport.
NOWHERE = "QQQ"
_BAD_SHARE = 0.01
_ROWS = 2_000


def model_version(product: Product, events: Sequence[Event], *, seed: int) -> tuple[bytes, Manifest]:
    """Return a model of the product's own columns, fitted to noise: what it says does not matter, only that it says it."""
    generator = np.random.default_rng(seed)
    categories = {name: tuple(sorted({str(e.data[name]) for e in events})) for name in product.categories}
    assembler = Assembler(product.columns(categories))
    x = generator.normal(size=(_ROWS, len(assembler.columns)))
    for place, column in enumerate(assembler.columns):
        if column.kind == "category":
            x[:, place] = generator.integers(0, len(column.categories), _ROWS)
    rows = Matrix(
        assembler=assembler,
        x=x,
        labels=generator.uniform(size=_ROWS) < 1 / (1 + np.exp(-x[:, 0])),
        window_us=np.arange(_ROWS) * MINUTE_US,
        days=np.arange(_ROWS) // 100,
        slices={},
    )
    text = LightGbm().fit(rows, product.reference_model)
    scorer = LightGbm().load(text)
    golden = tuple(
        golden_request(request="{}", as_of_us=0, vector=row, score=scorer.score_row(row)) for row in x[:4].copy()
    )
    manifest = Manifest(
        format=FORMAT,
        product=product.name,
        spec="chaos",
        spec_digest=product.reference_model.digest,
        columns=assembler.columns,
        views=product.view_digests,
        reference_version=product.domain.load_reference().version,
        model_sha256=sha256(text),
        model_bytes=len(text),
        training=TrainingFacts(
            from_us=0,
            until_us=1,
            known_at_us=1,
            rows=_ROWS,
            positives=int(rows.labels.sum()),
            excluded={},
            tables={},
        ),
        metrics={},
        weeks=(),
        limits=None,
        golden=golden,
    )
    return text, manifest


def plan_rows(product: Product, events: Sequence[Event], generator: random.Random) -> list[OnlineRow]:
    """Return a row for every entity that a question names, older than all questions."""
    row_us = FROM_US - HOUR_US
    rows = []
    for view in product.feature_views.values():
        features = product.use(view.qualified).features
        named = {tuple(e.data[key] for key in view.keys) for e in events}
        rows += [
            OnlineRow(
                view=view.online_name,
                keys=dict(zip(view.keys, entity, strict=True)),
                event_timestamp_us=row_us,
                revision=1,
                values={n: row_us if n.startswith("last_at") else generator.randrange(100) for n in features},
            )
            for entity in sorted(entity for entity in named if None not in entity)
        ]
    return rows


def fill_store(settings: Settings, product: Product, rows: Sequence[OnlineRow]) -> int:
    """Write rows, and watermarks beyond all questions; return how many rows are new."""
    writer = OnlineWriter(f"redis://{settings.online_store}", settings.feast_project)
    try:
        written = writer.write(rows).applied
        ahead_ms = (FROM_US + 400 * DAY_US) // 1000
        for view in product.feature_views.values():
            writer.write_watermarks(view.online_name, dict.fromkeys(range(PARTITIONS), ahead_ms), PARTITIONS)
    finally:
        writer.close()
    return written


def plan_questions(*, days: int, generator: random.Random) -> list[Event]:
    """Return the flights put on the schedule in so many days, some of them to nowhere; by time."""
    scheduled = (e for e in iter_events(FROM_US, FROM_US + days * DAY_US) if e.type == SCHEDULED)
    return [_spoiled(event) if generator.random() < _BAD_SHARE else event for event in scheduled]


def body_of(product: Product, event: Event) -> dict[str, Any]:
    """Return what an event that asks says of a request: all but the instant."""
    return {name: event.data[name] for name in product.request.__struct_fields__ if name != "as_of"}


def asked_us(product: Product, event: Event) -> int:
    """Return the instant that an event asks for."""
    return product.asked_at_us(product.parse_request(msgspec.json.encode(body_of(product, event))))


def is_bad(event: Event) -> bool:
    """Whether a question cannot be answered."""
    return bool(event.data["dest"] == NOWHERE)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is written between two ticks, and the tick after it."""

    records: list[Record]
    tick_us: int


def steps_of(events: Sequence[Event]) -> Iterator[Step]:
    """Cut questions into steps of 15 minutes, and go on ticking until the last has fallen due."""
    place, tick_us = 0, FROM_US
    while place < len(events) or tick_us < events[-1].time_us + 2 * DAY_US:
        before_us, tick_us = tick_us, tick_us + STEP_US
        records = []
        while place < len(events) and events[place].time_us <= tick_us:
            records.append(_enriched(events[place], tick_before_us=before_us))
            place += 1
        yield Step(records=records, tick_us=tick_us)


class QuestionDrive:
    """Writes steps at a rate in a thread of its own; after `hurry` without pause, to the end."""

    def __init__(self, settings: Settings, steps: Iterator[Step], *, steps_per_s: float) -> None:
        self._publisher = KafkaPublisher(bootstrap=settings.kafka_bootstrap)
        self._steps, self._steps_per_s = steps, steps_per_s
        self._hurry = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="questions", daemon=True)
        self.written = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def hurry(self) -> None:
        """Write the rest without pause and return when it is written; raise what went wrong."""
        self._hurry.set()
        self._thread.join()
        self._publisher.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        begun_s = monotonic_s()
        try:
            for number, step in enumerate(self._steps):
                self._publisher.publish(step.records)
                self.written += len(step.records)
                ticks = [tick_record(EVENTS_ENRICHED, step.tick_us, partition=each) for each in range(PARTITIONS)]
                self._publisher.publish(ticks)
                wait_s = begun_s + number / self._steps_per_s - monotonic_s()
                if wait_s > 0 and not self._hurry.is_set():
                    time.sleep(wait_s)
        except BaseException as error:  # noqa: BLE001 - raised again where the drive is waited for
            self._error = error


def _spoiled(event: Event) -> Event:
    return msgspec.structs.replace(event, data={**event.data, "dest": NOWHERE})


def _enriched(event: Event, *, tick_before_us: int) -> Record:
    headers = (
        (TYPE_HEADER, event.type.encode()),
        ("raw_offset", b"0"),
        (TICK_BEFORE_HEADER, b"%d" % tick_before_us),
    )
    return Record(EVENTS_ENRICHED, event.subject.encode(), encode_event(event), headers)
