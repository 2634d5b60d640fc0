"""The paths of a replica for `orchestration.scoring_paths`: its own server and ports, with the store and the log in memory.

What bites: a row is found in the store by all its keys together, so no two rows of an asking may have the same keys;
`orchestration.scoring_rows` leaves repeats out.
"""

import http.client
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.clock import FrozenClock, from_us
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows, StoredRow
from headway.features.readiness import ViewState
from headway.path_parity import PathAnswer, Scored, Unanswered
from headway.predictions import decode_prediction
from headway.product import Product
from headway.settings import LOOPBACK
from headway.topics import predictions_topic, topic_table
from orchestration.asking import Asking
from orchestration.scoring_rows import Row, keys_of
from serving.predict import PredictionApi
from serving.replica import ReplicaServer
from serving.scoring import Parts


class Told(NamedTuple):
    """What a client reads of an answer."""

    score: float
    receipt: str


# Asks a replica one row.
Ask = Callable[[ReplicaServer, Product, Row], Told | Unanswered]


def by_rest(asking: Asking) -> list[PathAnswer]:
    """Ask over HTTP, one request after the other."""
    return _asked(asking, _over_http)


class RowStore:
    """An online store that holds for each row what comes with it; `headway.features.online.FeatureReader`."""

    def __init__(self, asking: Asking) -> None:
        self._product = asking.product
        self._watermark_us = max(row.as_of_us for row in asking.rows)
        self._rows = {keys_of(asking.product, row.request): row for row in asking.rows}

    def over(self, views: Sequence[OnlineView]) -> ReadRows:
        """Return what reads these views for rows of keys."""
        names = {view.online_name: name for name, view in self._product.feature_views.items()}
        state = ViewState(watermark_us=self._watermark_us, bootstrapped_us=0, digest=None)

        async def read(rows: Sequence[Keys]) -> OnlineRows:
            found = [tuple(self._stored(view, names[view.view], keys) for view in views) for keys in rows]
            return OnlineRows((state,) * len(views), found)

        return read

    async def close(self) -> None:
        """Nothing to release."""

    def _stored(self, view: OnlineView, name: str, keys: Keys) -> StoredRow | None:
        if any(keys[key] is None for key in view.keys):
            return None
        row = self._rows[tuple(keys[key] for key in sorted(keys))]
        return StoredRow(row.views[name], row.as_of_us, 1)


def _asked(asking: Asking, ask: Ask) -> list[PathAnswer]:
    predictor, recorder = asking.open()
    topic = predictions_topic(asking.product.name)
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[asking.product.name], replication_factor=1, min_insync_replicas=1))
    parts = Parts(
        product=asking.product,
        version=asking.version,
        predictor=predictor,
        reference=asking.reference,
        reader=RowStore(asking),
        publisher=MemoryPublisher(broker),
        clock=FrozenClock(from_us(max(row.as_of_us for row in asking.rows))),
    )
    server = ReplicaServer(PredictionApi(parts).served(), host=LOOPBACK, port=0)
    server.start()
    recorder.vectors.clear()
    try:
        told = [ask(server, asking.product, row) for row in asking.rows]
    finally:
        server.leave(drain_s=0, timeout_s=5)
    logged = {p.receipt: p for m in MemoryReader(broker).read(topic) if (p := decode_prediction(m.value or b""))}
    vectors = iter(recorder.vectors)
    return [
        each
        if isinstance(each, Unanswered)
        else Scored(score=each.score, logged=logged[each.receipt].probability, vector=next(vectors))
        for each in told
    ]


def _over_http(server: ReplicaServer, product: Product, row: Row) -> Told | Unanswered:
    link = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        body, kind = msgspec.json.encode(row.request), {"content-type": "application/json"}
        link.request("POST", f"/v1/{product.name}/predict", body, kind)
        answer = link.getresponse()
        document = msgspec.json.decode(answer.read())
    finally:
        link.close()
    if answer.status != http.client.OK:
        return Unanswered(f"{answer.status}: {document.get('detail')}")
    return Told(document["probability"], document["receipt"])
