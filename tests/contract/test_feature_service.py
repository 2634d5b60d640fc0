"""The feature API over both protocols on a real store, held to what Feast's own SDK reads from the same bytes."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from domains.flights.domain import DOMAIN
from headway.adapters.feast import FeastConfig, LakeTable, feature_store
from headway.adapters.feast_registry import apply_views
from headway.adapters.feast_services import service_of
from headway.clock import SystemClock
from headway.errors import PermanentFailure, TransientFailure
from headway.features.online import Keys, OnlineRows
from products.flight_delay.product import PRODUCT
from serving.features_main import FeatureReplica
from serving.grpc_server import FEATURE_SERVICE as SERVICE
from serving.grpc_server import PROBLEM_TRAILER
from serving.proto import features_pb2 as pb
from tests.feature_replica import (
    METHOD,
    NOON,
    PROJECT,
    TIMEOUT_S,
    Client,
    fill_with_flights,
    reader_of,
    running_replica,
)
from tests.feature_world import KEYS, LIMITS, REFUSED
from tests.feature_world import SERVICE as FLIGHTS
from tests.store_gate import Gate
from tests.valkey_world import running_valkey

if TYPE_CHECKING:
    from feast import FeatureStore

# Feast and its dependencies warn about their own deprecations; they are not claims of ours.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.integration]

NOBODY = {"origin": "XXX", "carrier": "XX", "dest": "XXX", "tail": "NOBODY"}
AT_ONCE = LIMITS.rows


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="module")
def flights(redis_url: str) -> list[dict[str, str]]:
    """Every tenth flight of two days, and somebody nobody has seen."""
    return [*fill_with_flights(redis_url)[::10], NOBODY]


@pytest.fixture(scope="module")
def client(redis_url: str, flights: list[dict[str, str]]) -> Iterator[Client]:
    assert flights
    with running_replica(reader_of(redis_url)) as found:
        yield found


@pytest.fixture(scope="module")
def feasts(
    redis_url: str, flights: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, tuple[Any, int | None]]]:
    """What Feast reads for each flight: by reference the value, and the row's instant where it knows a row."""
    folder = tmp_path_factory.mktemp("feast")
    store = feature_store(FeastConfig(project=PROJECT, repo_dir=folder, redis_url=redis_url, offline="lake"))
    unread = LakeTable(path=str(folder / "unread"), version=None)
    tables = {view.online_name: unread for view in DOMAIN.views}
    apply_views(store, DOMAIN.views, tables, {PRODUCT.name: service_of(PRODUCT)})
    return read_through_feast(store, flights)


def read_through_feast(store: "FeatureStore", rows: list[dict[str, str]]) -> list[dict[str, tuple[Any, int | None]]]:
    answer = store.get_online_features(
        store.get_feature_service(PRODUCT.name), entity_rows=[dict(row) for row in rows], full_feature_names=True
    )
    names = list(answer.proto.metadata.feature_names.val)
    found: list[dict[str, tuple[Any, int | None]]] = [{} for _ in rows]
    for reference in service_of(PRODUCT):
        column = answer.proto.results[names.index(reference.replace(":", "__"))]
        for place, value in enumerate(column.values):
            kind = value.WhichOneof("val")
            instant_us = column.event_timestamps[place].ToMicroseconds() or None
            found[place][reference] = (None if kind is None else getattr(value, kind), instant_us)
    return found


def test_every_value_over_http_is_feasts(
    client: Client, flights: list[dict[str, str]], feasts: list[dict[str, tuple[Any, int | None]]]
) -> None:
    compared = empty = expired = nulls = 0
    for start in range(0, len(flights), AT_ONCE):
        part = flights[start : start + AT_ONCE]
        status, _, document = client.post(part)
        assert status == 200, document
        for answered, feast in zip(document["rows"], feasts[start : start + AT_ONCE], strict=True):
            for served in FLIGHTS.served:
                entity = answered[served.name]
                for name, value in entity["values"].items():
                    wanted, at_us = feast[f"{served.view.online_name}:{name}"]
                    if at_us is None:
                        # Where Feast says NOT_FOUND and null, S10 says: an empty window, count 0.
                        wanted = 0 if name in served.counts else None
                        empty += 1
                    assert (repr(value), entity["status"]) == (repr(wanted), "missing" if at_us is None else "present")
                    compared += 1
                    nulls += at_us is not None and value is None
                    expired += at_us is not None and name in served.counts and value == 0

    # Each kind has to be among the flights, or nothing was shown of it.
    assert compared == len(flights) * len(service_of(PRODUCT))
    assert min(empty, nulls, expired) > 0, (empty, nulls, expired)


def test_every_value_over_grpc_is_that_over_http(client: Client, flights: list[dict[str, str]]) -> None:
    for start in range(0, len(flights), AT_ONCE * 5):
        part = flights[start : start + AT_ONCE]
        _, _, document = client.post(part)
        message = client.call(part)
        for by_http, by_grpc in zip(document["rows"], message.rows, strict=True):
            for view, entity in by_http.items():
                found = by_grpc.views[view]
                kinds = {name: value.WhichOneof("kind") for name, value in found.values.items()}
                values = {n: None if k is None else getattr(found.values[n], k) for n, k in kinds.items()}
                assert {n: repr(v) for n, v in values.items()} == {n: repr(v) for n, v in entity["values"].items()}
                assert pb.Status.Name(found.status).lower() == entity["status"]


@pytest.mark.parametrize(("asked", "status", "kind", "words"), REFUSED)
def test_both_protocols_refuse_the_same_for_the_same_reason(
    client: Client, asked: dict[str, Any], status: int, kind: str, words: str
) -> None:
    asked = {"as_of": NOON, "service": "flight_delay", **asked}

    by_http = client.post(asked["rows"], as_of=asked["as_of"], service=asked["service"])
    with pytest.raises(grpc.RpcError) as refused:
        client.call(asked["rows"], as_of=asked["as_of"], service=asked["service"])

    assert (by_http[0], by_http[2]["type"]) == (status, f"urn:headway:problem:{kind}")
    assert words in by_http[2]["detail"]
    assert refused.value.details() == by_http[2]["detail"]
    trailers = dict(refused.value.trailing_metadata())
    assert trailers[PROBLEM_TRAILER] == by_http[2]["type"]


def test_a_message_that_is_none_and_one_that_is_too_large_are_refused(client: Client) -> None:
    ask = client.unary(METHOD, pb.GetFeaturesResponse)

    with pytest.raises(grpc.RpcError) as garbled:
        ask(b"\xff\xff\xff", timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as large:
        ask(b"x" * (LIMITS.body_bytes + 1), timeout=TIMEOUT_S)

    codes = [refused.value.code() for refused in (garbled, large)]
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED]


def test_health_and_reflection_answer_what_grpc_clients_ask_first(client: Client) -> None:
    health = client.unary("/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse)
    told = health(health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString(), timeout=TIMEOUT_S)
    reflect = client.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]

    listed, described = reflect(iter(questions), timeout=TIMEOUT_S)

    assert told.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in [service.name for service in listed.list_services_response.service]
    files = [FileDescriptorProto.FromString(f) for f in described.file_descriptor_response.file_descriptor_proto]
    assert "serving/proto/features.proto" in [file.name for file in files]


def commands_of(rows: Sequence[Keys]) -> int:
    """How many it takes to ask for each entity once, and for each view's watermark."""
    kinds = {served.view.keys for served in FLIGHTS.served}
    return len(FLIGHTS.served) + len({(kind, tuple(row[key] for key in kind)) for kind in kinds for row in rows})


async def read_through(gate: Gate, *parts: list[dict[str, str]]) -> list[OnlineRows]:
    """Read parts one after the other, with no answer before all that they take together has been asked."""
    reader = reader_of(gate.url)
    try:
        ask = reader.over(FLIGHTS.online)
        await ask([])
        gate.hold(sum(map(commands_of, parts)))
        return [await ask(part) for part in parts]
    finally:
        await reader.close()


def test_all_rows_of_a_question_cost_one_round_trip(redis_url: str, flights: list[dict[str, str]]) -> None:
    with contextlib.closing(Gate(redis_url)) as gate:
        [found] = asyncio.run(read_through(gate, flights))

    assert (len(found.rows), gate.missing) == (len(flights), 0)
    assert len(flights) > 100


def test_a_read_that_takes_a_second_round_trip_is_caught(redis_url: str, flights: list[dict[str, str]]) -> None:
    with contextlib.closing(Gate(redis_url)) as gate, pytest.raises(TransientFailure, match="no answer within"):
        asyncio.run(read_through(gate, flights[:1], flights[1:]))


def test_a_flight_without_an_aircraft_reads_as_one_with_an_aircraft_nobody_saw(client: Client) -> None:
    keys: Keys = {**KEYS, "tail": None}

    with_none, with_nobody = (client.post([row])[2]["rows"][0] for row in (keys, {**KEYS, "tail": "NOBODY"}))

    assert with_none == with_nobody
    assert with_none["aircraft_arrival.v1"]["values"]["count_24h"] == 0


def test_a_port_of_grpc_is_not_shared(client: Client, redis_url: str) -> None:
    """Shared among processes, as is gRPC's custom, a second replica would quietly take half of the calls."""
    first = client.grpc_port

    with pytest.raises(PermanentFailure, match="not listening"):
        FeatureReplica(
            reader_of(redis_url), SystemClock(), LIMITS, host="127.0.0.1", port=0, grpc_port=first
        ).server.start()
