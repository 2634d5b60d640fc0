"""A replica of the feature API on free ports, a store with two real days in it, and clients of both protocols."""

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from benchmarks import flights_online
from headway.adapters.redis_online import OnlineReader
from headway.clock import SystemClock, parse_instant_us
from headway.features.online import FeatureReader, Keys
from headway.settings import LOOPBACK
from serving.feature_answers import FeatureLimits
from serving.features_main import FeatureReplica
from serving.grpc_server import FEATURE_SERVICE as SERVICE
from serving.proto import features_pb2 as pb
from tests.feature_world import LIMITS

PROJECT = "headway"
NOON = "2013-07-01T16:00:00Z"
NOON_US = parse_instant_us(NOON, field="noon")
TIMEOUT_S = 10.0
METHOD = f"/{SERVICE}/GetFeatures"


def fill_with_flights(redis_url: str) -> list[dict[str, str]]:
    """Bootstrap every view up to noon; return the keys of the flights of two days, each once."""
    return flights_online.fill_with_flights(redis_url, PROJECT, until_us=NOON_US)


@contextmanager
def running_replica(reader: FeatureReader, *, limits: FeatureLimits = LIMITS) -> Iterator["Client"]:
    """Serve with a reader until the body ends."""
    replica = FeatureReplica(reader, SystemClock(), limits, host=LOOPBACK, port=0, grpc_port=0)
    replica.server.start()
    client = client_of(replica.server.port, replica.grpc.port)
    try:
        yield client
    finally:
        client.channel.close()
        replica.leave(drain_s=0)


def reader_of(redis_url: str) -> OnlineReader:
    return OnlineReader(redis_url, PROJECT)


def client_of(port: int, grpc_port: int) -> "Client":
    """Open a channel; close it when done."""
    return Client(port=port, grpc_port=grpc_port, channel=grpc.insecure_channel(f"{LOOPBACK}:{grpc_port}"))


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks a port over HTTP and a channel over gRPC."""

    port: int
    grpc_port: int
    channel: Any  # grpc has no types

    def post(
        self, rows: Sequence[Keys], *, as_of: str | None = NOON, service: str = "flight_delay"
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        body = json.dumps({"rows": rows, "as_of": as_of})
        link = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        try:
            link.request("POST", f"/v1/features/{service}", body, {"content-type": "application/json"})
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())
        finally:
            link.close()

    def get(self, path: str) -> int:
        link = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        try:
            link.request("GET", path)
            return link.getresponse().status
        finally:
            link.close()

    def call(
        self, rows: Sequence[Any], *, as_of: str | None = NOON, service: str = "flight_delay"
    ) -> pb.GetFeaturesResponse:
        request = pb.GetFeaturesRequest(service=service)
        for row in rows:
            request.rows.add().update(row)
        if as_of is not None:
            request.as_of.FromJsonString(as_of)
        found: pb.GetFeaturesResponse = self.unary(METHOD, pb.GetFeaturesResponse)(
            request.SerializeToString(), timeout=TIMEOUT_S
        )
        return found

    def unary(self, method: str, answer: Any) -> Any:
        return self.channel.unary_unary(method, response_deserializer=answer.FromString)
