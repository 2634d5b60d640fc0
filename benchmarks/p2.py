"""The request path without the online read: features in the request, beside FastAPI with the model only.

Ours is the Open Inference Protocol over HTTP through the load balancer, each feature a named tensor in JSON, with receipt
and record; FastAPI takes the vector as a list. So ours parses five times the bytes, by name, and the peer none by name.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.feature_doors import Door, load_script
from benchmarks.frame import Contestant, Plan, Target, compare
from benchmarks.model_peers import fastapi_peer
from benchmarks.report import outcome
from benchmarks.request_path import check_answers, request_path
from headway.commands import Outcome, Say


def run(plan: Plan, say: Say) -> Outcome:
    """Put everything up, check that all answer the same, and compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p2-") as name, ExitStack() as started:
        path = started.enter_context(request_path(Path(name), say))
        given = path.given_questions()
        check_answers(path.inference, given, path, say)
        ours = Door(url=path.inference, script=load_script(given), folder=path.folder)
        fastapi = Door(
            url=fastapi_peer(started, path, say), script=load_script(path.peer_questions()), folder=path.folder
        )
        compared = compare(
            "One prediction, features given",
            unit="answers/s",
            ours=Contestant(name="headway", measure=ours.measure),
            peers=[Contestant(name="FastAPI, model only", measure=fastapi.measure)],
            targets=[Target(peer="FastAPI, model only", at_least=1.5, goal=2.8)],
            plan=plan,
            say=say,
        )
    return outcome("P2", [compared])
