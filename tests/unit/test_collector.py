import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.clock import FrozenClock, from_us
from headway.errors import TransientFailure
from headway.events import encode_event, parse_event
from headway.letters import letter_of
from headway.ports import Position, Record
from headway.topics import EVENTS_RAW, EVENTS_RAW_LETTERS, topic_table
from serving.collector import Collector
from serving.collector_modes import BATCH, SINGLE
from tests.streaming_world import departed, instant


class Silent(MemoryPublisher):
    """A log that is away."""

    def publish_async(self, record: Record) -> asyncio.Future[Position]:
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        future.set_exception(TransientFailure(f"{record.topic}: not acknowledged"))
        return future


class Late(MemoryPublisher):
    """A log that answers when told to."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.asked: asyncio.Queue[asyncio.Future[Position]] = asyncio.Queue()

    def publish_async(self, record: Record) -> asyncio.Future[Position]:  # noqa: ARG002 - the port's signature
        answer: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return answer


def make_broker() -> MemoryBroker:
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[], replication_factor=1, min_insync_replicas=1))
    return broker


def post(publisher: MemoryPublisher, body: bytes, content_type: str) -> httpx.Response:
    app: Any = Collector(publisher, FrozenClock(from_us(instant("12:00"))), collector_id="c1")

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
            return await client.post("/v1/events", content=body, headers={"content-type": content_type})

    return asyncio.run(send())


def stored(broker: MemoryBroker, topic: str) -> list[Any]:
    return list(MemoryReader(broker).read(topic))


def test_an_accepted_event_is_in_the_log_with_its_reception_stamped() -> None:
    broker = make_broker()

    answer = post(MemoryPublisher(broker), encode_event(departed("a", at="10:00")), SINGLE)

    assert answer.status_code == 202
    [message] = stored(broker, EVENTS_RAW)
    event = parse_event(message.value)
    assert (event.id, event.collectorid, event.receivedat_us) == ("a", "c1", instant("12:00"))
    assert message.key == b"EWR"


def test_an_event_without_an_id_is_a_letter_and_a_400_that_names_the_field() -> None:
    broker = make_broker()
    body = orjson.dumps({k: v for k, v in orjson.loads(encode_event(departed("a", at="10:00"))).items() if k != "id"})

    answer = post(MemoryPublisher(broker), body, SINGLE)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith("id: missing")
    [letter] = [letter_of(message) for message in stored(broker, EVENTS_RAW_LETTERS)]
    assert (letter.reason, letter.path, letter.original) == ("invalid-envelope", "$.id", body)
    assert stored(broker, EVENTS_RAW) == []


def test_one_bad_event_of_a_batch_does_not_reject_the_rest_and_its_letter_keeps_its_bytes() -> None:
    broker = make_broker()
    bad = b'{"specversion": "1.0",   "id": 7}'
    body = b"[" + encode_event(departed("a", at="10:00")) + b", " + bad + b"]"

    answer = post(MemoryPublisher(broker), body, BATCH)

    assert answer.status_code == 207
    assert [result["status"] for result in answer.json()["results"]] == [202, 400]
    assert len(stored(broker, EVENTS_RAW)) == 1
    assert letter_of(stored(broker, EVENTS_RAW_LETTERS)[0]).original == bad


@pytest.mark.parametrize("body", [encode_event(departed("a", at="10:00")), b"no event at all"])
def test_without_an_acknowledgement_the_answer_is_503_with_retry_after(body: bytes) -> None:
    answer = post(Silent(make_broker()), body, SINGLE)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"x" * (256 * 1024 + 1), SINGLE, 413),
        (b"{}", "text/plain", 415),
        (b"{}", BATCH, 400),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", BATCH, 413),
    ],
)
def test_bodies_that_are_no_events_are_refused_by_kind(body: bytes, content_type: str, status: int) -> None:
    answer = post(MemoryPublisher(make_broker()), body, content_type)

    assert answer.status_code == status


def test_nobody_outside_may_send_a_tick() -> None:
    broker = make_broker()
    body = encode_event(departed("a", at="10:00")).replace(b"flight.departed.v1", b"headway.tick")

    answer = post(MemoryPublisher(broker), body, SINGLE)

    assert answer.status_code == 400
    assert stored(broker, EVENTS_RAW) == []


async def started(publisher: Late, settle: Callable[[asyncio.Future[Position]], None]) -> tuple[bool, str | None]:
    """Start a Collector, settle its first probe; give whether it was up before that, and why its log is away after."""
    app = Collector(publisher, FrozenClock(from_us(instant("12:00"))), collector_id="c1")
    asked: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    serving = asyncio.create_task(app({"type": "lifespan"}, asked.get, said.put))
    await asked.put({"type": "lifespan.startup"})
    probe = await asyncio.wait_for(publisher.asked.get(), 10)
    for _ in range(10):
        await asyncio.sleep(0)
    early = not said.empty()
    settle(probe)
    assert (await asyncio.wait_for(said.get(), 10))["type"] == "lifespan.startup.complete"
    away = app.log.away
    await asked.put({"type": "lifespan.shutdown"})
    await asyncio.wait_for(serving, 10)
    return early, away


def test_a_collector_is_up_once_the_log_has_answered_and_not_before() -> None:
    publisher = Late(make_broker())

    assert asyncio.run(started(publisher, lambda probe: probe.set_result(Position("probe", 0, 0)))) == (False, None)


def test_a_collector_is_up_without_a_log_too_and_knows_it() -> None:
    publisher = Late(make_broker())
    refused = TransientFailure("no broker")

    assert asyncio.run(started(publisher, lambda probe: probe.set_exception(refused))) == (False, "no broker")
