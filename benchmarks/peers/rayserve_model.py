"""Ray Serve's applications of P2 and P3: the same model over HTTP, in two shapes, and over Ray's own gRPC ingress.

``python -m benchmarks.peers.rayserve_model HTTP_PORT GRPC_PORT FOLDER NAME ...`` with names of `APPLICATIONS`, one replica
each; over HTTP each is at ``/NAME``. The model file is in ``PEER_MODEL``. What makes Ray Serve fast is set in its environment
(benchmarks/rayserve_peer.py).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import lightgbm  # noqa: TID253 - all this process does
import numpy as np
import ray  # noqa: TID253 - likewise
from ray import serve  # noqa: TID253 - likewise
from ray.serve.config import HTTPOptions, gRPCOptions  # noqa: TID253 - likewise
from starlette.requests import Request
from starlette.responses import JSONResponse

from headway.stopping import stop_event
from serving.proto import inference_pb2 as pb

_LOOPBACK = "127.0.0.1"  # headway.settings needs more than is in this environment
_OBJECT_STORE_BYTES = 80 * 1024**2
_deployment = serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})


def add_inference(servicer: Any, server: Any) -> None:  # Any: Ray's stand-ins for generated code
    """Register the protocol's one method, as generated code would."""
    infer = grpc.unary_unary_rpc_method_handler(
        servicer.ModelInfer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": infer}),))


@_deployment
class Model:
    """One row in, its score out, over gRPC: one tensor with the whole vector."""

    def __init__(self) -> None:
        """Load the model."""
        self._booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        """Score one row."""
        row = np.frombuffer(request.raw_input_contents[0]).reshape(request.inputs[0].shape)
        scores = np.asarray(self._booster.predict(row, num_threads=1))
        answer = pb.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="probability", datatype="FP64", shape=[len(scores)])
        answer.raw_output_contents.append(scores.tobytes())
        return answer


@_deployment
class Plain:
    """One row in, its score out, over HTTP in the ordinary shape."""

    def __init__(self) -> None:
        """Load the model."""
        self._booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])

    async def __call__(self, request: Request) -> JSONResponse:
        """Score one row."""
        row = np.array([(await request.json())["features"]], dtype=np.float64)
        return JSONResponse({"probability": self._booster.predict(row, num_threads=1)[0]})


def bare() -> Any:  # Any: an ASGI function
    """Build the same as a bare ASGI function, the cheapest that `serve.ingress` takes."""
    booster = lightgbm.Booster(model_file=os.environ["PEER_MODEL"])

    async def answer(scope: Any, receive: Any, send: Any) -> None:  # Any: ASGI
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        part = await receive()
        body = part["body"]
        while part.get("more_body"):
            part = await receive()
            body += part["body"]
        row = np.array([json.loads(body)["features"]], dtype=np.float64)
        said = json.dumps({"probability": booster.predict(row, num_threads=1)[0]}).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": said})

    return answer


APPLICATIONS: dict[str, Any] = {  # Any: Ray's decorators say nothing of what they give
    "inference": Model,
    "plain": Plain,
    "asgi": _deployment(serve.ingress(bare)()),
}


def main(http_port: str, grpc_port: str, folder: str, *names: str) -> None:
    """Serve until it is ended."""
    ray.init(
        num_cpus=2,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=folder,
    )
    try:
        serve.start(
            http_options=HTTPOptions(host=_LOOPBACK, port=int(http_port)),
            grpc_options=gRPCOptions(
                port=int(grpc_port),
                grpc_servicer_functions=["benchmarks.peers.rayserve_model.add_inference"],
                enable_reflection=False,
            ),
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        for name in names:
            serve.run(APPLICATIONS[name].bind(), name=name, route_prefix=f"/{name}")
        stop = stop_event()  # only now: Ray puts its own handlers there
        (Path(folder) / "ready").touch()
        stop.wait()
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray does not annotate it
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
