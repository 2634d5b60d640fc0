"""The request path over gRPC: features in the request, beside MLServer's gRPC and Ray Serve's, both with the model only.

Ours goes through the load balancer, takes every field and feature by name, and keeps a receipt and a record of each answer;
the peers take one tensor with the whole vector and keep nothing. What bites: the load is Python's own gRPC client on the same
machine, and what it costs for every answer brings all ratios nearer to 1.
"""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.feature_doors import GrpcDoor
from benchmarks.frame import Contestant, Plan, Target, compare
from benchmarks.grpc_load import write_questions
from benchmarks.inference_messages import METHOD, check_messages, given_messages, row_messages
from benchmarks.model_peers import mlserver_grpc_peer
from benchmarks.rayserve_peer import rayserve_grpc_peer
from benchmarks.report import outcome
from benchmarks.request_path import request_path
from headway.commands import Outcome, Say


def run(plan: Plan, say: Say) -> Outcome:
    """Put everything up, check that all answer the same, and compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p3-") as name, ExitStack() as started:
        path = started.enter_context(request_path(Path(name), say))
        given = given_messages(path)
        check_messages(path.inference_grpc, given, path, say)
        ours = write_questions(given, path.folder / "given.json")
        theirs = write_questions(row_messages(path), path.folder / "rows.json")
        door = partial(GrpcDoor, method=METHOD)
        mlserver = door(address=mlserver_grpc_peer(started, path, say), questions=theirs)
        rayserve = door(address=rayserve_grpc_peer(started, path, say), questions=theirs)
        compared = compare(
            "One prediction over gRPC, features given",
            unit="answers/s",
            ours=Contestant(name="headway", measure=door(address=path.inference_grpc, questions=ours).measure),
            peers=[
                Contestant(name="MLServer, model only", measure=mlserver.measure),
                Contestant(name="Ray Serve, model only", measure=rayserve.measure),
                Contestant(
                    name="headway, at the replica", measure=door(address=path.replica_grpc, questions=ours).measure
                ),
            ],
            targets=[
                Target(peer="MLServer, model only", at_least=1.5),
                Target(peer="Ray Serve, model only", at_least=1.3),
            ],
            plan=plan,
            say=say,
        )
    return outcome("P3", [compared])
