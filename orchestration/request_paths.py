"""The paths of a replica for `orchestration.scoring_paths`: its own server and ports, with the store and the log in memory.

What bites: a row is found in the store by all its keys together, so no two rows of an asking may have the same keys;
`orchestration.scoring_rows` leaves repeats out.
"""

import http.client
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
from serving.inference_inputs import request_fields
from serving.predict import PredictionApi
from serving.replica import ReplicaServer
from serving.scoring import Parts


class Told(NamedTuple):
    """What a client reads of an answer."""

    score: float
    receipt: str


# Asks a replica one row.
Ask = Callable[[ReplicaServer, Product, Row], Told | Unanswered]
# Where typed contents of a tensor go, by its datatype.
_CONTENTS: Mapping[str, Callable[[Any], Any]] = {  # Any: protobuf's own
    "BYTES": lambda contents: contents.bytes_contents,
    "INT64": lambda contents: contents.int64_contents,
    "FP64": lambda contents: contents.fp64_contents,
    "BOOL": lambda contents: contents.bool_contents,
}


def by_rest(asking: Asking) -> list[PathAnswer]:
    """Ask over HTTP, one request after the other."""
    return ask_replica(asking, over_http, log=log_of(asking.product))


def by_grpc(asking: Asking) -> list[PathAnswer]:
    """Ask over gRPC by the Open Inference Protocol, one row a question."""
    return ask_replica(asking, over_grpc, log=log_of(asking.product))


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


def log_of(product: Product) -> MemoryBroker:
    """Return an empty log with a product's topics."""
    broker = MemoryBroker()
    broker.create(topic_table(views=[], products=[product.name], replication_factor=1, min_insync_replicas=1))
    return broker


def ask_replica(asking: Asking, ask: Ask, *, log: MemoryBroker) -> list[PathAnswer]:
    """Ask a replica that writes to a log every row; what it wrote is compared with what it told."""
    predictor, recorder = asking.open()
    topic = predictions_topic(asking.product.name)
    parts = Parts(
        product=asking.product,
        version=asking.version,
        predictor=predictor,
        reference=asking.reference,
        reader=RowStore(asking),
        publisher=MemoryPublisher(log),
        clock=FrozenClock(from_us(max(row.as_of_us for row in asking.rows))),
    )
    server = ReplicaServer(PredictionApi(parts).served(), host=LOOPBACK, port=0)
    server.start()
    recorder.vectors.clear()
    try:
        told = [ask(server, asking.product, row) for row in asking.rows]
    finally:
        server.leave(drain_s=0, timeout_s=5)
    logged = {p.receipt: p for m in MemoryReader(log).read(topic) if (p := decode_prediction(m.value or b""))}
    vectors = iter(recorder.vectors)
    return [
        each
        if isinstance(each, Unanswered)
        else Scored(score=each.score, logged=logged[each.receipt].probability, vector=next(vectors))
        for each in told
    ]


def over_http(server: ReplicaServer, product: Product, row: Row) -> Told | Unanswered:
    """Ask as a client of the JSON API does."""
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


def over_grpc(server: ReplicaServer, product: Product, row: Row) -> Told | Unanswered:
    """Ask as a client of the Open Inference Protocol does."""
    import grpc  # gRPC and protobuf are no part of the other paths

    from serving.grpc_server import INFERENCE_SERVICE
    from serving.proto import inference_pb2 as pb

    document = msgspec.to_builtins(row.request)
    question = pb.ModelInferRequest(model_name=product.name)
    for field in request_fields(product):
        value = document[field.name]
        # An empty text is a null; other nulls have no tensor, and the field's default is one.
        if value is not None or field.datatype == "BYTES":
            given = question.inputs.add(name=field.name, datatype=field.datatype, shape=[1])
            _CONTENTS[field.datatype](given.contents).append(_encoded(value))
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}") as channel:
        call = channel.unary_unary(
            f"/{INFERENCE_SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        try:
            answer = call(question, timeout=5)
        except grpc.RpcError as error:
            return Unanswered(f"{error.code()}: {error.details()}")
    outputs = {output.name: output.contents for output in answer.outputs}
    return Told(outputs["probability"].fp64_contents[0], outputs["receipt"].bytes_contents[0].decode())


def _encoded(value: Any) -> Any:  # Any: a plain value of JSON
    return (value or "").encode() if value is None or isinstance(value, str) else value
