"""Other makers' servers of P1's model, each at its best documented setting (benchmarks/peers/README.md)."""

import json
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks import children
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.request_path import RequestPath, check_answers
from headway.commands import Say
from headway.settings import LOOPBACK


def fastapi_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start FastAPI with the model; return where it answers."""
    port = children.free_port()
    python = str(peer_python("model", say=say))
    command = [python, "-m", "uvicorn", "fastapi_model:app", "--app-dir", str(FOLDER), "--port", str(port)]
    best = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return _peer(started, path, name="fastapi", command=[*command, *best], port=port, say=say)


def litserve_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start LitServe with the model; return where it answers."""
    port = children.free_port()
    python = str(peer_python("model", say=say))
    command = [python, str(FOLDER / "litserve_model.py"), str(port)]
    return _peer(started, path, name="litserve", command=command, port=port, say=say)


def mlserver_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start MLServer with the model, in one process and without its extras; return where it answers."""
    python = str(peer_python("mlserver", say=say))
    ports = {name: children.free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    folder = path.folder / "mlserver"
    folder.mkdir()
    lean = {"host": LOOPBACK, "parallel_workers": 0, "debug": False, "gzip_enabled": False, "metrics_endpoint": None}
    (folder / "settings.json").write_text(json.dumps({**lean, **ports}))
    model = {"name": "peer", "implementation": "mlserver_model.Model"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = {"PEER_MODEL": str(path.model.folder / "model.txt"), "PYTHONPATH": str(FOLDER)}
    ready = children.answers(ports["http_port"], "/v2/models/peer/ready")
    command = [python, "-m", "mlserver.cli.main", "start", str(folder)]
    started.enter_context(children.child("mlserver", command, folder=path.folder, ready=ready, env=environment))
    url = f"http://{LOOPBACK}:{ports['http_port']}/v2/models/peer/infer"
    check_answers(url, path.tensor_questions(), path, say)
    return url


def _peer(started: ExitStack, path: RequestPath, *, name: str, command: Sequence[str], port: int, say: Say) -> str:
    environment = {"PEER_MODEL": str(path.model.folder / "model.txt"), "PYTHONPATH": ""}
    started.enter_context(
        children.child(name, command, folder=path.folder, ready=children.answers(port, "/docs"), env=environment)
    )
    url = f"http://{LOOPBACK}:{port}/predict"
    check_answers(url, path.peer_questions(), path, say)
    return url
