"""Whole request path: load balancer, HTTP, online features, predict, receipt and log, beside servers of the model only.

One replica, one load balancer, one broker, one store; eight connections. The peers get the features in the request, read
nothing and keep no record. Every request names its instant; the flights are asked in the same order by all.
"""

import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from benchmarks.feature_doors import Door, load_script
from benchmarks.frame import Comparison, Contestant, Plan, Target, compare
from benchmarks.model_peers import bentoml_peer, fastapi_peer, litserve_peer, mlflow_peer, mlserver_peer
from benchmarks.offered import OfferedDoor, Waits, compare_waits, offered_rate, write_bodies
from benchmarks.report import outcome
from benchmarks.request_path import RequestPath, request_path
from headway.commands import Outcome, Say
from headway.errors import ContractViolation

_FASTAPI = "FastAPI, model only"


def run(plan: Plan, say: Say) -> Outcome:
    """Put everything up, check that all answer the same, and compare."""
    with tempfile.TemporaryDirectory(prefix="headway-p1-") as name, ExitStack() as started:
        path = started.enter_context(request_path(Path(name), say))
        fastapi = fastapi_peer(started, path, say)
        with ExitStack() as others:
            most = _most(others, path, fastapi, plan=plan, say=say)
        waits = _waits(path, fastapi, rate=offered_rate(most.ours, most.peers[0]), plan=plan, say=say)
        _check_outcomes(path.metrics)
    return outcome("P1", [most, waits])


def _most(started: ExitStack, path: RequestPath, fastapi: str, *, plan: Plan, say: Say) -> Comparison:
    """What each can answer at most."""
    peers = {
        _FASTAPI: fastapi,
        "BentoML, model only": bentoml_peer(started, path, say),
        "LitServe, model only": litserve_peer(started, path, say),
    }
    mlflow, mlserver = mlflow_peer(started, path, say), mlserver_peer(started, path, say)
    ours, theirs = load_script(path.requests), load_script(path.peer_questions())
    return compare(
        "One prediction",
        unit="answers/s",
        ours=_contestant("headway", path.balancer, ours, path.folder),
        peers=[
            *(_contestant(each, url, theirs, path.folder) for each, url in peers.items()),
            _contestant("MLflow, model only", mlflow, load_script(path.array_questions()), path.folder),
            _contestant("MLServer, model only", mlserver, load_script(path.tensor_questions()), path.folder),
            _contestant("headway, at the replica", path.replica, ours, path.folder),
        ],
        targets=[
            Target(peer=_FASTAPI, at_least=1.3, goal=2.0),
            Target(peer="BentoML, model only", at_least=4.0),
            Target(peer="LitServe, model only", at_least=4.0),
            Target(peer="MLflow, model only", at_least=4.0),
            Target(peer="MLServer, model only", at_least=1.5),
        ],
        plan=plan,
        say=say,
    )


def _waits(path: RequestPath, fastapi: str, *, rate: float, plan: Plan, say: Say) -> Waits:
    """How long 99 % wait at most, at a rate that both bear; the other peers are gone by then."""
    mine = OfferedDoor(url=path.balancer, bodies=write_bodies(path.requests, path.folder / "ours.json"), rate=rate)
    theirs = write_bodies(path.peer_questions(), path.folder / "theirs.json")
    return compare_waits(
        f"One prediction, 99 % within, at {rate:,.0f} a second",
        ours=Contestant(name="headway", measure=mine.measure),
        peer=Contestant(name=_FASTAPI, measure=OfferedDoor(url=fastapi, bodies=theirs, rate=rate).measure),
        plan=plan,
        say=say,
    )


def _contestant(name: str, url: str, script: str, folder: Path) -> Contestant:
    return Contestant(name=name, measure=Door(url=url, script=script, folder=folder).measure)


def _check_outcomes(metrics: str) -> None:
    """Have every answer been a whole one, and every record been taken by the log.

    Raises:
        ContractViolation: some were answered from defaults, or not logged.
    """
    with urllib.request.urlopen(metrics, timeout=10) as page:
        bad = bad_outcomes(page.read().decode())
    if bad:
        raise ContractViolation(f"P1: not every answer was whole and logged: {bad}")


def bad_outcomes(page: str) -> list[str]:
    """Give the metrics that counted an answer from defaults, or a record that was not taken."""
    counted = [line for line in page.splitlines() if 'outcome="degraded"' in line or 'outcome="failed"' in line]
    return [line for line in counted if "_created{" not in line and float(line.rpartition(" ")[2])]
