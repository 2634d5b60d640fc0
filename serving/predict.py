"""The prediction API of one model version: plain ASGI on the replica's own port, no framework between.

Parse, read the views, assemble, predict, answer, log; ``build`` puts it together for `serving.replica`. Refuses to start
on bytes whose hashes differ from the manifest, or whose pinned views or reference are not the running ones. What bites:
the prediction log is handed to Kafka's own buffer and not waited for (S17 `log: async`), so only ``close`` makes sure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import structlog
from uuid_utils import uuid7

from headway.adapters.haproxy import RECEIPT_HEADER
from headway.clock import Clock, SystemClock, format_us, monotonic_s, to_us
from headway.commit import code_commit
from headway.contracts import Reference
from headway.errors import HeadwayError, InputRejected, TransientFailure
from headway.features.online import FeatureReader
from headway.manifest import MANIFEST_FILE, MODEL_FILE, decode_manifest
from headway.ports import Publisher
from headway.predictions import ModelId, Prediction, prediction_record
from headway.predictor import Predictor, open_predictor
from headway.problem import Problem
from headway.product import Product
from headway.vector import ViewValues
from serving.asgi import (
    Answer,
    Receive,
    Scope,
    Send,
    json_answer,
    problem_answer,
    read_body,
    send_answer,
    serve_lifespan,
)
from serving.online_features import OnlineFeatures, ViewsRead
from serving.openapi import openapi_document
from serving.prediction_metrics import PredictionMetrics
from serving.replica import Served
from serving.service_reads import AsOfInThePast

# A request is a few hundred bytes; what is longer is not one.
MAX_REQUEST_BYTES = 16 * 1024
VERSION_HEADER = "x-headway-version"
# Twice this, to flush and to close, must fit into what Ray gives a replica to end (serving/replica.py).
_FLUSH_TIMEOUT_S = 5.0
# S17 allows 50 ms; a batch of 5 ms costs the broker and this process a fifth of single records.
_LOG_LINGER_MS = 5.0
_RECEIPT = RECEIPT_HEADER.encode()
_LOG = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the API needs; put together by ``build``, or by a test from memory. ``commit`` is of this code, if known."""

    product: Product
    version: int
    predictor: Predictor
    reference: Reference
    reader: FeatureReader
    publisher: Publisher
    clock: Clock
    commit: str | None = None


class PredictionApi:
    """The ASGI application."""

    def __init__(self, parts: Parts) -> None:
        name = parts.product.name
        self._parts = parts
        self._model = ModelId(name=name, version=parts.version, digest=parts.predictor.digest)
        self._features = OnlineFeatures(parts.product, parts.reader)
        self._metrics = PredictionMetrics(name, self._model)
        self._prefix = f"/v1/{name}"
        self._version = (VERSION_HEADER.encode(), b"%d" % parts.version)
        self._model_document = {"name": name, "version": parts.version, "digest": self._model.digest}
        self._openapi = openapi_document(parts.product, version=parts.version)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or end with the server."""
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send, at_end=self._parts.reader.close)
            return
        path = str(scope["path"])
        if path == f"{self._prefix}/predict":
            answer = await self._post(scope, receive)
        elif scope["method"] not in ("GET", "HEAD"):
            answer = _wrong_method(str(scope["method"]), path, allowed="GET")
        else:
            answer = self._get(path.removeprefix(self._prefix))
        await send_answer(send, answer)

    def _get(self, path: str) -> Answer:
        match path:
            case "/livez":
                return json_answer({"status": "alive"})
            case "/readyz":  # it listens only after its golden answers were right
                return json_answer({"status": "ready", "model": self._model_document})
            case "/metrics":
                return self._metrics.page()
            case "/openapi.json" | "/docs":
                return json_answer(self._openapi)
            case _:
                return problem_answer(
                    Problem(404, "not-found", f"{path}: this API answers POST {self._prefix}/predict and GET /docs")
                )

    async def _post(self, scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST":
            return _wrong_method(str(scope["method"]), str(scope["path"]), allowed="POST")
        began_s = monotonic_s()
        headers = dict(scope["headers"])
        receipt = headers.get(_RECEIPT, b"").decode("latin-1") or str(uuid7())
        answer, outcome = await self._answered(headers, receive, receipt)
        self._metrics.answered(outcome, monotonic_s() - began_s)
        return answer

    async def _answered(self, headers: Mapping[bytes, bytes], receive: Receive, receipt: str) -> tuple[Answer, str]:
        arrived_us = to_us(self._parts.clock.now())
        media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if media_type != b"application/json":
            got = media_type.decode("latin-1")
            return _refused(415, "unsupported-media-type", f"content-type: got {got!r}, wanted application/json")
        raw = await read_body(receive, MAX_REQUEST_BYTES)
        if raw is None:
            return _refused(413, "too-large", f"body: more than {MAX_REQUEST_BYTES} bytes, wanted one JSON object")
        try:
            prediction, read = await self._predicted(raw, arrived_us, receipt)
        except AsOfInThePast as error:
            return _refused(409, "as-of-in-the-past", str(error))
        except InputRejected as error:
            return _refused(400, "invalid-request", str(error))
        except HeadwayError as error:
            _LOG.error("not predicted", receipt=receipt, reason=str(error))
            return _refused(500, "internal", "the prediction failed on our side; the log has it under its receipt")
        self._log(prediction)
        outcome = "degraded" if read.degraded else "stale" if read.stale else "ok"
        return json_answer(self._document(prediction, read), self._version, (_RECEIPT, receipt.encode())), outcome

    async def _predicted(self, raw: bytes, arrived_us: int, receipt: str) -> tuple[Prediction, ViewsRead]:
        parts = self._parts
        request = parts.product.parse_request(raw)
        if request.as_of is None:
            read = await self._features.now(request, arrived_us)
        else:
            read = await self._features.at(request, to_us(request.as_of))
        values = parts.product.compute_request_features(request, parts.reference, read.as_of_us)
        views: ViewValues = {view.view: view.values for view in read.views}
        prediction = Prediction(
            receipt=receipt,
            product=parts.product.name,
            as_of_us=read.as_of_us,
            requested_at_us=arrived_us,
            model=self._model,
            reference_version=parts.reference.version,
            request=msgspec.Raw(msgspec.json.encode(request)),
            views=read.views,
            probability=parts.predictor.predict(values, views, read.as_of_us).score,
            degraded=read.degraded,
            stale=read.stale,
            source="request",
            commit=parts.commit,
        )
        return prediction, read

    def _document(self, prediction: Prediction, read: ViewsRead) -> dict[str, Any]:  # Any: a JSON document
        return {
            "product": prediction.product,
            "probability": prediction.probability,
            "as_of": format_us(prediction.as_of_us),
            "model": self._model_document,
            "features": {
                "watermark": None if read.watermark_us is None else format_us(read.watermark_us),
                "lag_s": read.lag_s,
                "stale": read.stale,
                "missing": read.missing,
                "degraded": read.degraded,
            },
            "receipt": prediction.receipt,
        }

    def _log(self, prediction: Prediction) -> None:
        self._metrics.served()
        acknowledged = self._parts.publisher.publish_async(prediction_record(prediction))
        acknowledged.add_done_callback(self._logged)

    def _logged(self, acknowledged: Any) -> None:  # Any: asyncio's Future of a position, in callback position
        failure = None if acknowledged.cancelled() else acknowledged.exception()
        self._metrics.logged(failed=failure is not None)
        if failure is not None:
            _LOG.warning("prediction not logged", reason=str(failure))

    def served(self) -> Served:
        """Give what a replica serves."""
        predictor = self._parts.predictor
        return Served(app=self, digest=predictor.digest, check_golden=predictor.prove, close=self.close, lifespan="on")

    def close(self) -> None:
        """Flush the prediction log."""
        try:
            self._parts.publisher.flush(_FLUSH_TIMEOUT_S)
        except TransientFailure as error:
            _LOG.error("predictions lost", reason=str(error))
        self._parts.publisher.close()


def build(*, product: str, version: str, folder: str, online_store: str, feast_project: str, kafka: str) -> Served:
    """Build the API of a model version for a replica.

    Args:
        product: its name.
        version: in the registry.
        folder: where ``model.txt`` and ``manifest.json`` are.
        online_store: Redis or Valkey, host:port.
        feast_project: whose keys to read.
        kafka: brokers, host:port,...

    Raises:
        ContractViolation: bytes, golden answers or definitions are not what the manifest says; names what differs.
    """
    from headway.adapters.kafka_publisher import KafkaPublisher
    from headway.adapters.redis_online import OnlineReader
    from products.catalogue import find_product

    wanted = find_product(product)
    reference = wanted.domain.load_reference()
    api = PredictionApi(
        Parts(
            product=wanted,
            version=int(version),
            predictor=load_predictor(wanted, reference, Path(folder)),
            reference=reference,
            reader=OnlineReader(f"redis://{online_store}", feast_project),
            publisher=KafkaPublisher(bootstrap=kafka, linger_ms=_LOG_LINGER_MS, delivery_timeout_s=_FLUSH_TIMEOUT_S),
            clock=SystemClock(),
            commit=code_commit(),
        )
    )
    return api.served()


def load_predictor(product: Product, reference: Reference, folder: Path) -> Predictor:
    """Return the proven model in a folder.

    Raises:
        ContractViolation: see ``build``.
    """
    from headway.adapters.lightgbm import LightGbm

    manifest = decode_manifest((folder / MANIFEST_FILE).read_bytes())
    manifest.verify_definitions(
        product=product.name, view_digests=product.view_digests, reference_version=reference.version
    )
    return open_predictor((folder / MODEL_FILE).read_bytes(), manifest, load=LightGbm().load)


def _refused(status: int, kind: str, detail: str) -> tuple[Answer, str]:
    return problem_answer(Problem(status, kind, detail)), HTTPStatus(status).phrase.lower().replace(" ", "_")


def _wrong_method(method: str, path: str, *, allowed: str) -> Answer:
    problem = Problem(405, "method-not-allowed", f"{path}: got {method}, wanted {allowed}")
    return problem_answer(problem, (b"allow", allowed.encode()))
