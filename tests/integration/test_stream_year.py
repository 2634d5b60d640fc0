"""Every flight of the year, asked by its event and by a request: the same answer to the bit, on a real online store.

Each month every entity gets other values, some of them null, so that no two months are alike. What the stream refuses,
a request is refused too.
"""

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from domains.flights.contracts import SCHEDULED
from domains.flights.source import iter_events
from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory import MemoryBroker, MemoryPublisher
from headway.adapters.memory_registry import MemoryRegistry
from headway.adapters.redis_online import OnlineReader, OnlineRow, OnlineWriter
from headway.clock import DAY_US, HOUR_US, SystemClock, format_us, parse_instant_us
from headway.contracts import Reference
from headway.events import TYPE_HEADER, Event, encode_event
from headway.manifest import Manifest
from headway.ports import Message
from headway.predictor import Predictor, open_predictor
from headway.registry import LIVE
from headway.scores import decode_score
from headway.ticks import TICK_BEFORE_HEADER
from headway.topics import EVENTS_ENRICHED, scores_topic, topic_table
from orchestration.chaos.scoring import model_version
from serving.predict import PredictionApi
from serving.scoring import Parts
from streaming.due_reads import OnlineReads
from streaming.handlers.score import ScoreHandler
from streaming.live_models import LiveModels
from tests.serving_world import product
from tests.valkey_world import running_valkey

# redis-py warns about its own deprecations.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(1800),
]
PRODUCT, PROJECT = product(), "year"
FROM_US = parse_instant_us("2013-01-01T00:00:00Z", field="start")
UNTIL_US = parse_instant_us("2014-01-02T00:00:00Z", field="end")
STEP_US = 31 * DAY_US
AT_ONCE = 500

# The subject and instant of a question, and its probability; None where it was refused.
Answers = dict[tuple[str, int], float | None]


def parts(events: Sequence[tuple[Event, int]], size: int) -> Iterator[Sequence[tuple[Event, int]]]:
    return (events[at : at + size] for at in range(0, len(events), size))


def asked_us(event: Event) -> int:
    request = PRODUCT.parse_request(request_of(event, None))
    return PRODUCT.asked_at_us(request)


def request_of(event: Event, as_of_us: int | None) -> bytes:
    names = [name for name in PRODUCT.request.__struct_fields__ if name != "as_of"]
    body = {name: event.data[name] for name in names}
    return orjson.dumps(body if as_of_us is None else {**body, "as_of": format_us(as_of_us)})


def fill(url: str, events: Sequence[tuple[Event, int]], *, generator: random.Random, row_us: int) -> None:
    """Give every entity that these events name new values, older than all their questions."""
    rows = []
    for view in PRODUCT.feature_views.values():
        features = PRODUCT.use(view.qualified).features
        entities = {tuple(event.data[key] for key in view.keys) for event, _ in events}
        for entity in sorted(entity for entity in entities if None not in entity):
            values = {
                name: None
                if generator.random() < 0.1
                else row_us - generator.randrange(HOUR_US)
                if name.startswith("last_at")
                else generator.randrange(100)
                for name in features
            }
            keys = dict(zip(view.keys, entity, strict=True))
            rows.append(
                OnlineRow(view=view.online_name, keys=keys, event_timestamp_us=row_us, revision=1, values=values)
            )
    with closing(OnlineWriter(url, PROJECT)) as writer:
        writer.write(rows)
        for view in PRODUCT.feature_views.values():
            writer.write_watermarks(view.online_name, {0: (UNTIL_US + DAY_US) // 1000}, 1)


def by_stream(scorer: ScoreHandler, events: Sequence[tuple[Event, int]], numbers: Iterator[int]) -> Answers:
    found: Answers = {}
    for part in parts(events, AT_ONCE):
        instants: dict[int, tuple[str, int]] = {}
        batch = []
        for event, due_us in part:
            offset = next(numbers)
            instants[offset] = (event.subject, due_us)
            headers = ((TYPE_HEADER, event.type.encode()), (TICK_BEFORE_HEADER, b"%d" % due_us))
            batch.append(Message(EVENTS_ENRICHED, 0, offset, event.subject.encode(), encode_event(event), headers, 0))
        answers = dict.fromkeys(instants.values())
        for record in scorer.handle(batch):
            if record.topic == scores_topic(PRODUCT.name):
                score = decode_score(record.value or b"")
                assert not score.degraded
                assert not score.stale
                answers[instants[score.input.offset]] = score.probability
        found |= answers
    return found


async def by_request(api: PredictionApi, events: Sequence[tuple[Event, int]]) -> Answers:
    found: Answers = {}

    async def ask(event: Event, due_us: int) -> None:
        status, answer = await posted(api, request_of(event, due_us))
        assert status in (200, 400), answer
        found[event.subject, due_us] = answer["probability"] if status == 200 else None

    for part in parts(events, 16):
        await asyncio.gather(*(ask(event, due_us) for event, due_us in part))
    return found


async def posted(api: PredictionApi, body: bytes) -> tuple[int, dict[str, Any]]:
    """Give the API one request as its server would."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/v1/{PRODUCT.name}/predict"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-type", b"application/json")]}
    await api({**scope, "query_string": b"", "raw_path": path.encode()}, receive, send)
    return sent[0]["status"], orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))


def scorer_of(version: tuple[bytes, Manifest], reads: OnlineReads, reference: Reference) -> ScoreHandler:
    registry = MemoryRegistry()
    made = registry.register(*version, metrics={}, params={}, tags={}, run=None)
    registry.set_alias(PRODUCT.name, LIVE, made.version)
    models = LiveModels(PRODUCT.name, registry, lambda _: predictor_of(version))
    models.look()
    scorer = ScoreHandler(
        PRODUCT, models=models, reads=reads, reference=reference, restore=lambda *_: [], clock=SystemClock()
    )
    scorer.assigned([0])
    return scorer


def predictor_of(version: tuple[bytes, Manifest]) -> Predictor:
    return open_predictor(*version, load=LightGbm().load)


def test_the_stream_gives_every_flight_of_the_year_the_answer_of_a_request_to_the_bit(tmp_path: Path) -> None:
    events = [
        (event, asked_us(event)) for event in iter_events(FROM_US - 2 * DAY_US, UNTIL_US) if event.type == SCHEDULED
    ]
    events.sort(key=lambda each: (each[1], each[0].id))
    version = model_version(PRODUCT, [event for event, _ in events], seed=13)
    reference, generator, numbers = PRODUCT.domain.load_reference(), random.Random(13), itertools.count()
    answered, months = 0, 0
    with running_valkey(tmp_path) as url, closing(OnlineReads(PRODUCT, OnlineReader(url, PROJECT))) as reads:
        scorer = scorer_of(version, reads, reference)
        for _, group in itertools.groupby(events, key=lambda each: each[1] // STEP_US):
            month = list(group)
            fill(url, month, generator=generator, row_us=month[0][1] - HOUR_US)
            stream = by_stream(scorer, month, numbers)
            request = asyncio.run(requested(url, version, reference, month))

            differing = [asked for asked, probability in stream.items() if request[asked] != probability]
            assert differing == []
            assert stream.keys() == request.keys()
            answered += sum(probability is not None for probability in stream.values())
            months += 1
    print(f"{len(events):,} questions of {months} months, {answered:,} answered, all alike")  # noqa: T201

    assert answered > 330_000
    assert months >= 12


async def requested(
    store: str, version: tuple[bytes, Manifest], reference: Reference, events: Sequence[tuple[Event, int]]
) -> Answers:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[PRODUCT.name], replication_factor=1, min_insync_replicas=1))
    reader = OnlineReader(store, PROJECT)
    api = PredictionApi(
        Parts(
            product=PRODUCT,
            version=1,
            predictor=predictor_of(version),
            reference=reference,
            reader=reader,
            publisher=MemoryPublisher(broker),
            clock=SystemClock(),
        )
    )
    try:
        return await by_request(api, events)
    finally:
        await reader.close()
