"""The request path without the online read: features in the request, beside FastAPI and Ray Serve with the model only.

Ours is the Open Inference Protocol over HTTP through the load balancer, each feature a named tensor in JSON, with receipt
and record; the peers take the vector as a list. So ours parses five times the bytes, by name, and the peers none by name.
Ray Serve comes second, in two shapes, as its control plane takes its share of the machine also while others are asked.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.feature_doors import Door, load_script
from benchmarks.frame import Contestant, Plan, Target, compare
from benchmarks.model_peers import fastapi_peer
from benchmarks.rayserve_peer import rayserve_http_peers
from benchmarks.report import outcome
from benchmarks.request_path import RequestPath, check_answers, request_path
from headway.commands import Outcome, Say


def run(plan: Plan, say: Say) -> Outcome:
    """Put everything up, check that all answer the same, and compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p2-") as name, ExitStack() as started:
        path = started.enter_context(request_path(Path(name), say))
        given = path.given_questions()
        check_answers(path.inference, given, path, say)
        ours = _contestant("headway", path.inference, load_script(given), path)
        theirs = load_script(path.peer_questions())
        fastapi = _contestant("FastAPI, model only", fastapi_peer(started, path, say), theirs, path)
        alone = compare(
            "One prediction, features given",
            unit="answers/s",
            ours=ours,
            peers=[fastapi],
            targets=[Target(peer=fastapi.name, at_least=1.5, goal=2.8)],
            plan=plan,
            say=say,
        )
        plain, asgi = rayserve_http_peers(started, path, ["plain", "asgi"], say)
        beside_ray = compare(
            "One prediction, features given, with Ray running",
            unit="answers/s",
            ours=ours,
            peers=[
                _contestant("Ray Serve, plain handler, model only", plain, theirs, path),
                _contestant("Ray Serve, bare ASGI function, model only", asgi, theirs, path),
            ],
            targets=[Target(peer="Ray Serve, plain handler, model only", at_least=1.5)],
            plan=plan,
            say=say,
        )
    return outcome("P2", [alone, beside_ray])


def _contestant(name: str, url: str, script: str, path: RequestPath) -> Contestant:
    return Contestant(name=name, measure=Door(url=url, script=script, folder=path.folder).measure)
