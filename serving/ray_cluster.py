"""A one-machine Ray with Serve, all of it on loopback, as one process to supervise: ``python -m serving.ray_cluster``.

The process starts Ray, says ``ready`` as a JSON line, waits for SIGTERM or SIGINT, drains the replicas and stops Ray.
Killed outright, it takes every Ray process with it (they are tied to it by the kernel). Ray's HTTP and gRPC proxies are
off: replicas serve their own ports. Other processes deploy with `connect`, `deploy` and `retire`.

What bites: Ray binds every interface unless it believes it cannot have a cluster. The switch for that is read when ray
is first imported, so `use_environment` comes before any import of ray, and ray is imported inside functions here.
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headway.errors import PermanentFailure, TransientFailure
from headway.stopping import stop_event

if TYPE_CHECKING:
    from serving.replica import ReplicaRecord, ReplicaSpec
    from serving.replica_scaler import Scaling


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where the cluster lives. ``temp_dir`` holds Ray's sockets: keep its absolute path under 40 characters."""

    temp_dir: Path
    token_file: Path
    gcs_port: int
    metrics_port: int
    cpus: int
    object_store_bytes: int

    @property
    def address(self) -> str:
        """What other processes connect to."""
        return f"127.0.0.1:{self.gcs_port}"


def use_environment(settings: ClusterSettings) -> None:
    """Set what Ray reads from the environment, and make the token. Raises PermanentFailure when ray is already imported."""
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is not None and constants.ENABLE_RAY_CLUSTER:
        msg = "Ray cluster: ray was imported before use_environment, so it would bind every interface. Import it later."
        raise PermanentFailure(msg)
    if not settings.token_file.exists():
        _make_token(settings.token_file)
    os.environ.update(
        {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.token_file),
            # "There can be no cluster" makes 127.0.0.1 the node's address and the only one that Ray's servers bind.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_GCS_SERVER_PORT": str(settings.gcs_port),
            # Ray's default, +15, starves replicas as soon as anything else runs.
            "RAY_worker_niceness": "0",
            # How often replicas report their load; Ray's default, 10 s, is how long an overload would go unseen.
            "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_LOG_TO_STDERR": "0",
        }
    )


def _make_token(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    # A link appears with its content and never replaces: of two processes that start together, one token wins.
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


@contextmanager
def running_cluster(settings: ClusterSettings) -> Iterator[None]:
    """Start Ray and Serve in this process's name, and stop both, draining replicas, on leaving."""
    use_environment(settings)
    import ray
    from ray import serve

    ray.init(
        num_cpus=settings.cpus,
        object_store_memory=settings.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(settings.temp_dir),
        _metrics_export_port=settings.metrics_port,
    )
    try:
        serve.start(
            proxy_location="Disabled",
            logging_config={"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False},
        )
        yield
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray does not annotate it
        ray.shutdown()


def connect(settings: ClusterSettings) -> None:
    """Join a running cluster from another process of this machine; does nothing when already joined."""
    use_environment(settings)
    import ray

    ray.init(address=settings.address, log_to_driver=False, configure_logging=False, ignore_reinit_error=True)


def deploy(
    spec: "ReplicaSpec", scaling: "Scaling", *, cpus: float, check_period_s: float, timeout_s: float
) -> "tuple[ReplicaRecord, ...]":
    """Start the application of one model version and give its proven replicas; none of them receives a request yet.

    Raises PermanentFailure with Ray's reason when replicas cannot start (a wrong golden answer, say) and TransientFailure
    when they are not all ready in time; either way the application is gone afterwards.
    """
    from ray import serve

    from serving.replica import read_records, replica_application

    name, replicas = spec.application, scaling.policy.least
    target = serve.RunTarget(
        target=replica_application(spec, scaling, cpus=cpus, check_period_s=check_period_s),
        name=name,
        route_prefix=None,
    )
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    deadline = time.monotonic() + timeout_s
    while True:
        state = serve.status().applications.get(name)
        records = read_records(spec.registry, name)
        if state is not None and state.status == "RUNNING" and len(records) >= replicas:
            return records
        if state is not None and state.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            reason = "; ".join(d.message for d in state.deployments.values()) or state.message
            serve.delete(name)
            msg = f"Ray Serve application {name!r}: {state.status}: {reason}"
            raise PermanentFailure(msg)
        if time.monotonic() > deadline:
            serve.delete(name)
            msg = f"Ray Serve application {name!r}: {len(records)} of {replicas} replicas ready after {timeout_s} s, wanted all"
            raise TransientFailure(msg)
        time.sleep(0.1)


def retire(application: str) -> None:
    """Drain and end an application and wait until it is gone. Take its servers out of the load balancer first."""
    from ray import serve

    serve.delete(application)


def main() -> int:
    """Run the cluster until a signal. Exit code 0 when it was stopped in order."""
    parser = argparse.ArgumentParser(prog="serving.ray_cluster", description=main.__doc__)
    parser.add_argument("--temp-dir", type=Path, required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--gcs-port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--object-store-bytes", type=int, required=True)
    settings = ClusterSettings(**vars(parser.parse_args()))
    with running_cluster(settings):
        # Only now: ray.init puts its own handler on SIGTERM, which drains but then aborts with a core's exit code.
        stop = stop_event()
        sys.stdout.write(json.dumps({"event": "ready", "address": settings.address}) + "\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
