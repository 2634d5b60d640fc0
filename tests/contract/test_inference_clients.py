"""Triton's own clients, unmodified, through the load balancer: the answers of the JSON API, bit for bit."""

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from headway.client import Client
from headway.settings import LOOPBACK
from serving.grpc_server import INFERENCE_SERVICE, PROBLEM_TRAILER
from serving.proto import inference_pb2 as pb
from tests.haproxy_process import WITHIN_S, wait_until
from tests.inference_door import ROWS, VERSION, Door, running_door
from tests.inference_world import DATATYPES, OTHER, ROW, columns, grpc_question
from tests.serving_world import trained

pytestmark = pytest.mark.integration

# What a client does: one tensor for each field, a text that is empty where there is none.
ASK = """
import numpy as np

def tensors(module, columns, datatypes, **how):
    made = []
    for name, values in columns.items():
        if datatypes[name] == "BYTES":
            array = np.array([("" if v is None else v).encode() for v in values], dtype=np.object_)
        else:
            array = np.array(values, dtype=np.int64)
        tensor = module.InferInput(name, list(array.shape), datatypes[name])
        tensor.set_data_from_numpy(array, **how)
        made.append(tensor)
    return made

def told(result):
    return {
        "probability": [float(p).hex() for p in result.as_numpy("probability")],
        "receipt": [r.decode() for r in result.as_numpy("receipt").astype(np.bytes_)],
    }
"""
OVER_HTTP = f"""{ASK}
import tritonclient.http as triton

client = triton.InferenceServerClient(HTTP)
binary = client.infer("flight_delay", tensors(triton, COLUMNS, DATATYPES))
plain = client.infer(
    "flight_delay",
    tensors(triton, COLUMNS, DATATYPES, binary_data=False),
    model_version="3",
    request_id="42",
    outputs=[triton.InferRequestedOutput(name, binary_data=False) for name in ("receipt", "probability")],
)
print(json.dumps({{"binary": told(binary), "plain": told(plain), "head": binary.get_response(), "id": plain.get_response()["id"]}}))
"""
OVER_GRPC = f"""{ASK}
import tritonclient.grpc as triton

client = triton.InferenceServerClient(GRPC)
found = {{}}
for how in (None, "gzip"):
    result = client.infer("flight_delay", tensors(triton, COLUMNS, DATATYPES), request_id="42", compression_algorithm=how)
    found[str(how)] = told(result)
response = result.get_response()
found["version"], found["id"] = response.model_version, response.id
found["digest"] = response.parameters["model_digest"].string_param
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with running_door() as found:
        yield found


@pytest.fixture
def channel(door: Door) -> Iterator[Any]:
    with grpc.insecure_channel(door.grpc) as found:
        yield found


def post(door: Door, path: str, document: Any) -> tuple[int, dict[str, Any]]:
    link = http.client.HTTPConnection(door.http, timeout=WITHIN_S)
    try:
        link.request("POST", path, msgspec.json.encode(document), {"content-type": "application/json"})
        answer = link.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        link.close()


def asked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"COLUMNS": columns(rows), "DATATYPES": DATATYPES}


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{**(ROW, OTHER)[place % 2], "distance_mi": 200 + place} for place in range(count)]


def exact(door: Door, rows: list[dict[str, Any]]) -> list[str]:
    """The JSON API's own answers."""
    status, document = post(door, "/v1/flight_delay/predict/rows", {"rows": rows})
    assert status == 200, document
    return [float(each["probability"]).hex() for each in document["rows"]]


@pytest.mark.parametrize("count", [1, 2, ROWS])
def test_tritons_http_client_gets_what_json_gets(door: Door, count: int) -> None:
    rows = rows_of(count)

    found = door.run(OVER_HTTP, **asked(rows))

    assert found["binary"]["probability"] == found["plain"]["probability"] == exact(door, rows)
    assert found["head"]["model_version"] == str(VERSION)
    assert found["head"]["parameters"]["model_digest"] == trained(1).manifest.digest
    assert found["id"] == "42"
    logged = {p.receipt for p in door.service.logged()}
    assert {*found["binary"]["receipt"], *found["plain"]["receipt"]} <= logged
    assert len({*found["binary"]["receipt"], *found["plain"]["receipt"]}) == 2 * count


@pytest.mark.parametrize("count", [1, 2, ROWS])
def test_tritons_grpc_client_gets_what_json_gets(door: Door, count: int) -> None:
    """Also of more rows than the load balancer reads to find the model, and compressed, where it cannot find it."""
    rows = rows_of(count)

    found = door.run(OVER_GRPC, **asked(rows))

    assert found["None"]["probability"] == found["gzip"]["probability"] == exact(door, rows)
    assert (found["version"], found["id"], found["digest"]) == (str(VERSION), "42", trained(1).manifest.digest)
    receipts = [*found["None"]["receipt"], *found["gzip"]["receipt"]]
    assert set(receipts) <= {p.receipt for p in door.service.logged()}
    assert len(set(receipts)) == 2 * count


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_health_and_metadata_are_as_clients_expect(door: Door, protocol: str) -> None:
    script = f"""
import tritonclient.{protocol} as triton

client = triton.InferenceServerClient({protocol.upper()})
as_json = {{"as_json": True}} if {protocol == "grpc"} else {{}}
server, model = client.get_server_metadata(**as_json), client.get_model_metadata("flight_delay", **as_json)
print(json.dumps({{
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model": [client.is_model_ready("flight_delay", version) for version in ("", "3")],
    "server": [server["name"], list(server["extensions"])],
    "inputs": {{each["name"]: each["datatype"] for each in model["inputs"]}},
    "outputs": {{each["name"]: each["datatype"] for each in model["outputs"]}},
    "versions": list(model["versions"]),
}}))
"""

    found = door.run(script)

    assert (found["live"], found["ready"], found["model"]) == (True, True, [True, True])
    assert found["server"] == ["headway", ["binary_tensor_data"]]
    assert found["inputs"] == DATATYPES
    assert found["outputs"] == {"probability": "FP64", "receipt": "BYTES"}
    assert found["versions"] == [str(VERSION)]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_refusal_reaches_the_client_in_its_own_words(door: Door, protocol: str) -> None:
    script = f"""{ASK}
import tritonclient.{protocol} as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient({protocol.upper()})
said = []
for version, change in (("", {{"dest": ["ZZZ"]}}), ("9", {{}})):
    try:
        client.infer("flight_delay", tensors(triton, {{**COLUMNS, **change}}, DATATYPES), model_version=version)
    except InferenceServerException as error:
        said.append([error.status(), error.message()])
print(json.dumps(said))
"""

    (wrong, why), (absent, where) = door.run(script, **asked([ROW]))

    assert (wrong, absent) == (
        ("400", "404") if protocol == "http" else ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    )
    assert why.startswith("row 0: dest")
    assert where == f"model: got flight_delay version 9, wanted flight_delay or its version {VERSION}"


def test_typed_contents_are_answered_with_typed_contents(door: Door, channel: Any) -> None:
    infer = channel.unary_unary(
        f"/{INFERENCE_SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )

    answer = infer(grpc_question([ROW, OTHER], raw=False).SerializeToString(), timeout=WITHIN_S)

    assert [p.hex() for p in answer.outputs[0].contents.fp64_contents] == exact(door, [ROW, OTHER])


def test_a_refused_call_names_its_problem_in_a_trailer(channel: Any) -> None:
    infer = channel.unary_unary(f"/{INFERENCE_SERVICE}/ModelInfer")

    with pytest.raises(grpc.RpcError) as refused:
        infer(pb.ModelInferRequest(model_name="flight_delay").SerializeToString(), timeout=WITHIN_S)

    call: Any = refused.value
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(call.trailing_metadata())[PROBLEM_TRAILER] == "urn:headway:problem:invalid-request"


def test_health_of_the_models_is_told_by_a_replica(channel: Any) -> None:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
    )

    answer = check(health_pb2.HealthCheckRequest(service=INFERENCE_SERVICE).SerializeToString(), timeout=WITHIN_S)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_the_protocol(door: Door) -> None:
    """Asked at the replica: behind the door, reflection is the feature API's, which describes the same services."""
    with grpc.insecure_channel(f"{LOOPBACK}:{door.replica.grpc_port}") as channel:
        reflect = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=INFERENCE_SERVICE)]
        [answer] = reflect((each.SerializeToString() for each in asked), timeout=WITHIN_S)

    assert b"ModelInfer" in answer.file_descriptor_response.file_descriptor_proto[0]


def test_a_client_is_in_the_same_cohort_over_both_protocols(door: Door, channel: Any) -> None:
    """S23: the key comes as a header or as metadata."""
    link = http.client.HTTPConnection(door.http, timeout=WITHIN_S)
    link.request("GET", "/v2/models/flight_delay", headers={"headway-key": "acme"})
    assert link.getresponse().status == 200
    link.close()
    live = channel.unary_unary(f"/{INFERENCE_SERVICE}/ServerLive")

    live(b"", timeout=WITHIN_S, metadata=(("headway-key", "acme"),))

    def buckets() -> list[str]:
        asked = ("/v2/models/flight_delay", f"/{INFERENCE_SERVICE}/ServerLive")
        return [next((r["bucket"] for r in reversed(door.requests()) if r["path"] == path), "") for path in asked]

    wait_until(lambda: all(buckets()))
    assert len(set(buckets())) == 1


def test_both_doors_are_open_with_tls(door: Door) -> None:
    context = ssl.create_default_context(cafile=str(door.certificate))
    link = http.client.HTTPSConnection(
        LOOPBACK, door.settings.ports.load_balancer_tls, timeout=WITHIN_S, context=context
    )
    link.request("GET", "/v2/health/ready")
    answer = link.getresponse()
    told = answer.status, json.loads(answer.read())
    link.close()
    credentials = grpc.ssl_channel_credentials(door.certificate.read_bytes())
    with grpc.secure_channel(f"{LOOPBACK}:{door.settings.ports.load_balancer_grpc_tls}", credentials) as channel:
        live = channel.unary_unary(
            f"/{INFERENCE_SERVICE}/ServerLive", response_deserializer=pb.ServerLiveResponse.FromString
        )
        answered = live(b"", timeout=WITHIN_S)

    assert told == (200, {"ready": True})
    assert answered.live


def test_our_client_asks_over_tls_too(door: Door) -> None:
    url = f"https://{LOOPBACK}:{door.settings.ports.load_balancer_tls}"

    with Client(url, "flight_delay", authorities=door.certificate) as client:
        found = client.predict(ROW)

    assert [found.probability.hex()] == exact(door, [ROW])


def test_a_replica_answers_its_own_check(door: Door) -> None:
    """Once it did not say how long its golden answer is: the load balancer read the status, and the replica waited."""
    door.replica.check(timeout_s=WITHIN_S)


def test_a_replica_that_leaves_says_so_over_grpc_and_the_server_is_not_ready_without_it() -> None:
    with running_door() as door, grpc.insecure_channel(f"{LOOPBACK}:{door.replica.grpc_port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        question = health_pb2.HealthCheckRequest(service=INFERENCE_SERVICE).SerializeToString()
        assert check(question, timeout=WITHIN_S).status == health_pb2.HealthCheckResponse.SERVING

        door.replica.leaving = True
        door.service.api.grpc.leave()

        wait_until(lambda: check(question, timeout=WITHIN_S).status == health_pb2.HealthCheckResponse.NOT_SERVING)
        wait_until(lambda: get(door, "/v2/health/ready")[0] == 503)
        status, document = get(door, "/v2/health/ready")
        assert (status, document["ready"]) == (503, False)


def get(door: Door, path: str) -> tuple[int, dict[str, Any]]:
    link = http.client.HTTPConnection(door.http, timeout=WITHIN_S)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        link.close()
