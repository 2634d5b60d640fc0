"""The APIs of one model version: plain ASGI on the replica's own port, no framework between, and gRPC on another.

Parse, answer through `serving.scoring`, encode; ``build`` puts it together for `serving.replica`. Refuses to start on
bytes whose hashes differ from the manifest, or whose pinned views or reference are not the running ones. What bites: the
prediction log is handed to Kafka's own buffer and not waited for (S17 `log: async`), so only ``close`` makes sure.
"""

from collections.abc import Mapping
from pathlib import Path

from uuid_utils import uuid7

from headway.adapters.haproxy import RECEIPT_HEADER
from headway.clock import SystemClock, monotonic_s
from headway.commit import code_commit
from headway.contracts import Reference
from headway.errors import HeadwayError
from headway.model_files import proven_predictor
from headway.predictor import Predictor
from headway.problem import Problem
from headway.product import Product
from headway.settings import LOOPBACK
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
from serving.docs_page import HTML, asked_at, docs_page
from serving.inference import Inference
from serving.inference_grpc import InferenceGrpc
from serving.inference_http import PREFIX as INFERENCE_PREFIX
from serving.inference_http import InferenceHttp
from serving.lean_http import LeanHttp
from serving.openapi import openapi_document
from serving.prediction_answers import parse_rows, prediction_answer, rows_answer
from serving.replica import Served
from serving.scoring import FLUSH_TIMEOUT_S, Arrival, Parts, Scored, Scoring

# A request is a few hundred bytes; what is longer is not one.
MAX_REQUEST_BYTES = 16 * 1024
# A thousand for each of the rows a question may have by default.
MAX_ROWS_BYTES = 256 * 1024
VERSION_HEADER = "x-headway-version"
# S17 allows 50 ms; a batch of 5 ms costs the broker and this process a fifth of single records.
_LOG_LINGER_MS = 5.0
_RECEIPT = RECEIPT_HEADER.encode()


class PredictionApi:
    """The ASGI application, and the gRPC server that begins and ends with it."""

    def __init__(self, parts: Parts) -> None:
        name = parts.product.name
        self._parts = parts
        self._scoring = Scoring(parts)
        inference = Inference(self._scoring)
        self._inference = InferenceHttp(inference, self._scoring.metrics, body_bytes=MAX_ROWS_BYTES)
        self.grpc = InferenceGrpc(
            inference, self._scoring, host=LOOPBACK, port=parts.grpc_port, message_bytes=MAX_ROWS_BYTES
        )
        self._prefix = f"/v1/{name}"
        self._posted = (f"{self._prefix}/predict", f"{self._prefix}/predict/rows")
        self._version = (VERSION_HEADER.encode(), b"%d" % parts.version)
        model = self._scoring.model
        self._model_document = {"name": name, "version": parts.version, "digest": model.digest}
        self._openapi = openapi_document(parts.product, parts.predictor.manifest, model=model, rows=parts.rows)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or begin and end with the server."""
        if scope["type"] == "lifespan":
            await self.grpc.start()
            await serve_lifespan(receive, send, at_end=self._end)
            return
        path, method = str(scope["path"]), str(scope["method"])
        of_inference = path == INFERENCE_PREFIX or path.startswith(f"{INFERENCE_PREFIX}/")
        posted = path in self._posted or (of_inference and path.endswith("/infer"))
        if method not in (("POST",) if posted else ("GET", "HEAD")):
            answer = _wrong_method(method, path, allowed="POST" if posted else "GET")
        elif posted:
            answer = await self._post(path, scope, receive)
        elif of_inference:
            answer = self._inference.get(path)
        else:
            answer = self._get(path.removeprefix(self._prefix), scope)
        await send_answer(send, answer)

    def _get(self, path: str, scope: Scope) -> Answer:
        match path:
            case "/livez":
                return json_answer({"status": "alive"})
            case "/readyz":  # it listens only after its golden answers were right
                return json_answer({"status": "ready", "model": self._model_document})
            case "/metrics":
                return self._scoring.metrics.page()
            case "/openapi.json":
                return json_answer(self._openapi)
            case "/docs":
                base = asked_at(dict(scope["headers"]))
                return Answer(200, docs_page(self._openapi, prefix=self._prefix, base=base), (HTML,))
            case _:
                wanted = f"POST {self._prefix}/predict, POST {self._prefix}/predict/rows, GET {self._prefix}/docs"
                return problem_answer(Problem(404, "not-found", f"{path}: wanted {wanted}"))

    async def _post(self, path: str, scope: Scope, receive: Receive) -> Answer:
        began_s = monotonic_s()
        headers = dict(scope["headers"])
        receipt = headers.get(_RECEIPT, b"").decode("latin-1") or str(uuid7())
        arrival = Arrival(at_us=self._scoring.now_us(), receipt=receipt, source="request")
        if path.startswith(INFERENCE_PREFIX):
            answer = await self._inference.infer(path, scope, receive, arrival)
            self._scoring.metrics.took("inference_http", monotonic_s() - began_s)
        else:
            many = path.endswith("/rows")
            raw = await self._body(headers, receive, MAX_ROWS_BYTES if many else MAX_REQUEST_BYTES)
            if isinstance(raw, bytes):
                found = await (self._rows if many else self._predicted)(raw, arrival)
            else:
                found = raw
            answer = self._refused(found) if isinstance(found, Problem) else found
            self._scoring.metrics.took("json", monotonic_s() - began_s)
        return Answer(answer.status, answer.body, (*answer.headers, self._version, (_RECEIPT, receipt.encode())))

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes | Problem:
        media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if media_type != b"application/json":
            got = media_type.decode("latin-1")
            return Problem(415, "unsupported-media-type", f"content-type: got {got!r}, wanted application/json")
        raw = await read_body(receive, limit)
        if raw is None:
            return Problem(413, "too-large", f"body: more than {limit} bytes, wanted fewer")
        return raw

    async def _predicted(self, raw: bytes, arrival: Arrival) -> Answer | Problem:
        try:
            scored = await self._scoring.one(self._parts.product.parse_request(raw), arrival)
        except HeadwayError as error:
            return self._scoring.refused(error, arrival)
        self._scoring.log(scored)
        return json_answer(prediction_answer(scored))

    async def _rows(self, raw: bytes, arrival: Arrival) -> Answer | Problem:
        try:
            requests = parse_rows(self._parts.product, raw, limit=self._parts.rows)
            answers = await self._scoring.each(requests, arrival)
        except HeadwayError as error:
            return self._scoring.refused(error, arrival)
        for each in answers:
            if isinstance(each, Scored):
                self._scoring.log(each)
            else:
                self._scoring.metrics.refused(each)
        document = json_answer(rows_answer(self._scoring.model, answers))
        whole = all(isinstance(each, Scored) for each in answers)
        return document if whole else Answer(207, document.body, document.headers)

    def _refused(self, problem: Problem) -> Answer:
        self._scoring.metrics.refused(problem)
        return problem_answer(problem)

    async def _end(self) -> None:
        await self.grpc.stop()
        await self._parts.reader.close()

    def served(self) -> Served:
        """Give what a replica serves."""
        predictor = self._parts.predictor
        return Served(
            app=self,
            digest=predictor.digest,
            check_golden=predictor.prove,
            close=self._scoring.close,
            lifespan="on",
            http=LeanHttp,
            grpc_port=lambda: self.grpc.port,
            leave=self.grpc.leave,
        )


def build(
    *,
    product: str,
    version: str,
    folder: str,
    online_store: str,
    feast_project: str,
    kafka: str,
    rows: str,
    cache_entries: str,
) -> Served:
    """Build the API of a model version for a replica.

    Args:
        product: its name.
        version: in the registry.
        folder: where ``model.txt`` and ``manifest.json`` are.
        online_store: Redis or Valkey, host:port.
        feast_project: whose keys to read.
        kafka: brokers, host:port,...
        rows: how many requests one question may hold.
        cache_entries: how many scores are remembered; 0 for none.

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
            publisher=KafkaPublisher(bootstrap=kafka, linger_ms=_LOG_LINGER_MS, delivery_timeout_s=FLUSH_TIMEOUT_S),
            clock=SystemClock(),
            commit=code_commit(),
            rows=int(rows),
            cache_entries=int(cache_entries),
        )
    )
    return api.served()


def load_predictor(product: Product, reference: Reference, folder: Path) -> Predictor:
    """Return the proven model in a folder.

    Raises:
        ContractViolation: see ``build``.
    """
    from headway.adapters.lightgbm import LightGbm

    return proven_predictor(product, reference, folder, load=LightGbm().load)


def _wrong_method(method: str, path: str, *, allowed: str) -> Answer:
    problem = Problem(405, "method-not-allowed", f"{path}: got {method}, wanted {allowed}")
    return problem_answer(problem, (b"allow", allowed.encode()))
