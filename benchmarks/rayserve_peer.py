"""Ray Serve with P2's and P3's model: its HAProxy ingress and its throughput mode, everything on loopback and in one folder."""

from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import children
from benchmarks.inference_messages import check_messages, row_messages
from benchmarks.peers.environment import peer_python
from benchmarks.request_path import RequestPath, check_answers
from headway.commands import Say
from headway.local.processes import end_now, marked
from headway.settings import LOOPBACK

_MARK = "PEER_FOLDER"
# Ray with Serve and a replica: half a minute on a quiet machine.
_WITHIN_S = 180.0


def rayserve_grpc_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start Ray Serve with the model; return where it answers over gRPC."""
    _, address = _rayserve(started, path, ["inference"], say)
    check_messages(address, row_messages(path), path, say)
    return address


def rayserve_http_peers(started: ExitStack, path: RequestPath, names: Sequence[str], say: Say) -> list[str]:
    """Start Ray Serve with the model in these shapes (`plain`, `asgi`); return where each answers over HTTP."""
    door, _ = _rayserve(started, path, names, say)
    urls = [f"{door}/{name}" for name in names]
    for url in urls:
        check_answers(url, path.peer_questions(), path, say)
    return urls


def _rayserve(started: ExitStack, path: RequestPath, names: Sequence[str], say: Say) -> tuple[str, str]:
    """Start it with these applications; return where it answers over HTTP and over gRPC."""
    python = str(peer_python("rayserve", say=say))
    ports = {name: children.free_port() for name in ("http", "grpc", "gcs", "metrics", "stats")}
    folder = path.folder / "ray"
    folder.mkdir()
    ready = folder / "ready"
    where = [str(ports["http"]), str(ports["grpc"]), str(folder)]
    command = [python, "-m", "benchmarks.peers.rayserve_model", *where, *names]
    environment = {
        "PEER_MODEL": str(path.model.folder / "model.txt"),
        _MARK: str(folder),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["stats"]),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        # Ray's default, +15, starves its replicas beside the load.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GCS_SERVER_PORT": str(ports["gcs"]),
        # Everything on loopback, and no token of it in the home folder.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    # Ray's own processes may outlive the one that started them.
    started.callback(lambda: end_now(marked(_MARK, str(folder)), within_s=_WITHIN_S))
    started.enter_context(
        children.child("rayserve", command, folder=path.folder, ready=ready.exists, env=environment, within_s=_WITHIN_S)
    )
    return f"http://{LOOPBACK}:{ports['http']}", f"{LOOPBACK}:{ports['grpc']}"
