"""A gRPC server in the event loop of the HTTP server beside it: bounds, health, reflection, and refusals as codes.

Health and reflection are there, so that grpcurl, load balancers and clients of any language need nothing of ours.
Reflection tells of every service behind the door, since the load balancer sends all of its calls to one backend. What
bites: gRPC shares a port among processes unless it is told not to, and the second one would quietly take half of the calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headway.problem import TYPE_PREFIX, Problem
from serving.collector_limits import Refused

# The messages of every service: reflection finds them in protobuf's own pool.
from serving.proto import features_pb2, inference_pb2

FEATURE_SERVICE: str = features_pb2.DESCRIPTOR.services_by_name["FeatureService"].full_name
INFERENCE_SERVICE: str = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
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
# Streams of one connection; the load balancer opens another connection beyond them.
_STREAMS = 128
_END_WITHIN_S = 1.0

# Any: grpc has no types, and neither have protobuf's messages. (bytes of the request, call) to the answer.
Method = Callable[[bytes, Any], Awaitable[Any]]


class GrpcServer:
    """One service on one port. Belongs to the event loop it is started in."""

    def __init__(
        self, service: str, methods: Mapping[str, Method], *, host: str, port: int, message_bytes: int
    ) -> None:
        """Prepare; port 0 lets the system choose."""
        self._service = service
        self._methods = methods
        self._address = f"{host}:{port}"
        self._message_bytes = message_bytes
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
                ("grpc.max_receive_message_length", self._message_bytes),
                ("grpc.max_concurrent_streams", _STREAMS),
            ]
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(_refusing(method), response_serializer=_serialized)
            for name, method in self._methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self._service, handlers),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(self._service, health_pb2.HealthCheckResponse.SERVING)
        names = (FEATURE_SERVICE, INFERENCE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()

    def leave(self) -> None:
        """Say that nothing new should come; from any thread."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._health.enter_graceful_shutdown(), self._loop)

    async def stop(self) -> None:
        """Finish what runs, and end."""
        await self._server.stop(_END_WITHIN_S)


def read_message(message: Any, raw: bytes, *, kind: str, contract: str) -> Any:
    """Return the message in the bytes of a call.

    Raises:
        Refused: they are none; ``kind`` is the problem's, ``contract`` the file that says how they should be.
    """
    try:
        return message.FromString(raw)
    except DecodeError as error:
        raise Refused(Problem(400, kind, f"body: {error}; see {contract}")) from error


def _refusing(method: Method) -> Method:
    async def call(raw: bytes, context: Any) -> Any:
        try:
            return await method(raw, context)
        except Refused as refusal:
            problem = refusal.problem
            trailers = [(PROBLEM_TRAILER, TYPE_PREFIX + problem.kind)]
            trailers += [(name.decode(), value.decode()) for name, value in refusal.headers]
            await context.abort(CODES[problem.status], problem.detail, trailing_metadata=tuple(trailers))
            raise AssertionError("abort raises") from refusal

    return call


def _serialized(response: Any) -> bytes:
    given: bytes = response.SerializeToString()
    return given
