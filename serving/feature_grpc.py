"""The feature API over gRPC, beside HTTP in the same process and event loop: the contract is ``proto/features.proto``.

Health and reflection are there, so that grpcurl, load balancers and clients of any language need nothing of ours. What
is answered and refused is `serving.feature_answers`. What bites: gRPC shares a port among processes unless it is told
not to, and the second one would quietly take half of the calls.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headway.clock import SECOND_US, from_us
from headway.errors import InputRejected
from headway.features.columns import Value as FeatureValue
from headway.features.online import StoredRow
from headway.features.services import FeatureService, ServedFeatures
from headway.problem import TYPE_PREFIX, Problem
from serving.collector_limits import Refused
from serving.feature_answers import FeatureAnswers, Question, Status, status_of
from serving.proto import features_pb2 as pb
from serving.service_reads import ServiceRead

SERVICE = "headway.features.v1.FeatureService"
PROBLEM_TRAILER, RETRY_TRAILER = "headway-problem", "retry-after"
# What a problem's HTTP status is called here.
CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
_STATUSES: Mapping[Status, pb.Status] = {"present": pb.PRESENT, "missing": pb.MISSING, "stale": pb.STALE}
# Streams of one connection; the load balancer opens another connection beyond them.
_STREAMS = 128
_END_WITHIN_S = 1.0


class FeatureGrpc:
    """The gRPC server. Belongs to the event loop it is started in."""

    def __init__(self, answers: FeatureAnswers, *, host: str, port: int) -> None:
        """Prepare; port 0 lets the system choose."""
        self._answers = answers
        self._address = f"{host}:{port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = port

    async def start(self) -> None:
        """Answer from now on.

        Raises:
            RuntimeError: the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._answers.limits.body_bytes),
                ("grpc.max_concurrent_streams", _STREAMS),
            ]
        )
        handler = grpc.unary_unary_rpc_method_handler(self._get, response_serializer=_serialized)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"GetFeatures": handler}),)
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()

    def leave(self) -> None:
        """Say that nothing new should come; from any thread."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._health.enter_graceful_shutdown(), self._loop)

    async def stop(self) -> None:
        """Finish what runs, and end."""
        await self._server.stop(_END_WITHIN_S)

    async def _get(self, raw: bytes, context: Any) -> pb.GetFeaturesResponse:  # Any: grpc has no types
        try:
            request = _request(raw, self._answers)
            question = Question(
                service=request.service,
                rows=[_row(row) for row in request.rows],
                instant_us=lambda: _instant_us(request.as_of) if request.HasField("as_of") else None,
            )
            return grpc_answer(*await self._answers.answer(question, "grpc"))
        except Refused as refusal:
            problem = refusal.problem
            trailers = [(PROBLEM_TRAILER, TYPE_PREFIX + problem.kind)]
            trailers += [(name.decode(), value.decode()) for name, value in refusal.headers]
            await context.abort(CODES[problem.status], problem.detail, trailing_metadata=tuple(trailers))
            raise AssertionError("abort raises") from refusal


def grpc_answer(service: FeatureService, read: ServiceRead) -> pb.GetFeaturesResponse:
    """Return what was read as a message."""
    response = pb.GetFeaturesResponse(service=service.name)
    _set(response.as_of, read.as_of_us)
    for served, state, stale in zip(service.served, read.states, read.stale, strict=True):
        view = response.views[served.name]
        view.stale = stale
        if state.watermark_us is not None:
            _set(view.watermark, state.watermark_us)
            view.lag_s = max(0, read.as_of_us - state.watermark_us) / SECOND_US
    for stored in read.rows:
        row = response.rows.add()
        for served, found, stale in zip(service.served, stored, read.stale, strict=True):
            _fill(row.views[served.name], served, found, read.as_of_us, stale=stale)
    return response


def _fill(entity: pb.Entity, served: ServedFeatures, row: StoredRow | None, as_of_us: int, *, stale: bool) -> None:
    entity.status = _STATUSES[status_of(row, stale=stale)]
    named: Iterable[tuple[str, FeatureValue]] = served.empty.items()
    if row is not None and row.event_timestamp_us is not None:
        _set(entity.event_timestamp, row.event_timestamp_us)
        entity.age_s = (as_of_us - row.event_timestamp_us) / SECOND_US
        named = zip(served.features, row.values, strict=True)
    for name, value in named:
        slot = entity.values.get_or_create(name)
        if isinstance(value, float):
            slot.double = value
        elif value is not None:
            slot.int64 = value


def _request(raw: bytes, answers: FeatureAnswers) -> pb.GetFeaturesRequest:
    try:
        request: pb.GetFeaturesRequest = pb.GetFeaturesRequest.FromString(raw)
    except DecodeError as error:
        answers.metrics.refused("grpc", "invalid-question")
        raise Refused(Problem(400, "invalid-question", f"body: {error}; see proto/features.proto")) from error
    return request


def _row(row: Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in row.fields.items()}


def _plain(value: Value) -> Any:  # Any: what JSON would have been
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return []
        case "struct_value":
            return {}
        case _:
            return None


def _instant_us(instant: Timestamp) -> int:
    instant_us: int = instant.seconds * SECOND_US + instant.nanos // 1_000
    try:
        plausible = 0 <= instant.nanos < 1_000_000_000 and 1 < from_us(instant_us).year < 9_999
    except OverflowError:
        plausible = False
    if not plausible:
        raise InputRejected(f"as_of: got {instant.seconds} s and {instant.nanos} ns, wanted a year from 2 to 9998")
    return instant_us


def _set(stamp: Timestamp, instant_us: int) -> None:
    stamp.seconds, micros = divmod(instant_us, SECOND_US)
    stamp.nanos = micros * 1_000


def _serialized(response: pb.GetFeaturesResponse) -> bytes:
    given: bytes = response.SerializeToString()
    return given
