"""Other makers' servers of P1's model, each at its best documented setting (benchmarks/peers/README.md)."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType

from benchmarks import children
from benchmarks.inference_messages import PEER, check_messages, row_messages
from benchmarks.peers.environment import FOLDER, peer_python
from benchmarks.request_path import RequestPath, check_answers
from headway.commands import Say
from headway.errors import PermanentFailure
from headway.settings import LOOPBACK

# Its command and the server that it starts each import all of MLflow.
_MLFLOW_WITHIN_S = 150.0


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


def bentoml_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start BentoML with the model; return where it answers."""
    port = children.free_port()
    python = str(peer_python("model", say=say))
    command = [python, "-m", "bentoml", "serve", "bentoml_model:Model", "--working-dir", str(FOLDER)]
    lean = {"BENTOML_HOME": str(path.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    where = ["--host", LOOPBACK, "--port", str(port)]
    return _peer(started, path, name="bentoml", command=[*command, *where], port=port, say=say, env=lean)


def mlflow_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Write the model as MLflow has it and start MLflow's server with it; return where it answers."""
    python = peer_python("mlflow", say=say)
    folder = path.folder / "mlflow"
    lean = {
        **_model_of(path),
        # It starts the `uvicorn` that it finds there, and predicts on so many threads.
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    write = [str(python), str(FOLDER / "mlflow_model.py"), str(folder)]
    wrote = subprocess.run(write, env={**os.environ, **lean}, capture_output=True, text=True, check=False)
    if wrote.returncode != 0:
        raise PermanentFailure(f"mlflow_model: {wrote.stderr[-500:]}")
    port = children.free_port()
    serve = [str(python), "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    where = ["--workers", "1", "--host", LOOPBACK, "--port", str(port)]
    ready = children.answers(port, "/ping")
    server = children.child(
        "mlflow", [*serve, *where], folder=path.folder, ready=ready, env=lean, within_s=_MLFLOW_WITHIN_S
    )
    started.enter_context(server)
    url = f"http://{LOOPBACK}:{port}/invocations"
    check_answers(url, path.array_questions(), path, say)
    return url


def mlserver_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start MLServer with the model; return where it answers over HTTP."""
    url, _ = _mlserver(started, path, say)
    check_answers(url, path.tensor_questions(), path, say)
    return url


def mlserver_grpc_peer(started: ExitStack, path: RequestPath, say: Say) -> str:
    """Start MLServer with the model; return where it answers over gRPC."""
    _, address = _mlserver(started, path, say)
    check_messages(address, row_messages(path), path, say)
    return address


def _mlserver(started: ExitStack, path: RequestPath, say: Say) -> tuple[str, str]:
    """Start it in one process and without its extras; return where it answers over HTTP and over gRPC."""
    python = str(peer_python("mlserver", say=say))
    ports = {name: children.free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    folder = path.folder / "mlserver"
    folder.mkdir()
    lean = {"host": LOOPBACK, "parallel_workers": 0, "debug": False, "gzip_enabled": False, "metrics_endpoint": None}
    (folder / "settings.json").write_text(json.dumps({**lean, **ports}))
    model = {"name": PEER, "implementation": "mlserver_model.Model"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = {"PEER_MODEL": str(path.model.folder / "model.txt"), "PYTHONPATH": str(FOLDER)}
    ready = children.answers(ports["http_port"], f"/v2/models/{PEER}/ready")
    command = [python, "-m", "mlserver.cli.main", "start", str(folder)]
    started.enter_context(children.child("mlserver", command, folder=path.folder, ready=ready, env=environment))
    return f"http://{LOOPBACK}:{ports['http_port']}/v2/models/{PEER}/infer", f"{LOOPBACK}:{ports['grpc_port']}"


def _peer(
    started: ExitStack,
    path: RequestPath,
    *,
    name: str,
    command: Sequence[str],
    port: int,
    say: Say,
    env: Mapping[str, str] = MappingProxyType({}),
) -> str:
    ready = children.answers(port, "/docs")
    environment = {**_model_of(path), **env}
    started.enter_context(children.child(name, command, folder=path.folder, ready=ready, env=environment))
    url = f"http://{LOOPBACK}:{port}/predict"
    check_answers(url, path.peer_questions(), path, say)
    return url


def _model_of(path: RequestPath) -> dict[str, str]:
    """The peer's environment: nothing of ours but the model."""
    return {"PEER_MODEL": str(path.model.folder / "model.txt"), "PYTHONPATH": ""}
