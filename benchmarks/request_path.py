"""The whole request path of P1, put up as an installation has it: broker, online store, replica, load balancer; and its peers.

The store holds two real days of flights. What every contestant answers for the same flights is compared before anything is
measured, so that all of them do the same work on the same rows.
"""

import json
import random
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import children
from benchmarks.flights_model import PRODUCT, FlightsModel, write_model
from benchmarks.flights_online import fill_with_flights
from benchmarks.replica_job import APPLICATION, VERSION
from domains.flights.domain import DOMAIN
from headway.adapters.haproxy import LoadBalancerTable, check_load_balancer, haproxy_command, write_load_balancer
from headway.adapters.lightgbm import LightGbmScorer
from headway.adapters.redis_online import OnlineReader
from headway.clock import parse_instant_us, to_us
from headway.commands import Say
from headway.errors import ContractViolation
from headway.evaluation import Floats
from headway.local.valkey import valkey_command, valkey_ready
from headway.online_features import GivenViews, OnlineFeatures
from headway.release import PinnedVersion, Placed, ProductState
from headway.settings import LOOPBACK, Settings
from headway.topics import topic_table
from headway.vector import Assembler
from serving.balancer import load_balancer_table
from serving.inference_inputs import Inputs
from serving.replica import read_records

PROJECT = "headway"
_AS_OF = "2013-07-01T16:00:00Z"
_ASKED = 500
_FLIGHT = {
    "flight": 1545,
    "sched_dep": "2013-07-01T17:00:00Z",
    "sched_arr": "2013-07-01T19:50:00Z",
    "distance_mi": 1400,
    "as_of": _AS_OF,
}


@dataclass(frozen=True, kw_only=True)
class RequestPath:
    """Where everything is; ``requests`` are ours, ``views`` what is read for them, ``vectors`` what they come to, shape (n, f)."""

    folder: Path
    model: FlightsModel
    balancer: str
    inference: str
    inference_grpc: str
    replica: str
    replica_grpc: str
    metrics: str
    requests: Sequence[dict[str, Any]]
    views: Sequence[GivenViews]
    vectors: Floats

    def peer_questions(self) -> list[dict[str, Any]]:
        """The same rows, for peers."""
        rows = [[None if np.isnan(value) else value for value in row] for row in self.vectors.tolist()]
        return [{"features": row} for row in rows]

    def array_questions(self) -> list[dict[str, Any]]:
        """The same rows as MLflow takes an array."""
        return [{"inputs": [question["features"]]} for question in self.peer_questions()]

    def tensor_questions(self) -> list[dict[str, Any]]:
        """The same rows in the Open Inference Protocol, each one tensor."""
        shape = [1, self.vectors.shape[1]]
        return [
            {"inputs": [{"name": "row", "datatype": "FP64", "shape": shape, "data": question["features"]}]}
            for question in self.peer_questions()
        ]

    def given_questions(self) -> list[dict[str, Any]]:
        """The same rows in the Open Inference Protocol, with their features, so that nothing is read."""
        inputs = Inputs(PRODUCT, limit=1)
        return [
            {
                "inputs": [
                    *(_tensor(name, field.datatype, request[name]) for name, field in inputs.fields.items()),
                    *(
                        _tensor(name, "FP64", value)
                        for name, value in zip(inputs.features, chain.from_iterable(views), strict=True)
                    ),
                ],
                "outputs": [{"name": "probability"}],
            }
            for request, views in zip(self.requests, self.views, strict=True)
        ]


@contextmanager
def request_path(folder: Path, say: Say) -> Iterator[RequestPath]:
    """Put it up until the block ends."""
    with ExitStack() as started:
        port = children.free_port()
        started.enter_context(
            children.child("valkey", valkey_command(folder, port), folder=folder, ready=lambda: valkey_ready(port))
        )
        url = f"redis://{LOOPBACK}:{port}/0"
        flights = fill_with_flights(url, PROJECT, until_us=parse_instant_us(_AS_OF, field="as_of"))
        say(f"{len(flights):,} flights of two days; a model of 300 trees")
        model = write_model(folder / "model")
        requests = [{**_FLIGHT, **flight} for flight in random.Random(1).sample(flights, _ASKED)]
        broker = _broker(started, folder)
        registry = folder / "replicas"
        replica = children.module(
            "benchmarks.replica_job", model.folder, f"{LOOPBACK}:{port}", PROJECT, broker, registry
        )
        started.enter_context(
            children.child("replica", replica, folder=folder, ready=lambda: bool(read_records(registry, APPLICATION)))
        )
        [record] = read_records(registry, APPLICATION)
        table = _balancer(started, folder, registry, record.digest)
        door = f"http://{LOOPBACK}:{table.port}"
        own = f"http://{LOOPBACK}:{record.port}"
        views, vectors = _read(url, model, requests)
        path = RequestPath(
            folder=folder,
            model=model,
            balancer=f"{door}/v1/{PRODUCT.name}/predict",
            replica=f"{own}/v1/{PRODUCT.name}/predict",
            inference=f"{door}/v2/models/{PRODUCT.name}/infer",
            inference_grpc=f"{LOOPBACK}:{table.grpc_port}",
            replica_grpc=f"{LOOPBACK}:{record.grpc_port}",
            metrics=f"{own}/metrics",
            requests=requests,
            views=views,
            vectors=vectors,
        )
        check_answers(path.balancer, requests, path, say)
        yield path


def check_answers(url: str, questions: Sequence[dict[str, Any]], path: RequestPath, say: Say) -> None:
    """Compare what a contestant answers with the model's own scores, bit for bit.

    Raises:
        ContractViolation: one differs, or is not what it should be.
    """
    scores = []
    for question in questions:
        answer = _asked(url, question)
        if answer.get("features", {}).get("degraded"):
            raise ContractViolation(f"{url}: got {answer}, wanted no default")
        scores.append(probability_of(answer))
    require_scores(url, scores, path, say)


def require_scores(door: str, scores: Sequence[object], path: RequestPath, say: Say) -> None:
    """Compare scores with the model's own, bit for bit.

    Raises:
        ContractViolation: one differs.
    """
    wanted = LightGbmScorer(path.model.text).score(path.vectors).tolist()
    for place, (said, score) in enumerate(zip(scores, wanted, strict=True)):
        if said != score:
            raise ContractViolation(f"{door}, question {place}: got the probability {said}, wanted {score}")
    say(f"{door}: {len(scores)} answers are the model's own, to the bit")


def probability_of(answer: dict[str, Any]) -> object:
    """Read an answer of any of the protocols."""
    if "outputs" in answer:
        return answer["outputs"][0]["data"][0]
    return answer["predictions"][0] if "predictions" in answer else answer["probability"]


def _broker(started: ExitStack, folder: Path) -> str:
    from headway.adapters.kafka_topics import admin_client, apply_topics

    broker = started.enter_context(children.broker(folder))
    topics = topic_table(views=[], products=[PRODUCT.name], replication_factor=1, min_insync_replicas=1)
    apply_topics(admin_client(broker.bootstrap), topics)
    return broker.bootstrap


def _balancer(started: ExitStack, folder: Path, registry: Path, digest: str) -> LoadBalancerTable:
    ports = {name: children.free_port() for name in ("load_balancer", "load_balancer_grpc", "load_balancer_metrics")}
    settings = Settings(state=folder, ports=ports)
    live = Placed(model=PinnedVersion(version=VERSION, digest=digest), colour="blue")
    table = load_balancer_table(
        settings,
        products=[PRODUCT.name],
        states={PRODUCT.name: ProductState(product=PRODUCT.name, live=live)},
        records=lambda application: read_records(registry, application),
    )
    write_load_balancer(table)
    check_load_balancer(table)
    ready = children.answers(table.port, f"/v1/{PRODUCT.name}/livez")
    started.enter_context(children.child("haproxy", haproxy_command(table), folder=folder, ready=ready))
    return table


def _read(url: str, model: FlightsModel, requests: Sequence[dict[str, Any]]) -> tuple[Sequence[GivenViews], Floats]:
    """What is read for each request and what the model is asked then, by the replica's own code."""
    import uvloop

    reference, assembler = DOMAIN.load_reference(), Assembler(model.columns)

    async def read() -> tuple[list[GivenViews], list[Floats]]:
        reader = OnlineReader(url, PROJECT)
        features = OnlineFeatures(PRODUCT, reader)
        reads: list[GivenViews] = []
        found: list[Floats] = []
        for document in requests:
            request = PRODUCT.parse_request(json.dumps(document).encode())
            at = await features.at(request, to_us(request.as_of))
            reads.append([view.values or () for view in at.views])
            values = PRODUCT.compute_request_features(request, reference, at.as_of_us)
            found.append(assembler.assemble(values, {view.view: view.values for view in at.views}, at.as_of_us))
        await reader.close()
        return reads, found

    views, vectors = uvloop.run(read())
    return views, np.array(vectors)


def _tensor(name: str, datatype: str, value: object) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1], "data": [value]}


def _asked(url: str, question: object) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(question).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        document: dict[str, Any] = json.loads(answer.read())
        return document
