"""The paths by which a row can be scored, each asked the same rows with the code that serves it (DESIGN 7.11).

A path is one entry of `PATHS`: a name, and a function from an `Asking` to one answer per row. What the online store or
the lake would hold of each row's entities comes with the row, so that paths are compared and not what they read.

What bites: a row is found in the store by all its keys together and in a batch by its place, so no two rows of an asking
may have the same keys; `orchestration.scoring_rows` leaves repeats out.
"""

import http.client
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from headway.adapters.lightgbm import LightGbm
from headway.adapters.memory import MemoryBroker, MemoryPublisher, MemoryReader
from headway.batch import BatchRun, score_batch
from headway.clock import FrozenClock, from_us
from headway.contracts import Reference
from headway.drift import Window
from headway.evaluation import Floats
from headway.features.changelog import DTYPES
from headway.features.definitions import FeatureView
from headway.features.offline import REVISION, ROW_TIME
from headway.features.online import Keys, OnlineRows, OnlineView, ReadRows, StoredRow
from headway.features.readiness import ViewState
from headway.manifest import Manifest
from headway.path_parity import PathAnswer, PathReport, Scored, Unanswered, compare_paths
from headway.predictions import ModelId, Prediction, decode_prediction
from headway.predictor import Predictor, RowScorer, open_predictor
from headway.product import Product
from headway.settings import LOOPBACK
from headway.topics import predictions_topic, topic_table
from headway.training import AS_OF
from orchestration.scoring_rows import Row, keys_of
from serving.predict import Parts, PredictionApi
from serving.replica import ReplicaServer


class Recorder:
    """A scorer that keeps the vectors it was given."""

    def __init__(self, scorer: RowScorer) -> None:
        self._scorer = scorer
        self.vectors: list[Floats] = []

    def score_row(self, vector: Floats) -> float:
        """See `headway.predictor.RowScorer`."""
        self.vectors.append(vector.copy())
        return self._scorer.score_row(vector)

    def score(self, matrix: Floats) -> Floats:
        """See `headway.predictor.RowScorer`."""
        self.vectors.extend(matrix.copy())
        return self._scorer.score(matrix)


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The rows and the model that every path is asked with."""

    product: Product
    reference: Reference
    version: int
    model: bytes
    manifest: Manifest
    rows: Sequence[Row]

    def open(self) -> tuple[Predictor, Recorder]:
        """Return a proven predictor, and what it will have been given; a path has its own."""
        recorder: list[Recorder] = []

        def load(model: bytes) -> Recorder:
            recorder.append(Recorder(LightGbm().load(model)))
            return recorder[0]

        predictor = open_predictor(self.model, self.manifest, load=load)
        recorder[0].vectors.clear()
        return predictor, recorder[0]


Answers = Callable[[Asking], list[PathAnswer]]


def by_rest(asking: Asking) -> list[PathAnswer]:
    """Ask over HTTP, one request after the other, a replica's own server with the store in memory."""
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
        told = [_ask(server, asking.product, row) for row in asking.rows]
    finally:
        server.leave(drain_s=0, timeout_s=5)
    logged = {
        each.receipt: each for m in MemoryReader(broker).read(topic) if (each := decode_prediction(m.value or b""))
    }
    vectors = iter(recorder.vectors)
    return [
        each
        if isinstance(each, Unanswered)
        else Scored(score=each["probability"], logged=logged[each["receipt"]].probability, vector=next(vectors))
        for each in told
    ]


def by_batch(asking: Asking) -> list[PathAnswer]:
    """Score all rows in one batch of this process."""
    predictor, recorder = asking.open()
    names = [name for name in asking.product.request.__struct_fields__ if name != "as_of"]
    asked = pl.DataFrame(
        {
            "subject": [row.name for row in asking.rows],
            **{name: [getattr(row.request, name) for row in asking.rows] for name in names},
            AS_OF: [row.as_of_us for row in asking.rows],
        }
    )
    instants = [row.as_of_us for row in asking.rows]
    run = BatchRun(
        model=ModelId(name=asking.product.name, version=asking.version, digest=predictor.digest),
        interval=Window(from_us=min(instants), until_us=max(instants) + 1),
        known_at_us=max(instants),
        started_us=max(instants),
    )
    answers = score_batch(
        asking.product,
        asked,
        predictor=predictor,
        reference=asking.reference,
        values_at=lambda view, _: _held(asking, view),
        run=run,
    )
    return in_order(list(answers), recorder.vectors)


# The first is what the others are held to.
PATHS: Mapping[str, Answers] = {"rest": by_rest, "batch": by_batch}


def check_paths(asking: Asking, paths: Mapping[str, Answers] = PATHS) -> PathReport:
    """Ask every path, and compare."""
    return compare_paths(
        {name: answers(asking) for name, answers in paths.items()},
        rows=[row.name for row in asking.rows],
        columns=[column.name for column in asking.manifest.columns],
    )


def in_order(predictions: Sequence[Prediction], vectors: Sequence[Floats]) -> list[PathAnswer]:
    """Return the answers of a path whose predictions and vectors came in the order of the rows."""
    return [
        Scored(score=each.probability, logged=each.probability, vector=vector)
        for each, vector in zip(predictions, vectors, strict=True)
    ]


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


def _held(asking: Asking, view: FeatureView) -> pl.DataFrame:
    features = asking.product.use(view.qualified).features
    schema = {name: DTYPES[view.columns[name]] for name in features} | {ROW_TIME: pl.Int64(), REVISION: pl.Int64()}
    held = [(*row.views[view.qualified], row.as_of_us, 1) for row in asking.rows]
    return pl.DataFrame(held, schema=schema, orient="row")


def _ask(server: ReplicaServer, product: Product, row: Row) -> dict[str, Any] | Unanswered:  # Any: a JSON document
    link = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        body, kind = msgspec.json.encode(row.request), {"content-type": "application/json"}
        link.request("POST", f"/v1/{product.name}/predict", body, kind)
        answer = link.getresponse()
        document: dict[str, Any] = msgspec.json.decode(answer.read())
    finally:
        link.close()
    if answer.status != http.client.OK:
        return Unanswered(f"{answer.status}: {document.get('detail')}")
    return document if math.isfinite(document["probability"]) else Unanswered("the score is not finite")
