"""Ray Serve's application of P3: the same model, asked in the Open Inference Protocol over Ray's own gRPC ingress.

``python -m benchmarks.peers.rayserve_model HTTP_PORT GRPC_PORT FOLDER``; the model file is in ``PEER_MODEL``. What makes
Ray Serve fast is set in its environment (benchmarks/rayserve_peer.py). Answers one tensor with the whole vector.
"""

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

from headway.stopping import stop_event
from serving.proto import inference_pb2 as pb

_LOOPBACK = "127.0.0.1"  # headway.settings needs more than is in this environment
_OBJECT_STORE_BYTES = 80 * 1024**2


def add_inference(servicer: Any, server: Any) -> None:  # Any: Ray's stand-ins for generated code
    """Register the protocol's one method, as generated code would."""
    infer = grpc.unary_unary_rpc_method_handler(
        servicer.ModelInfer,
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=pb.ModelInferResponse.SerializeToString,
    )
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ModelInfer": infer}),))


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
class Model:
    """One row in, its score out."""

    def __init__(self, file: str) -> None:
        """Load the model."""
        self._booster = lightgbm.Booster(model_file=file)

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802 - the protocol's name
        """Score one row."""
        row = np.frombuffer(request.raw_input_contents[0]).reshape(request.inputs[0].shape)
        scores = np.asarray(self._booster.predict(row, num_threads=1))
        answer = pb.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="probability", datatype="FP64", shape=[len(scores)])
        answer.raw_output_contents.append(scores.tobytes())
        return answer


def main(http_port: str, grpc_port: str, folder: str) -> None:
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
        application = Model.bind(os.environ["PEER_MODEL"])  # type: ignore[attr-defined]  # what the decorator gives
        serve.run(application, name="peer", route_prefix="/")
        stop = stop_event()  # only now: Ray puts its own handlers there
        (Path(folder) / "ready").touch()
        stop.wait()
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray does not annotate it
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
