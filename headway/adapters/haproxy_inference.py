"""What the load balancer does for the Open Inference Protocol: it is the server, and each product is a model on it.

Over HTTP the model is in the path, so only the server's own health and metadata are answered here. Over gRPC it is the
first field of the message, so a call waits for the first bytes of its body and goes where they say. What bites: a
compressed message hides its model, and goes to the first product, which refuses it by name when it is not its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
_METADATA = '{"name":"headway","version":"2","extensions":["binary_tensor_data"]}'
# A model's name and the five bytes before it; the whole of a shorter message is taken.
_FIRST_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Model:
    """A product behind the protocol: its green share is under its name in ``shares``, the map of all of them."""

    name: str
    blue: str
    green: str
    grpc_blue: str
    grpc_green: str
    shares: str


def server_lines(models: Sequence[Model]) -> list[str]:
    """Give the lines that answer for the server over HTTP: ready when every model has a replica that takes requests."""
    lines = [
        _returned(200, '{"live":true}', condition="{ path /v2/health/live }"),
        _returned(200, _METADATA, condition="{ path /v2 /v2/ }"),
    ]
    for model in models:
        said = f'{{"ready":false,"error":"{model.name} has no replica that takes requests"}}'
        none = f"{{ nbsrv({model.blue}) eq 0 }} {{ nbsrv({model.green}) eq 0 }}"
        lines.append(_returned(503, said, condition=f"{{ path /v2/health/ready }} {none}"))
    return [*lines, _returned(200, '{"ready":true}', condition="{ path /v2/health/ready }")]


def grpc_lines(models: Sequence[Model]) -> list[str]:
    """Give the lines that lead calls to their model's replicas; what names no model goes to the first."""
    if not models:
        return []
    first = models[0]
    # Behind the five bytes that gRPC puts before a message; a text is bytes here, and compared as such.
    field = "req.body,bytes(5),protobuf(1)"
    lines = [
        f"    acl to_model path_beg /{SERVICE}/",
        f"    acl to_health path_beg /{HEALTH}/",
        f"    acl of_models var(txn.service) -m bin {SERVICE.encode().hex()}",
        f"    http-request wait-for-body time 2s at-least {_FIRST_BYTES} if to_model or to_health",
        f"    http-request set-var(txn.model) {field} if to_model",
        f"    http-request set-var(txn.service) {field} if to_health",
        f"    http-request set-var(txn.green_share) {_share(first)}",
    ]
    for place, model in enumerate(models):
        lines.append(f"    acl model_{place} var(txn.model) -m bin {model.name.encode().hex()}")
        lines.append(f"    http-request set-var(txn.green_share) {_share(model)} if to_model model_{place}")
    for place, model in enumerate(models):
        lines += _led(model, f"to_model model_{place}")
    return [*lines, *_led(first, "to_model"), *_led(first, "to_health of_models")]


def _led(model: Model, condition: str) -> list[str]:
    green = "{ var(txn.bucket),sub(txn.green_share) -m int lt 0 }"
    return [
        f"    use_backend {model.grpc_green} if {condition} {green}",
        f"    use_backend {model.grpc_blue} if {condition}",
    ]


def _share(model: Model) -> str:
    return f"str({model.name}),map_str_int({model.shares},0)"


def _returned(status: int, body: str, *, condition: str) -> str:
    return f"    http-request return status {status} content-type application/json string '{body}' if {condition}"
