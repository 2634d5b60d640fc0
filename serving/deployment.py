"""Starts or ends one Ray Serve application, in a process of its own: ``python -m serving.deployment``.

The release guard calls it so that it holds no connection to Ray: a driver is ended by Ray when the cluster stays away,
and importing ray takes 3 s and 150 MB. Reads one JSON order from standard input and answers with one JSON line; safe to
repeat, also after an earlier call was killed half-way. What bites: `serve.run` on a cluster without Serve would start
one with its own proxy on port 8000, so a cluster whose controller is not there yet counts as away.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from headway.errors import HeadwayError, PermanentFailure, TransientFailure
from headway.replica_scaling import ReplicaPolicy
from headway.settings import LOOPBACK, Settings
from serving.ray_cluster import ClusterSettings, connect, deploy, retire
from serving.replica import ReplicaSpec, forget_dead, read_records
from serving.replica_scaler import Scaling

# Replicas are told apart by Ray's slots; how much they really take is the machine's business.
REPLICA_CPUS = 0.1
CLUSTER_CPUS = 2
# Ray's minimum; nothing of ours goes through its object store.
OBJECT_STORE_BYTES = 80 * 1024**2
CHECK_PERIOD_S = 2.0
_CONNECT_GRACE_S = 30.0
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """A `ClusterSettings` as JSON."""

    temp_dir: str
    token_file: str
    gcs_port: int
    metrics_port: int

    @property
    def settings(self) -> ClusterSettings:
        """The same for Ray."""
        return ClusterSettings(
            temp_dir=Path(self.temp_dir),
            token_file=Path(self.token_file),
            gcs_port=self.gcs_port,
            metrics_port=self.metrics_port,
            cpus=CLUSTER_CPUS,
            object_store_bytes=OBJECT_STORE_BYTES,
        )


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: ``start`` needs the fields below it, ``retire`` the application alone.

    ``policy`` says how many replicas there are at least and at most; each decision in between is kept in ``decisions``.
    """

    action: Literal["start", "retire"]
    cluster: Cluster
    application: str
    factory: str = ""
    arguments: Mapping[str, str] = {}
    registry: str = ""
    drain_s: float = 0.0
    policy: ReplicaPolicy = ReplicaPolicy(least=0, most=0)
    decisions: str = ""
    timeout_s: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """``refused`` means that another try cannot succeed."""

    result: Literal["done", "refused", "away"]
    reason: str = ""


def local_cluster(settings: Settings) -> Cluster:
    """Give the one-machine cluster of these settings."""
    return Cluster(
        temp_dir=str(settings.sockets / "ray"),
        token_file=str(settings.state / "ray" / "token"),
        gcs_port=settings.ports.ray_gcs,
        metrics_port=settings.ports.ray_metrics,
    )


def run_order(order: Order, *, timeout_s: float) -> None:
    """Have an order carried out by a new process.

    Raises:
        PermanentFailure: replicas cannot start; says why.
        TransientFailure: the cluster is away, or it took too long.
    """
    try:
        ran = subprocess.run(
            (sys.executable, "-m", "serving.deployment"),
            input=msgspec.json.encode(order),
            stdout=subprocess.PIPE,
            timeout=timeout_s + _CONNECT_GRACE_S,
            check=False,
        )
        outcome = msgspec.json.decode(ran.stdout.splitlines()[-1], type=Outcome)
    except subprocess.TimeoutExpired as error:
        raise TransientFailure(f"{order.application}: {order.action} took over {timeout_s:.0f} s") from error
    except (IndexError, msgspec.DecodeError) as error:
        raise TransientFailure(
            f"{order.application}: {order.action} ended with code {ran.returncode} and no answer; see the log"
        ) from error
    if outcome.result == "refused":
        raise PermanentFailure(outcome.reason)
    if outcome.result == "away":
        raise TransientFailure(outcome.reason)


def carry_out(order: Order) -> None:
    """Carry out an order in this process; see `run_order`."""
    try:
        connect(order.cluster.settings)
    except (ConnectionError, RuntimeError, OSError) as error:
        raise TransientFailure(f"Ray at {order.cluster.settings.address} is away: {error}") from error
    _require_serve()
    if order.action == "retire":
        if _exists(order.application):
            retire(order.application)
        return
    registry = Path(order.registry)
    forget_dead(registry, order.application)
    if _exists(order.application):
        if _is_running(order.application) and len(read_records(registry, order.application)) >= order.policy.least:
            return
        retire(order.application)
    for record in read_records(registry, order.application):  # of a process that is not of this application
        record.path(registry).unlink(missing_ok=True)
    spec = ReplicaSpec(
        application=order.application,
        factory=order.factory,
        arguments=order.arguments,
        registry=registry,
        host=LOOPBACK,
        drain_s=order.drain_s,
    )
    deploy(
        spec,
        Scaling(policy=order.policy, decisions=Path(order.decisions)),
        cpus=REPLICA_CPUS,
        check_period_s=CHECK_PERIOD_S,
        timeout_s=order.timeout_s,
    )


def _require_serve() -> None:
    import ray

    try:
        ray.get_actor(_CONTROLLER, namespace="serve")
    except ValueError as error:
        raise TransientFailure("Ray is up, Serve is not yet") from error


def _exists(application: str) -> bool:
    from ray import serve

    return application in serve.status().applications


def _is_running(application: str) -> bool:
    from ray import serve

    return serve.status().applications[application].status == "RUNNING"


def main() -> int:
    """Carry out the order on standard input. Exit code 0 when it is done."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        carry_out(order)
        outcome = Outcome(result="done")
    except TransientFailure as error:
        outcome = Outcome(result="away", reason=str(error))
    except HeadwayError as error:
        outcome = Outcome(result="refused", reason=_last_words(str(error)))
    sys.stdout.write(json.dumps(msgspec.to_builtins(outcome)) + "\n")
    sys.stdout.flush()
    return 0 if outcome.result == "done" else 1


def _last_words(reason: str) -> str:
    """The end of a remote traceback: the exception itself."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "headway.errors." in line), lines[-1] if lines else reason)


if __name__ == "__main__":
    sys.exit(main())
