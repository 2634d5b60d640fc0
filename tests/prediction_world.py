"""The prediction APIs of a small model with their surroundings in memory: online store, log, clock."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.clock import DAY_US, HOUR_US, FrozenClock, from_us, parse_instant_us
from headway.errors import TransientFailure
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows, StoredRow
from headway.features.readiness import ViewState
from headway.ports import Position, Record
from headway.predictions import Prediction, decode_prediction
from headway.topics import predictions_topic, topic_table
from serving.predict import PredictionApi
from serving.scoring import Parts
from tests.serving_world import product, trained

PREDICTIONS = predictions_topic(product().name)
AS_OF = "2013-07-01T14:00:00Z"
AS_OF_US = parse_instant_us(AS_OF, field="as_of")
NOW_US = AS_OF_US + DAY_US
VIEWS = len(product().views)


@dataclass
class Store:
    """An online store with one row for every entity; ``watermarks_us`` are given out read by read, the last for good.

    The rows of ``young_tail`` are from after every instant asked for.
    """

    row_us: int | None = AS_OF_US - HOUR_US
    young_tail: str | None = None
    watermarks_us: list[int | None] = field(default_factory=lambda: [AS_OF_US])
    away: bool = False
    asked: list[Sequence[Keys]] = field(default_factory=list)

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        async def read(rows: Sequence[Keys]) -> OnlineRows:
            self.asked.append(rows)
            if self.away:
                raise TransientFailure("online store: no answer")
            watermark_us = self.watermarks_us.pop(0) if len(self.watermarks_us) > 1 else self.watermarks_us[0]
            state = ViewState(watermark_us=watermark_us, bootstrapped_us=0, digest="d")
            return OnlineRows((state,) * len(views), [tuple(self._row(v, row) for v in views) for row in rows])

        return read

    async def close(self) -> None:
        self.away = True

    def _row(self, view: OnlineView, row: Keys) -> StoredRow | None:
        if None in [row[key] for key in view.keys]:
            return None
        if self.young_tail is not None and row.get("tail") == self.young_tail and "tail" in view.keys:
            return StoredRow((None,) * len(view.features), NOW_US + HOUR_US)
        values = tuple(
            None if self.row_us is None else self.row_us if name.startswith("last_at") else place
            for place, name in enumerate(view.features)
        )
        return StoredRow(values, self.row_us)


class Deaf(MemoryPublisher):
    """A log that acknowledges nothing."""

    def publish_async(self, record: Record) -> asyncio.Future[Position]:
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        future.set_exception(TransientFailure(f"{record.topic}: not acknowledged"))
        return future


class Service:
    """The API with its surroundings in memory."""

    def __init__(
        self, store: Store | None = None, *, deaf: bool = False, rows: int = 8, cache_entries: int = 0
    ) -> None:
        self.broker = MemoryBroker()
        self.broker.create(
            topic_table(views=[], products=[product().name], replication_factor=1, min_insync_replicas=1)
        )
        self.store = store or Store()
        self.reference = product().domain.load_reference()
        self.api = PredictionApi(
            Parts(
                product=product(),
                version=3,
                predictor=trained(1).predictor(),
                reference=self.reference,
                reader=self.store,
                publisher=(Deaf if deaf else MemoryPublisher)(self.broker),
                clock=FrozenClock(from_us(NOW_US)),
                rows=rows,
                cache_entries=cache_entries,
            )
        )

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        app: Any = self.api

        async def exchange() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
                return await client.request(method, path, **request)

        return asyncio.run(exchange())

    def post(self, path: str, body: bytes, **headers: str) -> httpx.Response:
        fields = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.send("POST", path, content=body, headers=fields)

    def predict(self, body: bytes, **headers: str) -> httpx.Response:
        return self.post("/v1/flight_delay/predict", body, **headers)

    def logged(self) -> list[Prediction]:
        """What is in the log, by receipt: its partitions have no order among them."""
        found = (decode_prediction(m.value or b"") for m in MemoryReader(self.broker).read(PREDICTIONS))
        return sorted(found, key=lambda prediction: prediction.receipt)

    def metric(self, line: str) -> float:
        page = self.send("GET", "/metrics").text
        return next((float(row.rpartition(" ")[2]) for row in page.splitlines() if row.startswith(line)), 0.0)
